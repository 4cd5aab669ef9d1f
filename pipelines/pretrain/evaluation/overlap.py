"""Which images of a scored list a classifier has seen, as far as its card tells."""

from pathlib import Path

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.index import Images
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data.splits import manifest, training_images
from vision_core.bundles.card import Card
from vision_core.config.loading import of_bundle
from vision_core.errors import UserError
from vision_core.evaluation.overlaps import note_overlap

_TRAINED = {"pretrain", "finetune", "transfer"}


def note_seen_images(path: Path, card: Card, config: PretrainConfig, scored: Images) -> tuple[str, ...]:
    """Say which scored images the classifier was trained on, and which chose its epoch.

    The list itself is known by its hash, single images by their names in the folder of the training.

    Args:
        path: Bundle of the classifier.
        card: Its card.
        config: Settings of the evaluation.
        scored: The images, with labels in the order of the card's classes.
    """
    names = [scored.pixels.name(index) for index in range(len(scored))]
    if card.trained_on.manifest == manifest(scored):
        return note_overlap("TRAINED ON", names, len(names), "images")
    if card.method not in _TRAINED or not config.data.root:
        return ()
    try:
        theirs = of_bundle(PretrainConfig, card.config, (), f"{path}/card.json")
        data = theirs.data
        if not data.root or (data.root.resolve(), data.format) != (config.data.root.resolve(), config.data.format):
            return ()
        trained = training_images(theirs, read_images)
        chosen = read_images(data, data.val_split) if data.val_split and theirs.train.eval_every else None
    except (UserError, OSError):  # a list that is gone or has changed tells nothing
        return ()
    return (
        *note_overlap("TRAINED ON", _shared(names, trained), len(names), "images"),
        *(note_overlap("CALIBRATED ON", _shared(names, chosen), len(names), "images") if chosen else ()),
    )


def _shared(names: list[str], other: Images) -> list[str]:
    theirs = {other.pixels.name(index) for index in range(len(other))}
    return [name for name in names if name in theirs]
