"""Cells of the ultrasound study: which there are, and what their result files hold. All frames are synthetic.

A cell is a trained network with what it makes of every frame. Frames are in the order of their list; a column of them
is stored as words in one line, so that a file stays small and can be read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies import Rows, Study
from pipelines.ultrasound.evaluation.scores import Segmented

STUDY = Study(
    name="ultrasound-phantom",
    protocol_file="ultrasound_phantom.yaml",
    makers=tuple(
        f"pipelines/ultrasound/phantom/{name}.py"
        for name in ("anatomy", "imaging", "machines", "observers", "scene", "study")
    ),
)
PROTOCOL = STUDY.protocol()
SCREEN = "screen"
TRUTH = "truth"  # the file beside the cells: what the observers say
LISTS = ("val", "calibration", "test", "other_machine")
SCORED = ("test", "other_machine")  # lists that have distances and reliability too
BINS = 10

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, order=True)
class Cell:
    """A network of the study.

    Attributes:
        seed: Of its training.
        group: ``screen``, or of the segmenters: all frames, positive frames, the frame-aware loss.
        label: Sampling of the observers' labels; empty for a screen.
    """

    seed: int
    group: str
    label: str = ""

    @property
    def name(self) -> str:
        """Return the name of its file."""
        return "-".join(filter(None, (self.group, self.label, str(self.seed))))


def cells_of(protocol: Mapping[str, Any]) -> list[Cell]:
    """List the cells by seed, the screen of a seed first."""
    groups: dict[tuple[str, str], Sequence[int]] = {(SCREEN, ""): protocol[SCREEN]["seeds"]}
    for group, settings in protocol["segmenters"].items():
        groups |= {(group, label): settings["seeds"] for label in settings["labels"]}
    seeds = sorted({seed for each in groups.values() for seed in each})
    return [Cell(seed, *group) for seed in seeds for group, own in groups.items() if seed in own]


def packed(values: Sequence[float] | NDArray[Any], digits: int = 4) -> str:
    """Write values in a line, with so many significant digits; 9 give a float32 back."""
    return " ".join(f"{value:.{digits}g}" for value in np.asarray(values).tolist())


def unpacked(text: str) -> Floats:
    """Read the values of a line ``(n,)``."""
    return np.array(text.split(), np.float64)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the observers say of the frames of a list, arrays ``(n,)``.

    Attributes:
        subjects: Whose frame it is.
        present: Whether most observers see the organ.
        has_consensus: Whether most agree on a pixel of it.
        in_band: ``(subjects, observers)`` share of the pixels of an observer's contour between those of the other two.
    """

    subjects: tuple[str, ...]
    present: Flags
    has_consensus: Flags
    in_band: Floats

    @cached_property
    def to_find(self) -> Flags:
        """Return whether there is a consensus that a mask should find."""
        return np.asarray(self.present & self.has_consensus)


