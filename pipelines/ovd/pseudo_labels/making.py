"""From images and names to a file of pseudo-labels: proposals, scores in shards, selection."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipelines.ovd.bundles import load_generator
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.data.reading import read_base, read_index
from pipelines.ovd.data.vocabulary_split import Split
from pipelines.ovd.image_text.loading import load_image_text
from pipelines.ovd.image_text.model import ImageTextModel
from pipelines.ovd.image_text.vocabulary import Vocabulary, check_memory, embed_vocabulary
from pipelines.ovd.pseudo_labels.crop_scores import score_crops
from pipelines.ovd.pseudo_labels.label_file import write_labels
from pipelines.ovd.pseudo_labels.proposals import propose_in_image
from pipelines.ovd.pseudo_labels.shards import SHARD_IMAGES, ScoredImage, read_shards, write_shards
from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import WEIGHTS_FILE
from vision_core.console import say
from vision_core.detection.datasets.readable import readable
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.detection.model.detector import Detector
from vision_core.errors import ConfigError, UsageError
from vision_core.files import stamp
from vision_core.images.reading import read_noted_image

LABELS_FILE = "pseudo_labels.json"
_SCORES, _EMBEDDINGS = "scores", "text-embeddings"
_DIGITS = 6  # of boxes in pixels; scores keep all of float32


def make_labels(
    config: OvdConfig,
    out: Path,
    device: torch.device,
    on_image: Callable[[int, int], None] = lambda done, total: None,
    shard_images: int = SHARD_IMAGES,
) -> list[str]:
    """Propose regions in every image of ``data.split``, score them by the novel names, and select the candidates.

    What a killed call has scored is not scored again. Scores do not depend on the selection: another one
    (``candidates``) of the same scores is made in seconds.

    Args:
        config: Data, generator, image–text model and selection.
        out: Folder of the scores and of ``pseudo_labels.json``.
        device: Where both models compute.
        on_image: Called with the numbers of images done and in total.
        shard_images: Images a shard.

    Returns:
        Lines that tell what was made.

    Raises:
        ConfigError: There is no generator or no image–text model.
        UsageError: A file of pseudo-labels that was not made here would be replaced.
        EnvironmentFault: The names take more memory than there is.
        DataError: The list cannot be read, or the folder holds scores that were made otherwise.
    """
    settings = config.proposals
    if settings.weights is None:
        raise ConfigError("proposals.weights is empty: give the bundle of a generator, trained with method=proposals.")
    _refuse_foreign(out / LABELS_FILE)
    dataset, split = read_base(config.data)
    sound = readable(dataset, config.data, {})
    model = load_image_text(config.image_text).to(device)
    for line in check_memory(len(split.novel), settings.count, model.embed_dim):
        say(line)  # before hours of work
    names = embed_vocabulary(model, Vocabulary.of_classes(split.novel), out / _EMBEDDINGS)
    generator, _ = load_generator(settings.weights, rpn_nms=settings.rpn_nms, count=settings.count)
    generator = generator.to(device)

    def score(number: int) -> ScoredImage:
        record = sound.records[number]
        scored = _score(generator, model, names, (record.image_id, record.path), config)
        on_image(number + 1, len(sound))
        return scored

    ids = [record.image_id for record in sound.records]
    stamps = [_stamped(record.path) for record in sound.records]
    count = write_shards(out / _SCORES, _header(config, split.novel, model), ids, score, shard_images, stamps)
    told, *notes = _select(config, out, (dataset, split), model)
    return [f"{count} of {len(ids)} images were scored now; the others were before.", told, *sound.notes, *notes]


def _select(
    config: OvdConfig, out: Path, listed: tuple[DetectionDataset, Split], model: ImageTextModel
) -> tuple[str, ...]:
    """Select the candidates of all scores, and write them; returns how many there are, and notes."""
    dataset, split = listed
    header, scored = read_shards(out / _SCORES)
    classes = Vocabulary.of_classes(split.classes)
    embeddings = embed_vocabulary(model, classes, out / _EMBEDDINGS)
    path = out / LABELS_FILE
    index = read_index(config.data, dataset, split)
    candidates, notes = write_labels(path, index, scored, split, embeddings, config.candidates, header)
    return f"{candidates} candidates of {len(split.novel)} novel classes: {path}", *classes.notes, *notes


def _score(
    generator: Detector, model: ImageTextModel, names: torch.Tensor, item: tuple[str, Path], config: OvdConfig
) -> ScoredImage:
    image_id, path = item
    image, _ = read_noted_image(path, config.data.max_megapixels, key="data.max_megapixels")
    proposals = propose_in_image(generator, image, config.proposals)
    found = score_crops(
        model, names, image, proposals.boxes, config.image_text, min_side_px=config.proposals.min_side_px
    )
    return ScoredImage(
        image_id=image_id,
        boxes=[[round(float(edge), _DIGITS) for edge in box] for box in found.boxes],
        rpn_scores=[float(each) for each in proposals.objectness[found.rows]],
        clip_scores=found.scores.tolist(),
        classes=found.classes.tolist(),
    )


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace a file that was not made here.

    Raises:
        UsageError: There is one.
    """
    if not path.exists():
        return
    try:
        is_ours = "scored_with" in json.loads(path.read_text(encoding="utf-8"))["info"]
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise UsageError(f"'{path}' was not made by pseudo-label and is not replaced. Give another --out.")


def _stamped(path: Path) -> str:
    """Write name, size and ends of an image file: most lists number theirs from 1, so that ids tell nothing apart."""
    found = stamp(path)
    return f"{path.name} {found.size} {found.ends}"


def _header(config: OvdConfig, novel: tuple[str, ...], model: ImageTextModel) -> dict[str, Any]:
    """List all that the scores depend on."""
    settings = config.proposals
    assert settings.weights is not None
    header = {
        "vlm_fingerprint": model.fingerprint(),
        "prompt_sha256": Vocabulary.of_classes(novel).fingerprint(),
        "class_names": list(novel),
        "temperature": config.image_text.temperature,
        "scales": list(config.image_text.crop_scales),
        "crop_mode": config.image_text.crop_mode,
        "proposal_checkpoint_sha256": read_card(settings.weights).hashes[WEIGHTS_FILE],
        "proposals": settings.model_dump(mode="json", exclude={"weights"}),
    }
    return dict(json.loads(json.dumps(header)))
