"""A bundle that computes something else here must not predict, or be scored, in silence."""

import csv
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from pipelines.pretrain.__main__ import main as pretrain
from pipelines.sfod.__main__ import main as sfod
from pipelines.ultrasound.__main__ import main as ultrasound
from pipelines.ultrasound.config import ScreenNetwork
from pipelines.ultrasound.screening.screen import Screen
from pipelines.wsi.__main__ import main as wsi
from pipelines.wsi.weights.bundles import DECISION
from tests.bad_inputs.bundles import change_card, change_tensors
from tests.bad_inputs.bundles import make_bundle as make_detector
from tests.bad_inputs.matrix import classifier
from tests.bad_inputs.seen import Seen, tree
from tests.pipelines.ultrasound.tiny import make_bundle as make_segmenter
from tests.pipelines.wsi.tiny import DIM, make_bundle, make_features
from tests.vision_core.detection.synthetic import make_coco, make_picture
from tests.vision_core.toy_bundle import edit_card
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter

Capture = pytest.CaptureFixture[str]
Main = Callable[[Sequence[str]], int]
GOLDEN = "golden.safetensors"
REFUSED = ("This machine or these software versions compute another output", "at most 0.01 allowed")


def _image(folder: Path) -> Path:
    folder.mkdir()
    Image.fromarray(make_picture((64, 96), ("disc",), 0)[0]).save(folder / "a.png")
    return folder


def _bag(folder: Path) -> Path:
    return make_features(folder) / "features" / "s0.h5"


TASKS: dict[str, tuple[Any, Callable[[Path], object], Callable[[Path], Path]]] = {
    "detector": (sfod, make_detector, _image),
    "bag model": (wsi, lambda folder: make_bundle(folder, DIM, preprocessing={}), _bag),
    "classifier": (pretrain, lambda folder: shutil.copytree(classifier(), folder), _image),
    "segmenter": (ultrasound, lambda folder: shutil.copytree(
        make_segmenter(folder.parent / "made", ResidualUNet(Segmenter(layers=2, first=4))), folder), _image),
}  # fmt: skip


def _change(bundle: Path, factor: float) -> None:
    """The first of the golden outputs times a factor: another answer than that of the weights."""
    outputs = {name: tensor for name, tensor in load_file(bundle / GOLDEN).items() if name.startswith("output.")}
    name = next(name for name, tensor in outputs.items() if tensor.is_floating_point() and tensor.abs().max() > 0)
    change_tensors(bundle, {name: outputs[name] * factor}, GOLDEN)


@pytest.mark.parametrize("task", TASKS)
def test_predict__another_answer_is_refused_and_a_near_one_told(task: str, tmp_path: Path, capsys: Capture) -> None:
    main, make, inputs = TASKS[task]
    make(tmp_path / "model")
    words = ["predict", f"--checkpoint={tmp_path / 'model'}", f"--input={inputs(tmp_path / 'in')}", "--device=cpu"]
    _change(tmp_path / "model", 1.1)
    capsys.readouterr()  # what torch says when a detector is first made
    Seen(main, capsys).refused([*words, f"--out={tmp_path / 'out'}"], 2, *REFUSED)
    assert not any("outputs" in name or "results" in name for name in tree(tmp_path / "out"))
    _change(tmp_path / "model", 1.005 / 1.1)
    told, _ = Seen(main, capsys).ended([*words, f"--out={tmp_path / 'out'}"], 0)
    assert "warning: this machine computes visibly different values" in told
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 1


UNAPPLIED: dict[str, list[dict[str, Any]]] = {
    "detector": [
        {"calibration": {"operating_score": 0.3}},
        {"calibration": {"all": None}},
        {"scope": {"mean": [0.0]}},
    ],
    "bag model": [
        {"calibration": {"temperture": 2.0}},
        {"calibration": {"temperature": 2.0, "coverage": 0.9, "threshold": 1, "cases": 9, DECISION: 7}},
        {"scope": {"mean": [0.0]}},
    ],
    "classifier": [{"calibration": {"temperature": 2.0}}, {"scope": {"mean": [0.0]}}],
    "segmenter": [{"calibration": {"threshold": 0.5}}, {"scope": {"mean": [0.0]}}],
}


@pytest.mark.parametrize("task", UNAPPLIED)
def test_predict__a_calibration_or_scope_that_cannot_be_applied_is_refused(
    task: str, tmp_path: Path, capsys: Capture
) -> None:
    main, make, inputs = TASKS[task]
    make(tmp_path / "model")
    words = [f"--checkpoint={tmp_path / 'model'}", f"--input={inputs(tmp_path / 'in')}", f"--out={tmp_path / 'out'}"]
    for changes in UNAPPLIED[task]:
        change_card(tmp_path / "model", **{"calibration": None, "scope": None, **changes})
        capsys.readouterr()
        _, err = Seen(main, capsys).ended(["predict", *words], 2)
        assert re.search(rf"error\[CHECKPOINT\] .*{next(iter(changes))}", err)
        assert not any("outputs" in name for name in tree(tmp_path / "out"))


def test_predict__another_answer_of_a_segmenter_behind_a_screen_is_refused(tmp_path: Path, capsys: Capture) -> None:
    screen = make_segmenter(tmp_path / "screen", Screen(ScreenNetwork(network="resnet10t")), "method=screen")
    TASKS["segmenter"][1](tmp_path / "model")
    _change(tmp_path / "model", 1.1)
    words = [f"--checkpoint={screen}", f"--input={_image(tmp_path / 'in')}", f"--out={tmp_path / 'out'}"]
    _, err = Seen(ultrasound, capsys).ended(["predict", *words, f"segment={tmp_path / 'model'}"], 2)
    assert REFUSED[0] in err


def test_evaluate__another_answer_is_refused(tmp_path: Path, capsys: Capture) -> None:
    make_detector(tmp_path / "model")
    _change(tmp_path / "model", 1.1)
    data = make_coco(tmp_path / "data", classes=("Tree", "Car"))
    capsys.readouterr()
    words = ["evaluate", f"--checkpoint={tmp_path / 'model'}", f"data.root={data}", "data.eval_split=test"]
    Seen(sfod, capsys).refused(words, 2, *REFUSED)


def test_predict__an_edit_under_a_new_seal_is_found(tmp_path: Path, capsys: Capture) -> None:
    """Mean and seal fit each other: only the golden pair, which begins at bytes of pixels, tells."""
    make_detector(tmp_path / "model")

    def edit(card: dict[str, Any]) -> None:
        card["architecture"]["pixel_mean"] = card["preprocessing"]["mean"] = [1.0, 2.0, 3.0]

    edit_card(tmp_path / "model", edit)
    capsys.readouterr()
    words = [f"--checkpoint={tmp_path / 'model'}", f"--input={_image(tmp_path / 'in')}", f"--out={tmp_path / 'out'}"]
    Seen(sfod, capsys).refused(["predict", *words], 2, *REFUSED)
    Seen(sfod, capsys).refused(["verify", str(tmp_path / "model")], 2, *REFUSED)
