"""Ship the bundles of the open-vocabulary demo: ``python -m benchmarks.ship.ovd [RUN]``.

They are those of ``python -m pipelines.ovd train`` as it stands, seed 0: the detector as the run left it, and the
image–text model that made its pseudo-labels, which embeds the words that are typed. RUN is the folder of such a run;
without one it is trained now. Bundles that are too large together, do not give their golden answer here or do not
belong together are refused.

``--regions DATA`` stores the regions of the shipped detector anew, by which the thresholds of typed names are set, and
leaves its weights as they are; ``python -m pipelines.ovd demo-data --out DATA`` writes the list of its training.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.repack_demos import CHECKPOINTS, repack
from benchmarks.studies import ROOT
from pipelines.ovd.__main__ import main as ovd
from pipelines.ovd.bundles import REGION_TENSORS, load_open_detector, save_open_detector
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.demo.demo_data import IMAGE_TEXT
from pipelines.ovd.image_text.compact import answer, load_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.learner import OpenLearner
from pipelines.ovd.pipeline import OvdPipeline, stored_regions
from pipelines.ovd.predict import OvdPredictor
from pipelines.ovd.views import OpenViews
from vision_core.assets import sentence_encoder
from vision_core.bundles import bundle
from vision_core.config.loading import load
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


def renew_regions(data: Path, target: Path) -> str:
    """Store the regions of a shipped detector anew, of the training list in a folder of demo data; returns a line.

    Raises:
        CheckpointError: Another tensor of the bundle would change.
    """
    before, content = bundle.load(target / "detector", "ovd"), load_open_detector(target / "detector")
    config = load(OvdConfig, ROOT / "configs" / "ovd" / "demo.yaml", [f"data.root={data}"])
    learner = OpenLearner(content.detector, content.split.is_novel, config.marvel)
    learner.step = config.train.max_steps or 0  # behind the burn-in, as at the end of the run
    views = OvdPipeline().prepare(config).items
    assert isinstance(views, OpenViews)
    with tempfile.TemporaryDirectory(prefix="ovd-demo-") as temporary:
        anew = Path(temporary) / "detector"
        save_open_detector(anew, content.detector, content.card, content.split.novel, stored_regions(learner, views))
        after = bundle.load(anew, "ovd").tensors
        weights = {name: each for name, each in before.tensors.items() if name not in REGION_TENSORS}
        if changed := [name for name, each in weights.items() if not torch.equal(each, after[name])]:
            raise CheckpointError(f"'{target}': '{changed[0]}' would change. Nothing was replaced.")
        shutil.copytree(anew, target / "detector", dirs_exist_ok=True)
    regions = load_open_detector(target / "detector").regions
    return f"{len(regions.background)} background regions, {len(regions.objects)} objects"


def main(words: list[str]) -> int:
    """Ship the bundles of a run, train them first, or store the regions of those that are shipped anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--regions", type=Path, metavar="DATA", help="store the regions anew, of these demo data")
    arguments = parser.parse_args(words)
    if arguments.regions:
        print(renew_regions(arguments.regions, DEMO))
        return 0
    if arguments.run:
        print("\n".join(ship(arguments.run, DEMO)))
        return 0
    with tempfile.TemporaryDirectory(prefix="ovd-demo-") as temporary:
        run = Path(temporary) / "run"
        if code := ovd(["train", "--out", str(run)]):
            return code
        print("\n".join(ship(run, DEMO)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
