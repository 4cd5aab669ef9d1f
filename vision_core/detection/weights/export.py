"""Export of a detector for other programs: one image of a fixed size in, boxes out."""

import json
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from PIL import Image
from torch import Tensor, nn

from vision_core.bundles import bundle
from vision_core.bundles.bundle import Bundle, Tensors
from vision_core.bundles.export import Exportable
from vision_core.detection.model.detector import Detector
from vision_core.detection.onnx_predictor import PADDING
from vision_core.detection.weights.bundles import GOLDEN_PIXELS, build_detector
from vision_core.errors import UsageError
from vision_core.randomness import key

_DEFAULT_SIDE_PX, _MIN_SIDE_PX = 512, 64
_NOISE_CELLS = (2, 8, 32)  # an example image is noise of that many cells a side, enlarged


class ExportedDetector(nn.Module):
    """Detector with its normalisation, for one image that is already resized."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect boxes ``(K, 4)``, scores and labels ``(K,)`` in ``(3, side, side)``.

        The image is RGB with values 0 to 255.
        """
        detector = self.detector
        features = detector.features([image])
        [proposals] = detector.propose(features)
        logits, deltas = detector.score(detector.embed(detector.pool(features, [proposals.boxes])))
        # Detector.select and decode ask for the number of proposals, which tracing would freeze.
        predictor = detector.roi_heads.box_predictor
        boxes = predictor.box2box_transform.apply_deltas(deltas, proposals.boxes)
        limits = (predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image)
        found, _ = fast_rcnn_inference_single_image(boxes, logits.softmax(dim=-1), features.sizes[0], *limits)
        return found.pred_boxes.tensor, found.scores, found.pred_classes


def exportable_detector(path: Path, task: str, size: int | None) -> Exportable:
    """Load a detector's bundle for export, to ONNX alone.

    Args:
        path: The bundle.
        task: Name of the pipeline that exports.
        size: Side of the square image; None: the shortest edge of the bundle's settings, or 512 px.

    Raises:
        UsageError: The image is too small.
        CheckpointError: As for ``load_detector``.
    """
    content = bundle.load(path, task)
    return exportable(build_detector(content), content, size)


def exportable(detector: Detector, content: Bundle, size: int | None) -> Exportable:
    """Prepare the detector of a loaded bundle for export.

    Args:
        detector: Frozen.
        content: Its bundle.
        size: As for ``exportable_detector``.

    Raises:
        UsageError: The image is too small.
    """
    side = size or detector.settings.shortest_edge_px or _DEFAULT_SIDE_PX
    if side < _MIN_SIDE_PX:
        raise UsageError(f"--size '{side}': an image of at least {_MIN_SIDE_PX} px is expected.")
    first, *others = ({"image": _example_image(side, cells)} for cells in _NOISE_CELLS)
    return Exportable(
        module=ExportedDetector(detector),
        inputs=first,
        outputs=("boxes", "scores", "labels"),
        dynamic={name: {0: "found"} for name in ("boxes", "scores", "labels")},
        others=tuple(others),
        golden=_golden(detector, content, side),
        is_traced=True,
        card=content.card,
        preprocessing=f"One RGB image, float32, values 0 to 255, resized or padded to {side} x {side} px; boxes are "
        "x1, y1, x2, y2 in its pixels (--size N fixes another side).",
        facts={PADDING: json.dumps(_mean_rgb(detector))},
    )


def _mean_rgb(detector: Detector) -> list[float]:
    """The colour that the normalisation takes to zero, as what is padded inside the detector."""
    mean = list(detector.settings.pixel_mean)
    return mean[::-1] if detector.settings.channel_order == "bgr" else mean


@torch.no_grad()
def _golden(detector: Detector, content: Bundle, side: int) -> tuple[Tensors, Tensors]:
    """Detect in the golden picture, resized to the exported size, as inference does."""
    inputs = content.inputs()
    pixels = inputs[GOLDEN_PIXELS] if GOLDEN_PIXELS in inputs else inputs["image"].permute(1, 2, 0)  # format 1
    resized = Image.fromarray(pixels.numpy()).resize((side, side), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.array(resized).transpose(2, 0, 1).copy())
    [found] = detector.detect(detector.features([image]))
    return {"image": image.float()}, {"boxes": found.boxes, "scores": found.scores, "labels": found.labels}


def _example_image(side: int, cells: int) -> Tensor:
    generator = torch.Generator().manual_seed(key("export", cells))
    noise = torch.randint(0, 256, (1, 3, cells, cells), generator=generator).float()
    return nn.functional.interpolate(noise, size=(side, side), mode="nearest")[0]
