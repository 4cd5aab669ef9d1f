"""Labels of 3D Slicer's module AnnotateUltrasound: a file ``CINE.RATER.json`` beside ``CINE.dcm`` for each rater.

A rater draws lines on frames, along the pleura and over B-lines. Each line stands for the part of the fan between the
rays through its ends, and a B-line counts where the pleura is drawn, too: so the module shows them, and so they become
masks here. Points are in mm, by the axes of the patient; the fan is in pixels. Labels of a whole file become no masks.
Source: SlicerUltrasound, ``AnnotateUltrasound/annotations.schema.json`` and ``scripts/annotation_merging_workflow.md``.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.frames import Mask
from vision_core.dicom.reader import DicomFacts, hashed_number
from vision_core.errors import DataError
from vision_core.files import parse_json

Finding = Literal["b_lines", "pleura_lines"]
FRAMES_KEY = "frame_annotations"
_FINDINGS: tuple[Finding, ...] = ("b_lines", "pleura_lines")
_FAN = ("center_rows_px", "center_cols_px", "radius1", "radius2", "angle1", "angle2")
_TO_LEFT_POSTERIOR = {"LPS": 1.0, "RAS": -1.0}
_NEAR_DEGREES, _NEAR_RADIUS = 10.0, 0.1  # how far beyond the fan a click may lie, of the outer radius
_ANOTHER = "Give masks as CINE_000_obs00.png instead."

_Arcs = tuple[tuple[float, float], ...]  # degrees from and to, a line each


@dataclass(frozen=True, kw_only=True)
class Fan:
    """Fan of an image.

    Attributes:
        size: Height and width of the image.
        centre: Row and column of the point in which its rays meet.
        radii: Inner and outer one, in pixels.
        angles: From and to, in degrees from the right, downwards.
    """

    size: tuple[int, int]
    centre: tuple[float, float]
    radii: tuple[float, float]
    angles: tuple[float, float]

    def between(self, arcs: _Arcs) -> Mask:
        """Draw the parts of the fan between two angles each: ``(H, W)``."""
        found = np.zeros(self.size, bool)
        if arcs:
            angle, is_inside = _polar(self)
            for low, high in arcs:
                found |= is_inside & (low <= angle) & (angle <= high)
        return found


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """What one rater says of the frames of a file.

    Attributes:
        rater: The name; empty where the file does not tell.
        fan: Fan of the image.
        lines: Lines of both findings of each frame that the rater has marked.
        rejected: Number of lines that an adjudicator has rejected, which are left out.
    """

    rater: str
    fan: Fan
    lines: Mapping[int, Mapping[Finding, _Arcs]]
    rejected: int

    def mask(self, frame: int, finding: Finding) -> Mask:
        """Make the mask ``(H, W)`` of a finding on one of ``lines``."""
        arcs = self.lines[frame]
        pleura = self.fan.between(arcs["pleura_lines"])
        return pleura if finding == "pleura_lines" else pleura & self.fan.between(arcs["b_lines"])

    def has_lost(self, frame: int) -> bool:
        """Tell whether a frame has B-lines and none of them lies where the pleura is drawn."""
        return bool(self.lines[frame]["b_lines"]) and not self.mask(frame, "b_lines").any()


def holds_ratings(path: Path) -> bool:
    """Tell whether a JSON file has frames of AnnotateUltrasound; a fan alone is of AnonymizeUltrasound.

    Raises:
        DataError: It is no JSON.
    """
    content = _content(path)
    return isinstance(content, dict) and FRAMES_KEY in content


def read_ratings(path: Path, stem: str, facts: DicomFacts) -> Ratings:
    """Read the lines of one rater.

    Args:
        path: The file.
        stem: Name of the DICOM file without its ending.
        facts: What its header tells.

    Raises:
        DataError: The file is damaged, of several raters, of another image, without a fan, or has lines far beside it.
    """
    content = _content(path)
    try:
        fan = _fan(path, content, facts)
        named = path.name.removeprefix(stem).removesuffix(path.suffix).strip(".").lower()
        lines: dict[int, dict[Finding, list[tuple[float, float]]]] = defaultdict(
            lambda: {each: [] for each in _FINDINGS}
        )
        raters, rejected = {named} if named else set(), 0
        for frame in _frames(content):
            own = lines[int(frame["frame_number"])]
            sign = _TO_LEFT_POSTERIOR[frame.get("coordinate_space", "RAS")]
            for finding in _FINDINGS:
                for line in frame[finding]:
                    raters |= {str(line["rater"]).strip().lower()} - {""}
                    if line.get("validation", {}).get("status") == "invalidated":
                        rejected += 1
                        continue
                    points = np.array(line["line"]["points"], np.float64)
                    own[finding].append(_arc(path, _in_pixels(points * [sign, sign, 1.0], facts), fan))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"'{path}' is no sound file of AnnotateUltrasound ({type(error).__name__} at {error}). Save it again in 3D "
            "Slicer."
        ) from error
    if len(raters) > 1:
        raise DataError(
            f"'{path}' holds the lines of '{len(raters)}' raters ({', '.join(sorted(raters))}). Give a file for each, "
            f"named {stem}.RATER.json."
        )
    if strange := [frame for frame in lines if not 0 <= frame < facts.num_frames]:
        raise DataError(
            f"'{path}' has lines on frame '{strange[0]}', '{stem}' has {facts.num_frames}, counted from 0. Remove it."
        )
    kept = {frame: {name: tuple(arcs) for name, arcs in own.items()} for frame, own in sorted(lines.items())}
    return Ratings(rater=next(iter(raters), ""), fan=fan, lines=kept, rejected=rejected)


def _content(path: Path) -> Any:  # noqa: ANN401 (any JSON)
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' is no JSON. Copy it again, or remove it.") from error


def _frames(content: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """List the frames; earlier versions of the module have them by number, with bare points and no rater."""
    found = content[FRAMES_KEY]
    if isinstance(found, list):
        return found
    return [
        {"frame_number": number} | {name: [_line(each) for each in frame.get(name, ()) if each] for name in _FINDINGS}
        for number, frame in found.items()
    ]


def _line(points: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    return {"rater": "", "line": {"points": points}}


def _fan(path: Path, content: Any, facts: DicomFacts) -> Fan:  # noqa: ANN401
    """Read the fan, and check that the file is of this image."""
    size = tuple(int(content.get(name, own)) for name, own in
                 (("image_size_rows", facts.height), ("image_size_cols", facts.width)))  # fmt: skip
    if size != (facts.height, facts.width):
        raise DataError(f"'{path}' is of an image of '{size[0]} x {size[1]}' pixels, its DICOM file has "
                        f"{facts.height} x {facts.width}. Give the file that was annotated.")  # fmt: skip
    number = hashed_number(str(content.get("SOPInstanceUID") or ""))
    if number and facts.instance and number != facts.instance:
        raise DataError(f"'{path}' is of another DICOM file (SOPInstanceUID). Give the file that was annotated.")
    kind = content.get("mask_type")
    if kind != "fan" or any(content.get(name) is None for name in _FAN):
        raise DataError(f"'{path}' has the mask type '{kind}': lines become masks by the fan of an image. {_ANOTHER}")
    row, column, inner, outer, first, last = (float(content[name]) for name in _FAN)
    if not (0 <= inner < outer and math.isfinite(row + column + outer + first + last) and first != last):
        raise DataError(f"'{path}' has a fan of the radii '{inner:g}' and {outer:g}, which is none. {_ANOTHER}")
    return Fan(
        size=(facts.height, facts.width),
        centre=(row, column),
        radii=(inner, outer),
        angles=(min(first, last), max(first, last)),
    )


def _in_pixels(points: NDArray[np.float64], facts: DicomFacts) -> NDArray[np.float64]:
    """Convert points ``(n, 3)`` in mm to rows and columns ``(n, 2)``; a pixel of unknown size is 1 mm in Slicer."""
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 2 or not np.isfinite(points).all():
        raise ValueError("points")
    if facts.place is not None:
        columns, rows = (np.linalg.inv(facts.place) @ np.c_[points, np.ones(len(points))].T)[:2]
    else:
        row_mm, column_mm = facts.spacing.mm or (1.0, 1.0)
        columns, rows = points[:, 0] / column_mm, points[:, 1] / row_mm
    return np.stack([rows, columns], axis=1)


def _arc(path: Path, points: NDArray[np.float64], fan: Fan) -> tuple[float, float]:
    """Take the angles that a line spans; one far beside the fan was drawn at another size of the pixels."""
    down, right = (points - fan.centre).T
    angles, away = np.degrees(np.arctan2(down, right)), np.hypot(down, right)
    inner, outer = fan.radii
    near, low, high = _NEAR_RADIUS * outer, fan.angles[0] - _NEAR_DEGREES, fan.angles[1] + _NEAR_DEGREES
    if not ((inner - near <= away) & (away <= outer + near) & (low <= angles) & (angles <= high)).all():
        row, column = points[0]
        raise DataError(
            f"'{path}' has a line at row '{row:.0f}' and column {column:.0f}, outside its own fan: the size of a pixel "
            f"is not the one with which it was drawn. {_ANOTHER}"
        )
    return float(angles.min()), float(angles.max())


@lru_cache(4)
def _polar(fan: Fan) -> tuple[NDArray[np.float32], Mask]:
    """Compute the angle of each pixel, and whether it is in the fan."""
    rows, columns = np.mgrid[: fan.size[0], : fan.size[1]].astype(np.float32)
    down, right = rows - fan.centre[0], columns - fan.centre[1]
    angle, away = np.degrees(np.arctan2(down, right)), np.hypot(down, right)
    is_inside = (fan.radii[0] <= away) & (away <= fan.radii[1])
    return angle, is_inside & (fan.angles[0] <= angle) & (angle <= fan.angles[1])
