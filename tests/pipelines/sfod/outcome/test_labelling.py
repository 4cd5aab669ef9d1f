"""Suggested images that come back with boxes: the way of a person, and what may go wrong on it."""

import io
import json
import shlex
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.sfod.__main__ import main
from tests.pipelines.sfod.tiny import source_bundle
from tests.pipelines.sfod.verdict.test_verb import worse_bundle
from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.detection.datasets.voc import read_voc
from vision_core.detection.settings import DetectionData

Call = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    """All six images of a folder."""
    folder = make_voc(tmp_path_factory.mktemp("data"), count=3)
    lists = [read_voc(folder, name, DetectionData(classes=SHAPES)) for name in ("train", "test")]
    return replace(lists[0], records=tuple(record for each in lists for record in each.records))


def call(*words: object) -> tuple[int, str]:
    with redirect_stdout(io.StringIO()) as told, redirect_stderr(told):
        code = main(["compare", *map(str, words)])
    return code, told.getvalue()


@pytest.fixture(scope="module")
def suggested(truth: DetectionDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A comparison that suggested two and two of six images; the command that it prints."""
    out = tmp_path_factory.mktemp("suggested") / "compared"
    folder = truth.records[0].path.parent
    code, told = call(source_bundle(), worse_bundle(), "--input", folder, "--out", out, "--suggest", 2)
    assert code == 0, told
    [command] = [line for line in told.splitlines() if "--labels" in line]
    return out, shlex.split(command)[4:]


def labelled(out: Path, truth: DetectionDataset, change: Callable[[dict[str, list[dict[str, object]]]], None]) -> Path:
    """The file as a labelling tool gives it back: ids of its own, nothing that it does not know."""
    content = json.loads((out / "to_label.coco.json").read_text())
    records = {record.path.name: record for record in truth.records}
    images = [
        {"id": 100 - place, "file_name": each["file_name"], "width": each["width"], "height": each["height"]}
        for place, each in enumerate(content["images"])
    ]
    boxes: list[dict[str, object]] = []
    for image in images:
        record = records[image["file_name"]]
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True):
            left, top, right, bottom = box
            size = [left, top, right - left, bottom - top]
            boxes.append({"id": len(boxes) + 1, "image_id": image["id"], "category_id": label + 1, "bbox": size})
    returned = {"images": images, "annotations": boxes, "categories": content["categories"]}
    change(returned)
    path = out.with_name("returned") / "mine.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(returned))
    return path


@pytest.mark.slow
def test_return__the_printed_command_runs_and_corrects_for_the_choice(
    suggested: tuple[Path, list[str]], truth: DetectionDataset
) -> None:
    out, words = suggested
    file = labelled(out, truth, lambda content: None)
    (out / "to_label.coco.json").rename(out / "before.json")
    (out / "to_label.coco.json").write_bytes(file.read_bytes())
    code, told = call(*words)
    (out / "before.json").replace(out / "to_label.coco.json")
    assert code == 0, told
    assert "They stand for 6 images" in told
    record = json.loads((Path(words[-1]) / "comparison.json").read_text())["by_labels"]
    assert (record["images"], record["of_images"]) == (4, 6)
    assert record["interval"][0] <= record["after"] - record["before"] <= record["interval"][1]
    assert "chosen for their differences" in told
    assert (record["boxes_needed"] is None) == ("would settle" not in told)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        pytest.param(
            lambda content: content["images"].pop(),
            0,
            "1 suggested images are not in 'mine.json'",
            marks=pytest.mark.slow,
        ),
        (lambda content: content.update(images=content["images"][:2]), 3, "chosen as 'at random'"),
        (lambda content: content.update(annotations=[]), 3, "holds no box on the suggested images"),
    ],
)
def test_return__images_that_nobody_labelled(  # noqa: PLR0913 (two fixtures, three cases)
    suggested: tuple[Path, list[str]],
    truth: DetectionDataset,
    tmp_path: Path,
    change: Callable[[dict[str, list[dict[str, object]]]], None],
    code: int,
    said: str,
) -> None:
    out, _ = suggested

    def changed(content: dict[str, list[dict[str, object]]]) -> None:
        change(content)
        left = {each["id"] for each in content["images"]}
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] in left]

    file, folder = labelled(out, truth, changed), truth.records[0].path.parent
    words = ["--input", folder, "--labels", file, "--suggested", out, "--out", tmp_path / "out"]
    found, told = call(source_bundle(), worse_bundle(), *words)
    assert said in told
    assert (found == 0) == (code == 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suggested", "x"], "need --input FOLDER"),
        (["--labels", "mine.json"], "need --input FOLDER"),
        (["--input", ".", "--labels", "mine.txt"], "is no .json"),
        (["--input", ".", "--labels", "mine.json"], "is no record of a comparison that suggested images"),
    ],
)
def test_return__what_is_missing_is_said(tmp_path: Path, words: list[str], said: str) -> None:
    code, told = call(source_bundle(), worse_bundle(), "--out", tmp_path / "out", *words)
    assert code == 2
    assert said in told


def test_return__of_other_detectors_is_refused(suggested: tuple[Path, list[str]], truth: DetectionDataset) -> None:
    out, _ = suggested
    words = ["--input", truth.records[0].path.parent, "--labels", out / "to_label.coco.json", "--out", out / "x"]
    code, told = call(worse_bundle(), source_bundle(), *words)
    assert code == 2
    assert "suggested images for" in told
