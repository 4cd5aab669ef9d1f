"""Card of a bundle: the description of a trained model, under a seal.

The seal is the sha256 over the card's canonical JSON without the seal itself: keys sorted by code point, no blanks
between tokens, UTF-8 without escapes of letters, numbers as Python's ``json`` writes them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vision_core.config.schema import Section
from vision_core.errors import CheckpointError
from vision_core.files import to_json
from vision_core.results import RESEARCH_NOTICE

FORMAT = 2
UNSEALED_FORMAT = 1  # its golden pair starts behind the preprocessing, and its card has no seal
SEAL = "sha256"
WEIGHTS_FILE, CARD_FILE, GOLDEN_FILE = "weights.safetensors", "card.json", "golden.safetensors"


class TrainedOn(Section):
    """Training data of a model."""

    description: str = Field(description="Data set, split, and origin of the labels.")
    synthetic: bool = Field(description="Whether all training images are synthetic.")
    manifest: str | None = Field(None, description="Hash over names and sizes of the training files.")
    licence: str | None = Field(None, description="Licence of the data.")


class Card(Section):
    """Description of a trained model."""

    format: int = Field(FORMAT, description="Version of this schema.")
    task: str = Field(description="Pipeline that trained it: sfod, wsi, ...")
    method: str = Field(description="Method within the task.")
    config: dict[str, Any] = Field(description="The run's configuration.")
    architecture: dict[str, Any] = Field(description="Settings from which the module is rebuilt.")
    preprocessing: dict[str, Any] = Field(description="Preprocessing of its images.")
    classes: tuple[str, ...] = Field(description="Names in the order of the logits.")
    class_titles: dict[str, str] = Field(default_factory=dict, description="Words for people, by class; may be empty.")
    trained_on: TrainedOn
    parent: str | None = Field(None, description="Hash of the weights that the run started from.")
    metrics: dict[str, Any] = Field(default_factory=dict, description="Evaluation of these weights, by split.")
    calibration: dict[str, Any] | None = Field(None, description="Temperature, conformal sets, score statistics.")
    scope: dict[str, Any] | None = Field(None, description="Statistics of the training features, for the scope guard.")
    software: dict[str, Any] = Field(default_factory=dict, description="Software versions that made it.")
    device: str = Field("cpu", description="Device that it was made on.")
    licence: str = Field("MIT", description="Licence of the weights.")
    intended_use: str = Field(RESEARCH_NOTICE, description="Intended use.")
    limits: str = Field("", description="Known limits.")
    storage: Literal["fp16", "fp32"] = Field("fp32", description="Stored precision; compute is fp32.")
    hashes: dict[str, str] = Field(default_factory=dict, description="sha256 of the other files.")
    sha256: str | None = Field(None, description="Seal: sha256 over the card without this field, in canonical JSON.")

    @model_validator(mode="after")
    def _names_of_classes(self) -> Self:
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise ValueError(f"classes names '{twice[0]}' more than once")
        if not all(name.strip() for name in self.classes):
            raise ValueError("classes holds a name without a letter")
        return self

    @model_validator(mode="after")
    def _titles_of_classes(self) -> Self:
        if strange := [name for name in self.class_titles if name not in self.classes]:
            raise ValueError(f"class_titles names '{strange[0]}', which is none of the classes")
        shown = Counter(self.class_titles.get(name, name) for name in self.classes)
        if twice := [title for title, count in shown.items() if count > 1]:
            raise ValueError(f"two classes are shown as '{twice[0]}'")
        if other := [title for name, title in self.class_titles.items() if title != name and title in self.classes]:
            raise ValueError(f"class_titles shows a class as '{other[0]}', which is another class")
        return self

    def identity(self) -> str:
        """Return a short name for results: task, method, start of the weights' hash."""
        return f"{self.task}/{self.method}/{self.hashes.get(WEIGHTS_FILE, 'unsaved')[:12]}"

    def sealed(self) -> "Card":
        """Return the card with its seal; a card of format 1 stays without one."""
        if self.format == UNSEALED_FORMAT:
            return self
        return self.model_copy(update={SEAL: seal(json.loads(self.to_json()))})

    def to_json(self) -> str:
        """Write the card as a person reads it; in format 1 without the fields that came later."""
        later = {SEAL, "class_titles"} if self.format == UNSEALED_FORMAT else None
        return to_json(self.model_dump(mode="json", exclude=later), indent=2)


def refuse_unapplied(card: Card, *names: str) -> None:
    """Refuse a card with statistics that its task does not apply: results without them would be other ones.

    Args:
        card: The card.
        names: Of its fields.

    Raises:
        CheckpointError: One of them holds something.
    """
    for name in names:
        if found := getattr(card, name):
            raise CheckpointError(
                f"card.json has a {name} ({', '.join(found)}), which '{card.task}' does not apply: results without it "
                "would be others. Fetch the bundle again, or update domainsight."
            )


def seal(content: Mapping[str, Any]) -> str:
    """Compute the seal of a card's content, as read from JSON."""
    return hashlib.sha256(canonical(content)).hexdigest()


def canonical(content: Mapping[str, Any]) -> bytes:
    """Write a card's content, without its seal, as canonical JSON."""
    kept = {name: value for name, value in content.items() if name != SEAL}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="backslashreplace")  # as files are written