@dataclass(frozen=True, kw_only=True)
class SegmentedList:
    """What a segmenter makes of the frames of a list, arrays ``(n,)``; see ``ListScores``.

    Attributes:
        dice: Against the consensus, both empty counting 1.
        areas: Pixels of the mask.
        confidence: Mean probability within it; NaN without one.
        hausdorff_95: In mm; not finite where a mask is empty, and not known on all lists, as ``surface``.
        surface: Mean distance of the outlines in mm.
        reliability: ``(3, subjects, bins)`` number of pixels, sum of their probabilities, sum of the observers' shares.
    """

    dice: Floats
    areas: Floats
    confidence: Floats
    hausdorff_95: Floats
    surface: Floats
    reliability: Floats

    def segmented(self, truth: Truth) -> Segmented:
        """Return the frames as the segmenter alone leaves them."""
        return Segmented(
            dice=self.dice, has_mask=self.areas > 0, present=truth.present, has_consensus=truth.has_consensus
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """All results of the study that there are.

    Attributes:
        truth: By list.
        scores: Of each screen, by seed and list ``(n,)`` float32.
        outside: Whether its guard tells a frame as outside, likewise.
        segmented: By group, label, seed and list.
        minutes: CPU minutes of each cell that was trained without a stop.
    """

    truth: Mapping[str, Truth]
    scores: Mapping[int, Mapping[str, NDArray[np.float32]]]
    outside: Mapping[int, Mapping[str, Flags]]
    segmented: Mapping[tuple[str, str], Mapping[int, Mapping[str, SegmentedList]]]
    minutes: Mapping[str, float]

    def seeds(self, group: str, label: str) -> list[int]:
        """List the seeds of which there is a segmenter and its screen."""
        return sorted(self.segmented.get((group, label), {}).keys() & self.scores.keys())

    def shared(self, *rows: tuple[str, str]) -> list[int]:
        """List the seeds that all rows have."""
        return sorted(set.intersection(*(set(self.seeds(*row)) for row in rows)))


def read_found(rows: Rows) -> Found:
    """Read the results of ``STUDY.rows()``."""
    truth: dict[str, Truth] = {}
    scores: dict[int, dict[str, NDArray[np.float32]]] = {}
    outside: dict[int, dict[str, Flags]] = {}
    segmented: dict[tuple[str, str], dict[int, dict[str, SegmentedList]]] = {}
    for row in rows:
        lists = row["frames"]
        if row["group"] == TRUTH:
            truth = {name: _truth(columns) for name, columns in lists.items()}
        elif row["group"] == SCREEN:
            scores[row["seed"]] = {name: unpacked(each["scores"]).astype(np.float32) for name, each in lists.items()}
            outside[row["seed"]] = {name: unpacked(each["outside"]) > 0 for name, each in lists.items()}
        else:
            own = segmented.setdefault((row["group"], row["label"]), {})
            own[row["seed"]] = {name: _segmented(columns) for name, columns in lists.items()}
    whole = [row for row in rows if row["group"] != TRUTH and not row["is_resumed"]]
    minutes = {_cell_of(row).name: row["cpu_seconds"] / 60 for row in whole}
    return Found(truth=truth, scores=scores, outside=outside, segmented=segmented, minutes=minutes)


def missing(rows: Rows) -> list[str]:
    """Cells of the study without a result."""
    found = {_cell_of(row).name for row in rows if row["group"] != TRUTH}
    return [cell.name for cell in cells_of(PROTOCOL) if cell.name not in found]


def columns_of(values: Mapping[str, NDArray[Any]], exact: Sequence[str] = ()) -> dict[str, str]:
    """Pack columns of frames; those named in ``exact`` give a float32 back."""
    return {name: packed(each, 9 if name in exact else 5) for name, each in values.items()}


def _cell_of(row: Mapping[str, Any]) -> Cell:
    return Cell(row["seed"], row["group"], row["label"])


def _truth(columns: Mapping[str, str]) -> Truth:
    return Truth(
        subjects=tuple(columns["subjects"].split()),
        present=unpacked(columns["present"]) > 0,
        has_consensus=unpacked(columns["has_consensus"]) > 0,
        in_band=np.stack(list(_lines(columns, "in_band_")), axis=1),
    )


def _segmented(columns: Mapping[str, str]) -> SegmentedList:
    nothing = np.full(len(columns["dice"].split()), np.nan)
    parts = [unpacked(columns[name]) for name in ("pixels", "probability", "share") if name in columns]
    return SegmentedList(
        dice=unpacked(columns["dice"]),
        areas=unpacked(columns["areas"]),
        confidence=unpacked(columns["confidence"]),
        hausdorff_95=unpacked(columns["hausdorff_95"]) if "hausdorff_95" in columns else nothing,
        surface=unpacked(columns["surface"]) if "surface" in columns else nothing,
        reliability=np.stack(parts).reshape(3, -1, BINS) if parts else np.zeros((3, 0, BINS)),
    )


def _lines(columns: Mapping[str, str], start: str) -> Iterator[Floats]:
    return (unpacked(text) for name, text in columns.items() if name.startswith(start))
