"""Loading of the image–text model that the settings name."""

from pipelines.ovd.config import ImageText
from pipelines.ovd.image_text.clip import OpenClipModel
from pipelines.ovd.image_text.compact import load_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.image_text.model import ImageTextModel
from vision_core.assets import sentence_encoder
from vision_core.errors import ConfigError


def load_image_text(settings: ImageText) -> ImageTextModel:
    """Load the image–text model.

    Raises:
        ConfigError: No weights are given.
        CheckpointError: They cannot be used.
    """
    if settings.weights is None:
        told = "a safetensors file of open_clip" if settings.kind == "clip" else "a bundle of a compact model"
        raise ConfigError(f"image_text.weights is empty: give {told}. Nothing is downloaded.")
    if settings.kind == "compact":
        return load_compact(settings.weights, MiniLM.read(sentence_encoder()))
    return OpenClipModel(settings.name, settings.weights, settings.tag)
