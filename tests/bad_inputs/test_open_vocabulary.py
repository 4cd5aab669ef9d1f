"""Vocabularies and pseudo-labels that are empty, repeated, strange, too long or of other data, met by the commands."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.repack_demos import CHECKPOINTS
from pipelines.ovd.__main__ import main
from pipelines.ovd.pseudo_labels.making import LABELS_FILE
from tests.pipelines.ovd.tiny import make_data, words
from vision_core.images.drawing import write_png

DEMO = CHECKPOINTS / "ovd-demo"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "blank.png"
    write_png(path, np.full((64, 96, 3), 127, np.uint8))
    return path


def _predict(image: Path, out: Path, *names: str) -> int:
    model = ["image_text.kind=compact", f"image_text.weights={DEMO / 'image-text'}"]
    where = [f"--checkpoint={DEMO / 'detector'}", f"--input={image}", f"--out={out}", "--device=cpu"]
    return main(["predict", *where, *names, *model])


def _list(folder: Path, text: str) -> str:
    path = folder / "names.txt"
    path.write_bytes(text.encode())
    return f"--classes-file={path}"


@pytest.mark.parametrize("text", ["", "\ufeff", " \r\n\n , ,\n"])
def test_d1__a_list_without_a_name_is_refused(text: str, image: Path, tmp_path: Path, capsys: Capture) -> None:
    assert _predict(image, tmp_path / "out", _list(tmp_path, text)) == 2
    assert "no name to detect. Give names, such as" in capsys.readouterr().err


def test_d1_d2_d9__blank_repeated_and_foreign_names_are_told_beside_the_result(image: Path, tmp_path: Path) -> None:
    assert _predict(image, tmp_path / "out", _list(tmp_path, "\ufeffcoat\r\n\r\nCoat\r\n\u732b\r\n")) == 0
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert "names that stand there more than once, merged: 'Coat'." in row["notice"]
    assert "1 empty entries left out." in row["notice"]
    assert "the text model was trained on English; it may not know '\u732b'." in row["notice"]


def test_d4__a_novel_class_in_another_spelling_of_a_base_class(tmp_path: Path, capsys: Capture) -> None:
    data = make_data(tmp_path, count=2)
    assert main(["validate", *words(data, "data.classes=[disc,square,round,Disc]", "data.novel=[round,Disc]")]) == 2
    assert "'Disc', and 'disc' is a base class: its boxes would be read" in capsys.readouterr().err


def _of_other_images(content: dict[str, object]) -> None:
    content["info"]["images_hash"] = "0"  # type: ignore[index]


def _in_another_order(content: dict[str, object]) -> None:
    content["categories"].reverse()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "told"),
    [(_of_other_images, "made for other images than"), (_in_another_order, "is for 4 classes (block, round")],
)
def test_d5__pseudo_labels_of_other_data_are_refused(
    change: Callable[[dict[str, object]], None], told: str, tmp_path: Path, capsys: Capture
) -> None:
    data = make_data(tmp_path / "data", count=2)
    content = json.loads((data / LABELS_FILE).read_text())
    change(content)
    (data / LABELS_FILE).write_text(json.dumps(content))
    assert main(["train", "--out", str(tmp_path / "run"), *words(data)]) == 2
    assert told in capsys.readouterr().err


def test_d7__twenty_thousand_names_are_counted_before_one_is_embedded(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    names = _list(tmp_path, "\n".join(f"thing {number}" for number in range(20_000)))
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 10_000}  # of a machine with 10 MB
    whole = os.sysconf
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.ovd.image_text.vocabulary.os.sysconf", lambda name: sizes.get(name, whole(name)))
        code = _predict(image, tmp_path / "out", names)
    assert code == 5
    assert "20010 names on 100 regions take about 0.1 GB of memory, this machine has 0 GB." in capsys.readouterr().err
