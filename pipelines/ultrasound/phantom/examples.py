"""Files that the demo page offers: a sweep and a frame of synthetic subjects, and a real cine of another organ."""

from pathlib import Path
from typing import Any

from pipelines.ultrasound.phantom.dicom_cine import write_cine
from pipelines.ultrasound.phantom.study import DEMO_LISTS, NOTICE
from vision_core.assets import radiology_files, radiology_files_origin

FRAMES = 24
_FIRST_OF_TEST = sum(DEMO_LISTS.values()) - DEMO_LISTS["test"]  # the list test comes last
SWEEP, STILL = _FIRST_OF_TEST, _FIRST_OF_TEST + 1  # subjects that chose nothing
_MIDDLE = FRAMES // 2


def make_examples(folder: Path) -> list[dict[str, Any]]:
    """Write sweep and frame as DICOM; returns name, path, origin, reason and kind of each example.

    Raises:
        MissingDependencyError: The package that carries the real cine is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep, still = folder / f"sweep-{SWEEP}.dcm", folder / f"frame-{STILL}.dcm"
    write_cine(sweep, SWEEP, FRAMES)
    write_cine(still, STILL, FRAMES, [_MIDDLE])
    made, real = f"Sweep and frame: {NOTICE}.", radiology_files_origin().line()
    return [
        {
            "name": "Gate at work",
            "path": sweep,
            "origin": made,
            "why": "Synthetic, the first subject of the list test: the segmenter alone marks every frame.",
        },
        {"name": "Organ", "path": still, "origin": made, "why": "Synthetic: a frame in the middle of a sweep."},
        {
            "name": "Real heart",
            "path": radiology_files()["us_heart"],
            "origin": real,
            "why": "A real cine of a heart, which neither model was made for.",
            "is_own": False,
        },
    ]
