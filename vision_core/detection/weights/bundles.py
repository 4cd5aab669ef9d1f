"""Bundles of detectors; the golden pair begins at bytes of an image and holds outputs before suppression."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from vision_core.bundles import bundle
from vision_core.bundles.bundle import Bundle, Golden, Tensors
from vision_core.bundles.card import UNSEALED_FORMAT, Card, refuse_unapplied
from vision_core.detection.calibration import read_calibration
from vision_core.detection.model.detector import Detector
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import CheckpointError, ConfigError
from vision_core.images.reading import resize_shortest, shortest_edge_size
from vision_core.randomness import key

DetectorT = TypeVar("DetectorT", bound=Detector)
GOLDEN_PIXELS = "pixels"
_GOLDEN_SIZE = (64, 96)
_ASKED_SIZES = ((480, 640), (300, 1500))  # of one the shortest edge decides, of the other the longest
_LARGEST_MAP = (16, 24)
_MOST_ANCHORS = 4096
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
        return answer(with_weights(lambda: Detector(detector.settings, detector.classes), tensors), inputs)

    return bundle.save(folder, detector.state_dict(), described, Golden(inputs=golden_inputs(), answer=compute))


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
        CheckpointError: Weights, classes and architecture do not fit each other, or the calibration cannot be read.
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
    if card.format > UNSEALED_FORMAT and (strange := _unlike(card.preprocessing, preprocessing(settings))):
        raise CheckpointError(
            f"card.json: preprocessing.{strange} is '{card.preprocessing.get(strange)}', the architecture asks for "
            f"'{preprocessing(settings).get(strange)}'. The bundle is inconsistent; fetch or make it again."
        )
    refuse_unapplied(card, "scope")
    read_calibration(card)  # a score to work at that cannot be read is no reason to work at another
    return with_weights(lambda: Detector(settings, card.classes), content.tensors)


def prepare(pixels: NDArray[np.uint8], settings: DetectorSettings) -> Tensor:
    """Resize an RGB image ``(H, W, 3)`` as the detector takes it: ``(3, H, W)`` uint8."""
    resized = resize_shortest(pixels, settings.shortest_edge_px, settings.longest_edge_px)
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


@torch.no_grad()
def answer(detector: Detector, inputs: Mapping[str, Tensor]) -> Tensors:
    """Compute the golden outputs: feature maps, objectness logits, head outputs on fixed boxes.

    Of ``pixels`` ``(H, W, 3)`` the image is resized as in inference, large outputs are averaged to a few thousand
    numbers, and the sizes of two resized images are added. Format 1 has an ``image`` ``(3, H, W)`` that is not resized.
    """
    if GOLDEN_PIXELS not in inputs:
        return _outputs(detector, inputs["image"], inputs["boxes"])
    pixels, settings = inputs[GOLDEN_PIXELS].cpu().numpy(), detector.settings
    image = prepare(pixels, settings)
    scale = torch.tensor([image.shape[2] / pixels.shape[1], image.shape[1] / pixels.shape[0]])
    outputs = {
        name: _averaged(tensor)
        for name, tensor in _outputs(detector, image, inputs["boxes"].cpu() * scale.repeat(2)).items()
    }
    edges = settings.shortest_edge_px, settings.longest_edge_px
    return outputs | {"sizes": torch.tensor([shortest_edge_size(size, *edges) for size in _ASKED_SIZES]).float()}


def _outputs(detector: Detector, image: Tensor, boxes: Tensor) -> Tensors:
    device = detector.pixel_mean.device
    features = detector.features([image.to(device)])
    objectness, _ = detector.anchor_outputs(features)
    logits, deltas = detector.score(detector.embed(detector.pool(features, [boxes.to(device)])))
    outputs = {f"features.{level}": maps for level, maps in features.maps.items()}
    outputs |= {f"objectness.{level}": each for level, each in enumerate(objectness)}
    return {name: tensor.float().cpu() for name, tensor in (outputs | {"logits": logits, "deltas": deltas}).items()}


def _averaged(outputs: Tensor) -> Tensor:
    """Average a large map ``(1, C, H, W)`` to a few cells, or a long row of anchors ``(1, A)`` to fewer numbers."""
    if outputs.ndim == 4:
        height, width = outputs.shape[2:]
        cells = min(height, _LARGEST_MAP[0]), min(width, _LARGEST_MAP[1])
        return functional.adaptive_avg_pool2d(outputs, cells)
    if len(outputs) == 1 and outputs.shape[1] > _MOST_ANCHORS:
        return functional.adaptive_avg_pool1d(outputs, _MOST_ANCHORS)
    return outputs


def _unlike(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """Name the first entry in which two descriptions of preprocessing differ; empty without one."""
    plain = {name: list(each) if isinstance(each, tuple) else each for name, each in expected.items()}
    return next((name for name in sorted(plain.keys() | found.keys()) if plain.get(name) != found.get(name)), "")


def preprocessing(settings: DetectorSettings) -> dict[str, object]:
    """Describe the preprocessing of images, for the card."""
    return {
        "resize": f"shortest edge {settings.shortest_edge_px} px, longest at most {settings.longest_edge_px} px",
        "channel_order": settings.channel_order,
        "mean": settings.pixel_mean,
        "std": settings.pixel_std,
        "values": "0 to 255",
    }


def with_weights(build: Callable[[], DetectorT], tensors: Tensors) -> DetectorT:
    """Build a detector, give it the weights of a bundle, and freeze it.

    Raises:
        CheckpointError: It cannot be built as the card says, or the weights do not fit it.
    """
    try:
        detector = build()
        detector.load_state_dict(tensors, strict=True)
    except ConfigError as error:
        raise CheckpointError(f"card.json: the architecture cannot be built: {error.problems[0]}") from error
    except RuntimeError as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
        raise CheckpointError(f"The weights do not fit the architecture: {first[:200]}") from error
    detector.freeze()
    return detector


def golden_inputs() -> Tensors:
    """Make the golden input: a small picture and a few boxes in it."""
    generator = torch.Generator().manual_seed(key("golden"))
    height, width = _GOLDEN_SIZE
    noise = torch.randint(0, 64, (3, height, width), generator=generator)
    ramp = torch.linspace(0, 191, width).long().expand(3, height, width)
    tint = torch.tensor([0, 12, 40])[:, None, None]  # channels that differ show their order
    image = (noise + ramp + tint).clamp(max=255).to(torch.uint8)
    return {GOLDEN_PIXELS: image.permute(1, 2, 0).contiguous(), "boxes": torch.tensor(_GOLDEN_BOXES)}
