"""Bundles of detectors; the golden pair holds outputs before suppression."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from vision_core.bundles import bundle
from vision_core.bundles.bundle import Bundle, Golden, Tensors
from vision_core.bundles.card import Card
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import CheckpointError, ConfigError
from vision_core.randomness import key

_GOLDEN_SIZE = (64, 96)
_GOLDEN_BOXES = ((0.0, 0.0, 96.0, 64.0), (8.0, 4.0, 40.0, 52.0), (50.0, 20.0, 90.0, 60.0), (30.0, 30.0, 46.0, 46.0))


def save_detector(folder: Path, detector: Detector, card: Card) -> Card:
    """Write a detector as a bundle, with architecture and classes.

    Returns:
        The card as written.
    """
    described = card.model_copy(
        update={
            "architecture": detector.settings.model_dump(mode="json"),
            "classes": detector.classes,
            "preprocessing": preprocessing(detector.settings),
        }
    )

    def compute(tensors: Tensors, inputs: Tensors) -> Tensors:
        return answer(_load_weights(detector.settings, detector.classes, tensors), inputs)

    return bundle.save(folder, detector.state_dict(), described, Golden(inputs=_golden_inputs(), answer=compute))


def load_detector(path: Path, task: str | None = None) -> tuple[Detector, Card]:
    """Load a frozen detector and its card.

    Raises:
        CheckpointError: As for ``bundle.load``; or weights, classes and architecture do not fit each other.
    """
    content = bundle.load(path, task)
    return build_detector(content), content.card


def build_detector(content: Bundle) -> Detector:
    """Build the frozen detector of a bundle.

    Raises:
        CheckpointError: Weights, classes and architecture do not fit each other.
    """
    card = content.card
    try:
        settings = DetectorSettings.model_validate(card.architecture)
    except ValidationError as error:
        raise CheckpointError(
            f"card.json: architecture: {error.errors()[0]['msg']}. It is no detector's card."
        ) from error
    head = content.tensors.get("roi_heads.box_predictor.cls_score.bias")
    if head is None:
        raise CheckpointError("The bundle has no detector head (roi_heads.box_predictor); it is a backbone.")
    if len(head) != len(card.classes) + 1:
        raise CheckpointError(
            f"card.json lists {len(card.classes)} classes, the head 'roi_heads.box_predictor.cls_score' "
            f"has {len(head) - 1}. The bundle is inconsistent; fetch or make it again."
        )
    return _load_weights(settings, card.classes, content.tensors)


@torch.no_grad()
def answer(detector: Detector, inputs: Mapping[str, Tensor]) -> Tensors:
    """Compute the golden outputs: feature maps, objectness logits, head outputs on fixed boxes."""
    device = detector.pixel_mean.device
    features = detector.features([inputs["image"].to(device)])
    objectness, _ = detector.anchor_outputs(features)
    logits, deltas = detector.score(detector.embed(detector.pool(features, [inputs["boxes"].to(device)])))
    outputs = {f"features.{level}": maps for level, maps in features.maps.items()}
    outputs |= {f"objectness.{level}": each for level, each in enumerate(objectness)}
    return {name: tensor.float().cpu() for name, tensor in (outputs | {"logits": logits, "deltas": deltas}).items()}


def preprocessing(settings: DetectorSettings) -> dict[str, object]:
    """Describe the preprocessing of images, for the card."""
    return {
        "resize": f"shortest edge {settings.shortest_edge_px} px, longest at most {settings.longest_edge_px} px",
        "channel_order": settings.channel_order,
        "mean": settings.pixel_mean,
        "std": settings.pixel_std,
        "values": "0 to 255",
    }


def _load_weights(settings: DetectorSettings, classes: tuple[str, ...], tensors: Tensors) -> Detector:
    try:
        detector = Detector(settings, classes)
        detector.load_state_dict(tensors, strict=True)
    except ConfigError as error:
        raise CheckpointError(f"card.json: the architecture cannot be built: {error.problems[0]}") from error
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise CheckpointError(f"The weights do not fit the architecture: {first[:200]}") from error
    return detector.freeze()


def _golden_inputs() -> Tensors:
    generator = torch.Generator().manual_seed(key("golden"))
    height, width = _GOLDEN_SIZE
    noise = torch.randint(0, 64, (3, height, width), generator=generator)
    ramp = torch.linspace(0, 191, width).long().expand(3, height, width)
    return {"image": (noise + ramp).to(torch.uint8), "boxes": torch.tensor(_GOLDEN_BOXES)}
