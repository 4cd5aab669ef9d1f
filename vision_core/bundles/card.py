"""Card of a bundle: the description of a trained model."""

from typing import Any, Literal

from pydantic import Field

from vision_core.config.schema import Section
from vision_core.results import RESEARCH_NOTICE

FORMAT = 1
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
    trained_on: TrainedOn
    parent: str | None = Field(None, description="Hash of the weights that the run started from.")
    metrics: dict[str, Any] = Field(default_factory=dict, description="Evaluation of these weights, by split.")
    calibration: dict[str, Any] | None = Field(None, description="Temperature or conformal sets.")
    scope: dict[str, Any] | None = Field(None, description="Statistics of the training features, for the scope guard.")
    software: dict[str, Any] = Field(default_factory=dict, description="Software versions that made it.")
    device: str = Field("cpu", description="Device that it was made on.")
    licence: str = Field("MIT", description="Licence of the weights.")
    intended_use: str = Field(RESEARCH_NOTICE, description="Intended use.")
    limits: str = Field("", description="Known limits.")
    storage: Literal["fp16", "fp32"] = Field("fp32", description="Stored precision; compute is fp32.")
    hashes: dict[str, str] = Field(default_factory=dict, description="sha256 of the other files.")

    def identity(self) -> str:
        """Return a short name for results: task, method, start of the weights' hash."""
        return f"{self.task}/{self.method}/{self.hashes.get(WEIGHTS_FILE, 'unsaved')[:12]}"
