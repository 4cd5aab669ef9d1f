"""The card of a bundle: what a trained model says of itself."""

from typing import Any, Literal

from pydantic import Field

from vision_core.config.schema import Section
from vision_core.results import RESEARCH_NOTICE

FORMAT = 1
WEIGHTS_FILE, CARD_FILE, GOLDEN_FILE = "weights.safetensors", "card.json", "golden.safetensors"


class TrainedOn(Section):
    """The data behind the weights."""

    description: str = Field(description="Data set, split, and how labels came about.")
    synthetic: bool = Field(description="Whether the model has seen made images only.")
    manifest: str | None = Field(None, description="Hash over names and sizes of the training files.")
    licence: str | None = Field(None, description="Licence of the data.")


class Card(Section):
    """What a bundle says of itself."""

    format: int = Field(FORMAT, description="Version of this schema.")
    task: str = Field(description="Pipeline that made it: sfod, wsi, ...")
    method: str = Field(description="Method within the task.")
    config: dict[str, Any] = Field(description="The run's configuration.")
    architecture: dict[str, Any] = Field(description="What the module is rebuilt from.")
    preprocessing: dict[str, Any] = Field(description="What an image goes through before the module.")
    classes: tuple[str, ...] = Field(description="Names in the order of the logits.")
    trained_on: TrainedOn
    parent: str | None = Field(None, description="Hash of the weights that the run started from.")
    metrics: dict[str, Any] = Field(default_factory=dict, description="Evaluation of these weights, by split.")
    calibration: dict[str, Any] | None = Field(None, description="Temperature or conformal sets.")
    scope: dict[str, Any] | None = Field(None, description="Statistics of the training features, for the scope guard.")
    software: dict[str, Any] = Field(default_factory=dict, description="Versions that made it.")
    device: str = Field("cpu", description="Device that made it.")
    licence: str = Field("MIT", description="Licence of the weights.")
    intended_use: str = Field(RESEARCH_NOTICE, description="What it is for.")
    limits: str = Field("", description="Where it is known to fail.")
    storage: Literal["fp16", "fp32"] = Field("fp32", description="Stored precision; compute is fp32.")
    hashes: dict[str, str] = Field(default_factory=dict, description="sha256 of the other files.")

    def identity(self) -> str:
        """A short name for results: task, method, first letters of the weights' hash."""
        return f"{self.task}/{self.method}/{self.hashes.get(WEIGHTS_FILE, 'unsaved')[:12]}"
