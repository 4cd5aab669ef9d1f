"""Which slides of a scored list a model has seen, as far as its card tells."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.wsi.cohort.cohort import labels_path
from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.cohort.labels import read_labels
from pipelines.wsi.cohort.splits import split_slides, splitting_seed
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.bags import records_manifest
from vision_core.bundles.card import Card
from vision_core.config.loading import of_bundle
from vision_core.errors import UserError
from vision_core.evaluation.overlaps import note_overlap


def note_seen_slides(path: Path, card: Card, config: WsiConfig, scored: Sequence[SlideRecord]) -> tuple[str, ...]:
    """Say which scored slides the model was trained on, and which chose its epoch and threshold.

    The list itself is known by its hash; single slides where the CSV of the training is the one that is scored.

    Args:
        path: Bundle of the model.
        card: Its card.
        config: Settings of the evaluation.
        scored: The slides, with labels in the model's order of classes.
    """
    names = [record.slide for record in scored]
    if card.trained_on.manifest == records_manifest(scored):
        return note_overlap("TRAINED ON", names, len(names), "slides")
    try:
        theirs = of_bundle(WsiConfig, card.config, (), f"{path}/card.json")
        listed = labels_path(theirs.data)
        if listed.resolve() != labels_path(config.data).resolve():
            return ()
        split = split_slides(read_labels(listed, theirs.data.classes), theirs.data, splitting_seed(theirs))
    except UserError:  # a list that is gone or has changed tells nothing
        return ()
    trained, chosen = (
        [record.slide for record in scored if record.place in places] for places in (split.train, split.val)
    )
    return (
        *note_overlap("TRAINED ON", trained, len(names), "slides"),
        *note_overlap("CALIBRATED ON", chosen, len(names), "slides"),
    )
