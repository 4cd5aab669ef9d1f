"""Bundles of detectors of names, and of generators of proposals."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from pipelines.ovd.config import Classifier, OvdConfig
from pipelines.ovd.data.vocabulary_split import Split
from pipelines.ovd.detector import ANYTHING, OpenDetector
from pipelines.ovd.image_text.compact import METHOD as IMAGE_TEXT
from vision_core.bundles import bundle
from vision_core.bundles.bundle import Bundle, Golden, Tensors
from vision_core.bundles.card import Card
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.detection.weights.bundles import answer, build_detector, golden_inputs, preprocessing, with_weights
from vision_core.errors import CheckpointError

GENERATOR = "proposals"  # the method of a generator, on its card
# Beside the weights; bundles written before have the first alone.
REGION_TENSORS = _BACKGROUND, _OBJECTS, _LABELS = "background_regions", "object_regions", "object_labels"
_EMBEDDINGS = "classifier.embeddings"


@dataclass(frozen=True, kw_only=True)
class StoredRegions:
    """Projected embeddings of regions of training images, for the thresholds of typed names.

    Attributes:
        background: ``(N, D)``, of what no labelled box or candidate touches.
        objects: ``(M, D)``, of labelled boxes.
        labels: ``(M,)`` int64, their classes in the order of the training's.
    """

    background: Tensor
    objects: Tensor
    labels: Tensor

    @classmethod
    def none(cls, width: int) -> "StoredRegions":
        """Store nothing, ``D`` wide."""
        return cls(background=torch.zeros(0, width), objects=torch.zeros(0, width), labels=torch.zeros(0).long())


@dataclass(frozen=True, kw_only=True)
class OpenBundle:
    """Detector of names with what its bundle holds beside it.

    Attributes:
        detector: Frozen.
        card: Its card.
        split: The classes of its training.
        embeddings: ``(K, D)``, of their names, whatever the detector is asked for meanwhile.
        regions: For the thresholds of typed names.
    """

    detector: OpenDetector
    card: Card
    split: Split
    embeddings: Tensor
    regions: StoredRegions


def save_open_detector(
    folder: Path, detector: OpenDetector, card: Card, novel: tuple[str, ...], regions: StoredRegions
) -> Card:
    """Write a detector of names as a bundle.

    Args:
        folder: The bundle.
        detector: The detector, with the vocabulary of its training.
        card: Architecture, classes and preprocessing are filled in here.
        novel: Names of the novel classes.
        regions: For the thresholds of typed names.

    Returns:
        The card as written.
    """
    classifier = detector.classifier_settings
    described = card.model_copy(
        update={
            "architecture": {
                "detector": detector.settings.model_dump(mode="json"),
                "classifier": classifier.model_dump(mode="json"),
                "novel": list(novel),
            },
            "classes": detector.classes,
            "preprocessing": {**card.preprocessing, **preprocessing(detector.settings)},
        }
    )

    def compute(tensors: Tensors, inputs: Tensors) -> Tensors:
        return answer(_with_weights(detector.settings, detector.classes, classifier, tensors), inputs)

    stored = {_BACKGROUND: regions.background, _OBJECTS: regions.objects, _LABELS: regions.labels}
    tensors = detector.state_dict() | stored
    return bundle.save(folder, tensors, described, Golden(inputs=golden_inputs(), answer=compute))


def load_open_detector(path: Path) -> OpenBundle:
    """Load a frozen detector of names.

    Raises:
        CheckpointError: It is no sound bundle of one.
    """
    content = bundle.load(path, OvdConfig.task)
    return build_open_detector(content, path)


def build_open_detector(content: Bundle, path: Path) -> OpenBundle:
    """Build the detector of a bundle.

    Raises:
        CheckpointError: Weights, classes and architecture do not fit each other.
    """
    card = content.card
    if card.method == GENERATOR:
        raise CheckpointError(
            f"'{path}' is a generator of proposals, which knows no names. Give proposals.weights it, and train with "
            "method=marvel."
        )
    if card.method == IMAGE_TEXT:
        raise CheckpointError(f"'{path}' is an image–text model, which detects nothing. Give image_text.weights it.")
    stated = card.architecture
    try:
        settings = DetectorSettings.model_validate(stated.get("detector"))
        classifier = Classifier.model_validate(stated.get("classifier"))
        split = Split(classes=card.classes, novel=tuple(stated["novel"]))
    except (ValidationError, KeyError, TypeError) as error:
        raise CheckpointError("card.json: architecture: it is no card of a detector of names.") from error
    known = content.tensors.get(_EMBEDDINGS)
    if known is None or len(known) != len(card.classes):
        found = "none" if known is None else str(len(known))
        raise CheckpointError(
            f"card.json lists {len(card.classes)} classes, the classifier has {found}. The bundle is inconsistent; "
            "fetch or make it again."
        )
    plain = preprocessing(settings)
    if any(card.preprocessing.get(name) != _listed(value) for name, value in plain.items()):
        raise CheckpointError("card.json: preprocessing is not that of the architecture. Fetch or make it again.")
    detector = _with_weights(settings, card.classes, classifier, content.tensors)
    none, tensors = StoredRegions.none(known.shape[1]), content.tensors
    regions = StoredRegions(
        background=tensors.get(_BACKGROUND, none.background),
        objects=tensors.get(_OBJECTS, none.objects),
        labels=tensors.get(_LABELS, none.labels),
    )
    embeddings = detector.classifier.embeddings.clone()
    return OpenBundle(detector=detector, card=card, split=split, embeddings=embeddings, regions=regions)


def load_generator(path: Path, *, rpn_nms: float, count: int) -> tuple[Detector, Card]:
    """Load a frozen generator of proposals.

    Args:
        path: The bundle.
        rpn_nms: Overlap above which a proposal is suppressed.
        count: Proposals that are needed at least.

    Raises:
        CheckpointError: It is no sound bundle of a generator.
    """
    content = bundle.load(path, OvdConfig.task)
    if content.card.method != GENERATOR or content.card.classes != ANYTHING:
        raise CheckpointError(
            f"'{path}' ({content.card.identity()}) is no generator of proposals. Train one with method=proposals."
        )
    settings = build_detector(content).settings
    wanted = settings.model_copy(
        update={"rpn_nms": rpn_nms, "rpn_post_nms_test": max(count, settings.rpn_post_nms_test)}
    )
    detector = Detector(wanted, ANYTHING)
    detector.load_state_dict(content.tensors)
    return detector.freeze(), content.card


def _with_weights(
    settings: DetectorSettings, classes: tuple[str, ...], classifier: Classifier, tensors: Tensors
) -> OpenDetector:
    own = {name: tensor for name, tensor in tensors.items() if name not in REGION_TENSORS}

    def build() -> OpenDetector:
        embeddings = torch.nn.functional.normalize(own[_EMBEDDINGS].float(), dim=1)
        return OpenDetector(settings, classes, embeddings, classifier)

    return with_weights(build, own)


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
