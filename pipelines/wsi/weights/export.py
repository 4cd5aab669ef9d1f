"""Export of a bundle's network: from features of tiles to probabilities and tile scores."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.wsi.config import Scores
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.weights.bundles import TASK, SlideModel, load_network
from vision_core.bundles import bundle as bundles
from vision_core.bundles.bundle import Tensors
from vision_core.bundles.export import Exportable
from vision_core.errors import UsageError

_EXAMPLE_TILES = 64


class WholeBag(nn.Module):
    """The network with its calibration, on a bag ``(tiles, features)``."""

    def __init__(self, network: MHIM, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute calibrated probabilities ``(C,)`` and attention scores ``(tiles,)``."""
        aggregator = self.network.aggregator
        embedded = aggregator.embedding(features)
        aggregated = self.network.read(embedded, Scores())
        assert aggregated.scores is not None
        probabilities = (aggregator.log_probabilities(aggregated) / self.temperature).softmax(dim=0)
        return probabilities, aggregated.scores[:, : features.shape[0]].mean(dim=0)


def exportable(bundle: Path, size: int | None) -> Exportable:
    """Prepare a bundle's network for export.

    Args:
        bundle: Bundle of this task.
        size: Number of tiles, fixed in the file of TransMIL; the other networks take any number.

    Raises:
        UsageError: TransMIL without a size, or another network with one.
        CheckpointError: The bundle is damaged or of another task.
    """
    model = load_network(bundle, torch.device("cpu"))
    name = str(model.card.architecture["model"]["name"])
    is_fixed = name == "transmil"
    if is_fixed and not size:
        raise UsageError(f"'{bundle}' is a {name}: its file is of one number of tiles. Give it with --size.")
    if size and not is_fixed:
        raise UsageError(f"'{bundle}' is a {name}: its file takes any number of tiles. Leave --size out.")
    tiles = size if size and is_fixed else _EXAMPLE_TILES
    generator = torch.Generator().manual_seed(0)
    return Exportable(
        module=WholeBag(model.network, model.temperature),
        inputs={"features": torch.rand(tiles, model.feature_dim, generator=generator)},
        outputs=("probabilities", "scores"),
        dynamic={} if is_fixed else {"features": {0: "tiles"}},
        golden=_golden(bundle, model, tiles if is_fixed else None),
        card=model.card,
        preprocessing=_preprocessing(model),
    )


def _golden(path: Path, model: SlideModel, tiles: int | None) -> tuple[Tensors, Tensors]:
    """Return the golden bag with the result that the bundle gives for it.

    Args:
        path: The bundle.
        model: Its model.
        tiles: Number of tiles to which the bag is repeated; None: its own, whose probabilities are stored.
    """
    content = bundles.load(path, TASK)
    features = content.inputs()["features"]
    bag = features if tiles is None else features.repeat(-(-tiles // len(features)), 1)[:tiles].contiguous()
    found = model.predict(bag)
    probabilities = torch.from_numpy(found.probabilities).float()
    if tiles is None:
        probabilities = (content.outputs()["probabilities"].log() / model.temperature).softmax(dim=0)
    return {"features": bag}, {"probabilities": probabilities, "scores": torch.from_numpy(found.scores)}


def _preprocessing(model: SlideModel) -> str:
    made = model.card.preprocessing
    encoder, parts = made.get("encoder"), [f"Features of the tiles of one slide, {model.feature_dim} each"]
    if isinstance(encoder, dict):
        parts.append(f"of the encoder {encoder.get('name')}")
    if made.get("tile_px") and made.get("mpp"):
        parts.append(f"from tiles of {made['tile_px']} px at {made['mpp']} microns per pixel")
    threshold = (
        f"; called {model.card.classes[1]} from {model.threshold:.6g} on" if len(model.card.classes) == 2 else ""
    )
    return f"{', '.join(parts)}{threshold}."
