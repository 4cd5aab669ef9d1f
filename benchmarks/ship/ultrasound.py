"""Ship the pair of the ultrasound demo: ``python -m benchmarks.ship.ultrasound [RUN]``.

The bundles are those of ``python -m pipelines.ultrasound train`` as it stands, seed 0: screen and segmenter as the run
left them, with the calibration of the gate. RUN is the folder of such a run; without one it is trained now. Classes get
their words, and a bundle that is too large or does not give its golden answer here is refused.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.repack_demos import CHECKPOINTS, repack
from pipelines.ultrasound.__main__ import main as ultrasound
from pipelines.ultrasound.predict import UltrasoundPredictor
from vision_core.bundles import bundle
from vision_core.errors import CheckpointError

PAIR = CHECKPOINTS / "ultrasound-demo"
_MOST_BYTES = 10_000_000


def ship(run: Path, target: Path) -> list[str]:
    """Copy the pair of a finished run; returns a line for each bundle.

    Raises:
        CheckpointError: A bundle is damaged, too large, answers otherwise here, or the gate was not calibrated with it.
    """
    lines = []
    for name in ("segment", "screen"):
        folder = run / name / "model"
        bundle.check_golden(
            bundle.load(folder, "ultrasound"), UltrasoundPredictor.from_checkpoint(folder, "cpu").answer
        )
        size = sum(path.stat().st_size for path in folder.iterdir())
        if size > _MOST_BYTES:
            raise CheckpointError(f"'{folder}' has '{size}' bytes; {_MOST_BYTES} at most are shipped.")
        lines.append(f"{name}: {size / 1e6:.1f} MB")
    segment, screen = (bundle.read_card(run / name / "model") for name in ("segment", "screen"))
    if (screen.calibration or {}).get("segment") != segment.identity():
        raise CheckpointError(f"'{run}': the gate was not calibrated with this segmenter. Run calibrate.")
    for name in ("segment", "screen"):
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(run / name / "model", target / name)
        repack(target / name)
    return lines


def main(arguments: list[str]) -> int:
    """Ship the pair of a run, or train it first."""
    if arguments:
        print("\n".join(ship(Path(arguments[0]), PAIR)))
        return 0
    with tempfile.TemporaryDirectory(prefix="ultrasound-demo-") as temporary:
        run = Path(temporary) / "run"
        if code := ultrasound(["train", "--out", str(run)]):
            return code
        print("\n".join(ship(run, PAIR)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
