"""What a detector has seen of a list that it is scored on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.sfod.config import SUPERVISED, TEACHING, SfodConfig
from vision_core.bundles.card import Card
from vision_core.config.loading import of_bundle
from vision_core.detection.calibration import read_calibration
from vision_core.detection.datasets.reading import DetectionDataset, manifest, read_dataset, shared_images
from vision_core.errors import UserError
from vision_core.evaluation.overlaps import Kind, note_overlap

_TRAINED = SUPERVISED | TEACHING | {"bn"}  # methods whose cards hold the settings of their training list


def note_seen_images(
    path: Path, card: Card, scored: DetectionDataset, shared: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Say which scored images a bundle was trained on, adapted to or calibrated on, as far as its card tells.

    Args:
        path: The bundle.
        card: Its card; lists are known by their hash.
        scored: The list to score on.
        shared: Ids of the images that the training list contains too; None: compared here, where the training list of
            the card can still be read.
    """
    kind: Kind = "TRAINED ON" if card.method in SUPERVISED else "TRANSDUCTIVE"
    names, known = [record.image_id for record in scored.records], manifest(scored)
    if card.trained_on.manifest == known:
        return note_overlap(kind, names, len(names), "images")
    shared = _shared_with_training(path, card, scored) if shared is None else shared
    calibration = read_calibration(card)
    is_calibrated_on = calibration is not None and calibration.manifest == known
    return (
        *note_overlap(kind, shared, len(names), "images"),
        *note_overlap("CALIBRATED ON", names if is_calibrated_on else (), len(names), "images"),
    )


def note_shared_images(config: SfodConfig, shared: Sequence[str], scored: DetectionDataset) -> list[str]:
    """Say which scored images, by their ids, the training list of a run contains too."""
    kind: Kind = "TRAINED ON" if config.method in SUPERVISED else "TRANSDUCTIVE"
    return list(note_overlap(kind, shared, len(scored), "images"))


def _shared_with_training(path: Path, card: Card, scored: DetectionDataset) -> list[str]:
    if card.method not in _TRAINED:
        return []
    try:
        data = of_bundle(SfodConfig, card.config, (), f"{path}/card.json").data
        data = data.model_copy(update={"classes": card.classes, "filter_empty": False, "on_missing": "skip"})
        return shared_images(read_dataset(data, data.split, with_labels=False), scored)
    except (UserError, OSError):  # a list that is gone or has changed tells nothing
        return []


def is_own_validation(card: Card, config: SfodConfig, dataset: DetectionDataset) -> bool:
    """Check whether a list to score on is the one that a source model was validated on.

    Neither a list of a target nor the training list is.
    """
    theirs, ours = (
        card.config.get("data"),
        config.data.model_dump(mode="json", include={"root", "format", "fog_beta", "eval_split"}),
    )
    is_same = isinstance(theirs, Mapping) and all(theirs.get(name) == value for name, value in ours.items())
    return card.method == "source" and is_same and card.trained_on.manifest != manifest(dataset)
