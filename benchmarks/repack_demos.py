"""Bring the bundles that are shipped with the demos to the format of this version: ``make repack-demos``.

The weights stay byte for byte. Golden pair and card are written anew, after the old pair was checked; a bundle of this
format is left alone, so a second call changes nothing. The source detector of tree crowns is calibrated on its own
validation list, which is made by code from an image of the package deepforest.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.studies import ROOT
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.predict import PolicyPredictor, PretrainPredictor
from pipelines.pretrain.weights.bundles import POLICY, load_classifier, load_policy, save_classifier, save_policy
from pipelines.sfod.demo.demo_data import make_demo_data
from pipelines.sfod.predict import SfodPredictor
from pipelines.ultrasound.predict import UltrasoundPredictor
from pipelines.ultrasound.weights.bundles import load_network as load_frames_network
from pipelines.ultrasound.weights.bundles import save_networks as save_frames_networks
from pipelines.wsi.predict import WsiPredictor
from pipelines.wsi.weights.bundles import load_network, save_network
from vision_core.bundles import bundle
from vision_core.bundles.card import CARD_FILE, FORMAT, GOLDEN_FILE, WEIGHTS_FILE, Card
from vision_core.config.loading import of_bundle
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.evaluation import calibrate_bundle, detect_all
from vision_core.detection.settings import DetectionData
from vision_core.detection.weights.bundles import load_detector, save_detector
from vision_core.errors import CheckpointError
from vision_core.files import sha256
from vision_core.pipeline import Predictor
from vision_core.training.runtime import pick_device

CHECKPOINTS = ROOT / "demos" / "checkpoints"
_TITLES = {
    "Tree": "tree crown",
    "synthetic_alteration": "altered nuclei",
    "organ": "phantom organ",
    "t-shirt": "t-shirt",
}
_CALIBRATED = "sfod-source"
_ABOUT = "the source's own validation list: tiles of a band of the real aerial image whose other band it was trained on"


def repack(folder: Path) -> str:
    """Bring one bundle to this format; returns what was done.

    Raises:
        CheckpointError: The old bundle is damaged or computes another output here, or its weights would change.
    """
    card = bundle.read_card(folder)
    done = []
    if card.format < FORMAT:
        bundle.check_golden(bundle.load(folder), _predictor(card, folder).answer)
        with tempfile.TemporaryDirectory(prefix="repack-") as temporary:
            anew = Path(temporary) / "model"
            _save(card, folder, anew)
            if sha256(anew / WEIGHTS_FILE) != sha256(folder / WEIGHTS_FILE):
                raise CheckpointError(f"'{folder}': its weights would change. Nothing was replaced.")
            for name in (GOLDEN_FILE, CARD_FILE):
                shutil.copyfile(anew / name, folder / name)
        done.append(f"format {card.format} to {FORMAT}")
    if folder.name == _CALIBRATED and card.calibration is None:
        done += _calibrate(card, folder)
    titles = {name: _title(name) for name in card.classes if _title(name) != name}
    if card.class_titles != titles:
        bundle.amend(folder, class_titles=titles)
        done.append("classes in words")
    return ", ".join(done) or "as it should be"


def _title(name: str) -> str:
    """Write the name of a class for people; those of the pieces of real images are made of parts."""
    return _TITLES.get(name, name.replace("__", ", ").replace("-", " "))


def _save(card: Card, folder: Path, anew: Path) -> None:
    if card.task == "sfod":
        save_detector(anew, load_detector(folder)[0], card)
    elif card.task == "wsi":
        save_network(anew, load_network(folder, pick_device("cpu")).network, card)
    elif card.task == "ultrasound":
        save_frames_networks(anew, load_frames_network(folder).model.networks, card)
    elif card.method == POLICY:
        save_policy(anew, load_policy(folder)[0], of_bundle(PretrainConfig, card.config, (), str(folder)), card)
    else:
        save_classifier(anew, load_classifier(folder).network, card)


def _predictor(card: Card, folder: Path) -> Predictor[Any]:
    if card.task == "sfod":
        return SfodPredictor.from_checkpoint(folder, "cpu")
    if card.task == "wsi":
        return WsiPredictor.from_checkpoint(folder, "cpu")
    if card.task == "ultrasound":
        return UltrasoundPredictor.from_checkpoint(folder, "cpu")
    return (PolicyPredictor if card.method == POLICY else PretrainPredictor).from_checkpoint(folder, "cpu")


def _calibrate(card: Card, folder: Path) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="repack-") as temporary:
        root = make_demo_data(Path(temporary) / "demo")  # the folder's name is in that of the list
        data = DetectionData(root=root, classes=card.classes)
        labelled = read_dataset(data, str(card.config["data"]["eval_split"]), with_labels=True)
        found = detect_all(SfodPredictor.from_checkpoint(folder, "cpu"), labelled, "calibrate")
        return calibrate_bundle(folder, labelled, found, _ABOUT)


def main() -> int:
    """Repack all shipped bundles, in place."""
    for path in sorted(CHECKPOINTS.rglob(CARD_FILE)):
        print(f"{path.parent.relative_to(CHECKPOINTS)}: {repack(path.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
