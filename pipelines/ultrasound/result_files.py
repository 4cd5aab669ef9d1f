"""Files of a result: record, table of frames, masks, pictures, a video."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.files import FrameFile, is_dicom_input
from pipelines.ultrasound.data.frames import Grey
from pipelines.ultrasound.segmentation_object import write_object
from vision_core.batch.summary import THUMBNAIL
from vision_core.csv_tables import Cell, to_csv
from vision_core.dicom.segmentation_objects import Segment
from vision_core.files import origin_text, write_atomic
from vision_core.images.captions import Caption, add_caption
from vision_core.images.drawing import ORANGE, SKY_BLUE, write_png, write_thumbnail
from vision_core.images.nifti import write_masks
from vision_core.images.video import write_video
from vision_core.results import RESEARCH_NOTICE, CineResult, as_share
from vision_core.segmentation.metrics import size_of
from vision_core.segmentation.nrrd import write_seg_nrrd

RESULT_FILES = {
    ".json": "Category, and for each frame whether it shows the organ, with scores; notes, model.",
    ".frames.csv": "A row for each frame: presence, scores, area and diameters of the mask.",
    ".masks.nii.gz": "Masks of all frames, width x height x frames of 0 and 1, for ITK-SNAP or nibabel.",
    ".seg.nrrd": "The same as a segmentation of 3D Slicer, with name and colour.",
    ".seg.dcm": "Masks as a DICOM segmentation that refers to the frames of the file; for DICOM alone.",
    ".overlay.png": "Some frames with the outline of their masks.",
    ".overlay.mp4": "All frames with it, at the speed of the file, else 25 a second; with results.video=true alone.",
    THUMBNAIL: "The small picture in summary.html.",
}
_HEADER = (
    "frame", "time_ms", "present", "accepted", "outside", "reason", "score", "confidence", "area_px", "longest_px",
    "across_px", "area_mm2", "longest_mm", "across_mm", "notice",
)  # fmt: skip
_SHOWN, _COLUMNS = 12, 4
_UNKNOWN = "spacing unknown"
_UM_PER_MM, _SQUARE = 1e3, 1e-3
_VIDEO_PX, _USUAL_RATE = 1024, 25.0


def write_result(
    result: CineResult, file: FrameFile, path: Path, folder: Path, *, with_video: bool = False
) -> list[Path]:
    """Write all files of a result; frames of ``file`` are read again for the pictures, all of them for the video."""
    files = {ending: folder / f"{path.stem}{ending}" for ending in RESULT_FILES}
    write_atomic(files[".json"], json.dumps(result.to_record(), indent=1, ensure_ascii=False))
    write_atomic(files[".frames.csv"], to_csv(_HEADER, [_row(result, number) for number in range(len(result))]))
    if result.masks is None:
        del files[".masks.nii.gz"], files[".seg.nrrd"]
    else:
        told = origin_text(result.model, result.digits, _frames(range(len(result))))
        write_masks(files[".masks.nii.gz"], result.masks, result.spacing_mm, file.place, told)
        write_seg_nrrd(files[".seg.nrrd"], result.masks, result.classes[0], result.spacing_mm, file.place, told)
    segment = Segment(
        label=result.classes[0], algorithm=result.model, spacing_mm=result.spacing_mm, digits=result.digits
    )
    masks, sandbox = files.get(".masks.nii.gz"), file.sandbox
    if not (
        masks and sandbox and is_dicom_input(path) and write_object(files[".seg.dcm"], path, masks, segment, sandbox)
    ):
        del files[".seg.dcm"]
    shown = sorted({place * len(result) // _SHOWN for place in range(_SHOWN)})
    told = origin_text(result.model, result.digits, _frames(shown))
    write_png(files[".overlay.png"], _sheet(result, file.read, shown), told)
    if with_video and len(result) > 1:
        write_video(files[".overlay.mp4"], _shown_frames(result, file.read), _rate(result.times_ms))
    else:
        del files[".overlay.mp4"]
    first = int(np.argmax(result.present))
    write_thumbnail(files[THUMBNAIL], outlined(file.read(first), _mask(result, first)))
    return list(files.values())


def columns(result: CineResult) -> dict[str, Cell]:
    """Return the columns of a result in ``results.csv``."""
    scores = result.scores[~np.isnan(result.scores)]
    return {
        "category": result.category,
        "verdict": result.verdict,
        "notice": " ".join(result.notes),
        "frames": len(result),
        "frames accepted": int(result.accepted.sum()),
        "frames present": int(result.present.sum()),
        "frames outside": None if result.outside is None else int(result.outside.sum()),
        "highest score": as_share(scores.max()) if len(scores) else None,
        "frames per second": round(len(result) / result.seconds, 1) if result.seconds else None,
        "model": result.model,
    }


def outlined(image: Grey, mask: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Draw the outline of a mask on a frame ``(H, W)``, orange, and of another one, blue: ``(H, W, 3)`` uint8."""
    if image.dtype != np.uint8:
        white = 65535 if image.dtype == np.uint16 else 255
        image = (np.asarray(image, np.float32) * (255 / white)).clip(0, 255).astype(np.uint8)
    picture = np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2RGB), np.uint8)
    for each, colour in ((other, SKY_BLUE), (mask, ORANGE)):
        if each is not None and each.any():
            contours, _ = cv2.findContours(each.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, contours, -1, colour, 1)
    return picture


