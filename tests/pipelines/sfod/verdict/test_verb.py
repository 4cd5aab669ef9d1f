"""The comparison by its command line: real bundles, real images."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from pipelines.sfod.__main__ import main
from pipelines.sfod.verdict.probing import with_noise
from tests.made_once import made_once
from tests.pipelines.sfod.tiny import source_bundle
from tests.vision_core.detection.synthetic import make_voc
from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import WEIGHTS_FILE
from vision_core.detection.weights.bundles import load_detector, save_detector


def worse_bundle() -> Path:
    """The tiny detector with its weights disturbed, as if adapted from it."""

    def make(folder: Path) -> None:
        detector, card = load_detector(source_bundle())
        adapted = card.model_copy(update={"method": "mt", "parent": read_card(source_bundle()).hashes[WEIGHTS_FILE]})
        save_detector(folder / "model", with_noise(detector, seed=3, length=0.15), adapted)

    return made_once("sfod-worse", make) / "model"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc(tmp_path_factory.mktemp("data"), count=5)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str, Path]]:
    def call(*words: object, after: Path | None = None) -> tuple[int, str, Path]:
        out = tmp_path / "out"
        with redirect_stdout(io.StringIO()) as told, redirect_stderr(told):
            bundles = [str(source_bundle()), str(after or worse_bundle())]
            code = main(["compare", *bundles, "--out", str(out), *map(str, words)])
        return code, told.getvalue(), out

    return call


def test_compare__by_labels(run: Callable[..., tuple[int, str, Path]], data: Path) -> None:
    code, told, out = run(f"data.root={data}", "data.format=voc", "data.eval_split=test", "--suggest", 2)
    assert code == 0, told
    record = json.loads((out / "comparison.json").read_text())
    labelled = record["by_labels"]
    assert labelled["after"] < labelled["before"]
    assert labelled["interval"][0] <= labelled["after"] - labelled["before"] <= labelled["interval"][1]
    assert all(0 < record[side]["stability"] < 1 for side in ("before", "after"))
    assert len(record["images"]) == labelled["images"] == 5
    assert "does not say" not in told
    page = (out / "report.html").read_text()
    assert "by the labels of these images" in page
    assert "http" not in page.replace("http-equiv", "")
    found = COCO(str(out / "to_label.coco.json"))
    chosen = [each["chosen"] for each in found.imgs.values()]
    assert chosen == ["differs most"] * 2 + ["at random"] * 2
    assert not found.anns


def test_compare__a_folder_without_labels(
    run: Callable[..., tuple[int, str, Path]], data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for picture in sorted((data / "JPEGImages").iterdir())[:2]:
        (folder / picture.name).write_bytes(picture.read_bytes())
    (folder / "broken.png").write_bytes(b"no picture")
    code, told, out = run("--input", folder)
    assert code == 4, told
    assert "Not read: 'broken.png'" in told
    assert "no statistics" in told or "no operating score" in told
    record = json.loads((out / "comparison.json").read_text())
    assert record["kind"] in ("unclear", "harmful")
    assert record["by_labels"] is None
    assert record["gain"] is None


def test_compare__a_detector_with_itself_is_unclear(run: Callable[..., tuple[int, str, Path]], data: Path) -> None:
    code, told, out = run(f"data.root={data}", "data.eval_split=test", after=source_bundle())
    assert code == 0
    record = json.loads((out / "comparison.json").read_text())
    assert record["before"] == record["after"]
    assert record["kind"] == record["by_labels"]["kind"] == "unclear"
    assert record["by_labels"]["interval"] == [0, 0]
    assert all(each["gained"] == each["lost"] == each["moved"] == 0 for each in record["images"].values())
    assert "does not say that it was adapted" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give --input FOLDER, or a labelled list"),
        (["--input", "/nowhere"], "holds no image"),
        (["--input", "x", "data.root=y"], "not both"),
    ],
)
def test_compare__what_is_missing_is_said(
    run: Callable[..., tuple[int, str, Path]], words: list[str], said: str
) -> None:
    code, told, out = run(*words)
    assert code == 2
    assert said in told
    assert not out.exists()


def test_compare__earlier_results_stay(run: Callable[..., tuple[int, str, Path]], data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, told, _ = run("--input", data / "JPEGImages")
    assert code == 2
    assert "is not empty" in told
