"""Ship the bundles of the open-vocabulary demo: ``python -m benchmarks.ship_ovd [RUN]``.

They are those of ``python -m pipelines.ovd train`` as it stands, seed 0: the detector as the run left it, and the
image–text model that made its pseudo-labels, which embeds the words that are typed. RUN is the folder of such a run;
without one it is trained now. Bundles that are too large together, do not give their golden answer here or do not
belong together are refused.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.repack_demos import CHECKPOINTS, repack
from pipelines.ovd.__main__ import main as ovd
from pipelines.ovd.bundles import load_open_detector
from pipelines.ovd.demo.demo_data import IMAGE_TEXT
from pipelines.ovd.image_text.compact import answer, load_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.predict import OvdPredictor
from vision_core.assets import sentence_encoder
from vision_core.bundles import bundle
from vision_core.errors import CheckpointError

DEMO = CHECKPOINTS / "ovd-demo"
_MOST_BYTES = 10_000_000


def ship(run: Path, target: Path) -> list[str]:
    """Copy the bundles of a finished run; returns a line for each.

    Raises:
        CheckpointError: A bundle is damaged or answers otherwise here, they are too large, or the detector was not
            trained with this image–text model.
    """
    folders = {"detector": run / "model", "image-text": run / "data" / IMAGE_TEXT}
    detector = bundle.load(folders["detector"], "ovd")
    bundle.check_golden(detector, OvdPredictor.from_checkpoint(folders["detector"], "cpu").answer)
    model = load_compact(folders["image-text"], MiniLM.read(sentence_encoder()))
    bundle.check_golden(bundle.load(folders["image-text"], "ovd"), lambda inputs: answer(model, inputs))
    if detector.card.preprocessing.get("image_text") != model.fingerprint():
        raise CheckpointError(f"'{run}': the detector was trained with another image–text model. Train anew.")
    sizes = {name: sum(path.stat().st_size for path in folder.iterdir()) for name, folder in folders.items()}
    if sum(sizes.values()) > _MOST_BYTES:
        raise CheckpointError(f"'{run}': '{sum(sizes.values())}' bytes; {_MOST_BYTES} at most are shipped.")
    for name, folder in folders.items():
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(folder, target / name)
    data = {**detector.card.config["data"], "root": "data"}  # no folder of this machine
    bundle.amend(target / "detector", config={**detector.card.config, "data": data})
    for name in folders:
        repack(target / name)  # class names for people
    novel = ", ".join(load_open_detector(target / "detector").split.novel)
    return [*(f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()), f"novel: {novel}"]


def main(arguments: list[str]) -> int:
    """Ship the bundles of a run, or train them first."""
    if arguments:
        print("\n".join(ship(Path(arguments[0]), DEMO)))
        return 0
    with tempfile.TemporaryDirectory(prefix="ovd-demo-") as temporary:
        run = Path(temporary) / "run"
        if code := ovd(["train", "--out", str(run)]):
            return code
        print("\n".join(ship(run, DEMO)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