def sheet(pictures: list[NDArray[np.uint8]], num_columns: int = _COLUMNS) -> NDArray[np.uint8]:
    """Put pictures of one size side by side, in rows; what is left over is black."""
    across = min(num_columns, len(pictures))
    rows = -(-len(pictures) // across)
    height, width = pictures[0].shape[:2]
    found = np.zeros((rows * height, across * width, 3), np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // across * height, place % across * width
        found[top : top + height, left : left + width] = picture
    return found


def _frames(numbers: Sequence[int]) -> str:
    """Name frames, counted from 1 as people do."""
    if len(numbers) > 1 and list(numbers) == list(range(len(numbers))):
        return f"frames 1 to {len(numbers)}"
    return f"frame{'s' * (len(numbers) > 1)} {', '.join(str(number + 1) for number in numbers)}"


def _sheet(result: CineResult, read: Callable[[int], Grey], numbers: Sequence[int]) -> NDArray[np.uint8]:
    drawn = sheet([outlined(read(number), _mask(result, number)) for number in numbers])
    caption = Caption(
        headline=f"{result.verdict[:1].upper()}{result.verdict[1:]}.",
        lines=[_of(result, numbers), *_shape(result), *result.notes],
        model=result.model,
        um_per_px=_um_across(result),
    )
    return add_caption(drawn, caption)


def _of(result: CineResult, numbers: Sequence[int]) -> str:
    """Tell frames and input of a picture."""
    frames = _frames(numbers)
    return f"{frames[:1].upper()}{frames[1:]}{f' of input {result.digits}' if result.digits else ''}."


def _um_across(result: CineResult) -> float:
    """Return the width of a pixel in µm; 0 where it is not known."""
    return _UM_PER_MM * result.spacing_mm[1] if result.spacing_mm else 0.0


def _shape(result: CineResult) -> list[str]:
    """Tell of pixels that are no squares, for which a scale bar holds across alone."""
    if result.spacing_mm is None or np.isclose(*result.spacing_mm, rtol=_SQUARE):
        return []
    height, width = result.spacing_mm
    return [f"Pixels are {height:.4g} mm high and {width:.4g} mm wide: the bar holds across."]


def _shown_frames(result: CineResult, read: Callable[[int], Grey]) -> Iterator[NDArray[np.uint8]]:
    """Draw one frame after the other, above the same caption."""
    height, width = result.size
    scale = min(1.0, _VIDEO_PX / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    page: NDArray[np.uint8] | None = None
    for number in range(len(result)):
        image, mask = read(number), _mask(result, number)
        if scale < 1:  # before drawing, so that the outline stays a pixel wide
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), image.dtype)
            mask = None if mask is None else cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        drawn = outlined(image, mask)
        if page is None:
            told = Caption(
                headline=f"{result.verdict[:1].upper()}{result.verdict[1:]}.",
                lines=[_of(result, range(len(result))), *_shape(result)],
                model=result.model,
                um_per_px=_um_across(result) * width / size[0],
            )
            page = add_caption(drawn, told)
            page[: size[1]] = 0  # also beside a narrow picture
        page[: size[1], : size[0]] = drawn
        yield page


def _rate(times_ms: Sequence[float] | None) -> float:
    """Return the frames a second with which a video lasts as long as the cine."""
    long = times_ms[-1] - times_ms[0] if times_ms else 0.0
    return 1000 * (len(times_ms) - 1) / long if times_ms and long > 0 else _USUAL_RATE


def _mask(result: CineResult, number: int) -> NDArray[np.bool_] | None:
    return None if result.masks is None else result.masks[number]


def _row(result: CineResult, number: int) -> list[Cell]:
    score, confidence = (float(each[number]) for each in (result.scores, result.confidence))
    mask = _mask(result, number)
    sizes: list[Cell] = [""] * 6
    if mask is not None and mask.any():
        pixels = size_of(mask)
        sizes[:3] = [pixels.area, pixels.longest, pixels.across]
        sizes[3:] = [_UNKNOWN] * 3
        if result.spacing_mm:
            inner = size_of(mask, result.spacing_mm)
            sizes[3:] = [inner.area, inner.longest, inner.across]
    return [
        result.frames[number],
        "" if result.times_ms is None else round(result.times_ms[number], 3),
        int(result.present[number]),
        int(result.accepted[number]),
        "" if result.outside is None else int(result.outside[number]),
        result.reasons[number] if result.reasons else "",
        "" if np.isnan(score) else as_share(score),
        "" if np.isnan(confidence) else as_share(confidence),
        *(as_share(each) if isinstance(each, float) else each for each in sizes),
        RESEARCH_NOTICE,
    ]
