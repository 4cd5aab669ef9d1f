"""Networks from the settings of the task."""

from typing import Any

from pipelines.wsi.config import ModelSettings
from pipelines.wsi.models.abmil import ABMIL
from pipelines.wsi.models.aggregation import Aggregator
from pipelines.wsi.models.dsmil import DSMIL
from pipelines.wsi.models.transmil import TransMIL


def build_model(settings: ModelSettings, feature_dim: int, num_classes: int) -> Aggregator:
    """Build a randomly initialised network for tile features of ``feature_dim`` numbers."""
    layer, abmil, dsmil, transmil = settings.embedding, settings.abmil, settings.dsmil, settings.transmil
    embedding: dict[str, Any] = {"embed_dim": layer.dim, "activation": layer.activation, "dropout": layer.dropout}
    match settings.name:
        case "abmil":
            return ABMIL(
                feature_dim,
                num_classes,
                **embedding,
                attention_dim=abmil.hidden,
                gated=abmil.gated,
                attention_activation=abmil.activation,
                attention_bias=abmil.bias,
                attention_dropout=abmil.dropout,
            )
        case "dsmil":
            return DSMIL(
                feature_dim,
                num_classes,
                **embedding,
                query_dim=dsmil.query,
                combine=dsmil.combine,
                instance_weight=dsmil.instance_weight,
            )
        case "transmil":
            return TransMIL(
                feature_dim,
                num_classes,
                **embedding,
                heads=transmil.heads,
                attention_dropout=transmil.dropout,
                square_first=transmil.square_first,
            )
