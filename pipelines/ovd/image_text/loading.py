"""Loading of the image–text model that the settings name."""

from pipelines.ovd.config import ImageText
from pipelines.ovd.image_text.clip import OpenClipModel
from pipelines.ovd.image_text.compact import load_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.image_text.model import ImageTextModel
from vision_core.assets import sentence_encoder
from vision_core.errors import ConfigError

_SHIPPED = "demos/checkpoints/ovd-demo/image-text"  # a folder of the repository, of the kind compact


def load_image_text(settings: ImageText) -> ImageTextModel:
    """Load the image–text model.

    Raises:
        ConfigError: No weights are given.
        CheckpointError: They cannot be used.
    """
    if settings.weights is None:
        told = "a bundle of a compact model"
        if settings.kind == "clip":
            told = "a safetensors file of open_clip, or image_text.kind=compact image_text.weights=BUNDLE"
        raise ConfigError(
            f"image_text.weights is empty: give {told}; for typed names the one that the detector was trained with "
            f"(the shipped one: {_SHIPPED}). Nothing is downloaded."
        )
    if settings.kind == "compact":
        return load_compact(settings.weights, MiniLM.read(sentence_encoder()))
    return OpenClipModel(settings.name, settings.weights, settings.tag)
