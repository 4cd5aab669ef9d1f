"""The network that the settings name."""

from pipelines.wsi.config import ModelSettings
from pipelines.wsi.models.abmil import Abmil
from pipelines.wsi.models.aggregation import Aggregator
from pipelines.wsi.models.dsmil import Dsmil
from pipelines.wsi.models.transmil import Transmil


def build_model(settings: ModelSettings, feature_dim: int, num_classes: int) -> Aggregator:
    """A freshly initialised network for tile features of ``feature_dim`` numbers."""
    match settings.name:
        case "abmil":
            return Abmil(settings, feature_dim, num_classes)
        case "dsmil":
            return Dsmil(settings, feature_dim, num_classes)
        case "transmil":
            return Transmil(settings, feature_dim, num_classes)
