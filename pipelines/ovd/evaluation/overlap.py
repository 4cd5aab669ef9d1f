"""What a detector has seen of a list that it is scored on."""

from pathlib import Path

from pipelines.ovd.config import OvdConfig, OvdData
from pipelines.ovd.data.reading import read_base
from vision_core.bundles.card import Card
from vision_core.config.loading import of_bundle
from vision_core.detection.datasets.reading import DetectionDataset, manifest, shared_images
from vision_core.errors import UserError
from vision_core.evaluation.overlaps import note_overlap


def note_seen_images(path: Path, card: Card, stated: OvdData, scored: DetectionDataset) -> tuple[str, ...]:
    """Say which scored images a bundle was trained on, as far as its card tells.

    Its training list is the one that the card names, or where that has moved the stated one, if it has the card's hash:
    a list of other images, which the settings of an evaluation may name, was not trained on.

    Args:
        path: The bundle.
        card: Its card.
        stated: Settings of the evaluation.
        scored: The list to score on.
    """
    names, known = [record.image_id for record in scored.records], card.trained_on.manifest
    if known == manifest(scored):
        return note_overlap("TRAINED ON", names, len(names), "images")
    try:
        own = _training_list(of_bundle(OvdConfig, card.config, (), f"{path}/card.json").data)
    except UserError:  # settings of another version
        own = None
    moved = None if own else _training_list(stated)
    trained = moved if moved and manifest(moved) == known else own
    return note_overlap("TRAINED ON", shared_images(trained, scored) if trained else (), len(names), "images")


def _training_list(data: OvdData) -> DetectionDataset | None:
    """Read a training list; None where it is gone or has changed, which tells nothing."""
    try:
        return read_base(data)[0]
    except (UserError, OSError):
        return None
