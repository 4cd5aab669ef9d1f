"""Pseudo-labels of a list from real parts: a killed call goes on, and a new selection scores nothing anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.ovd.__main__ import main
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.data.reading import read_base
from pipelines.ovd.pseudo_labels import making
from pipelines.ovd.pseudo_labels.label_file import read_labels
from pipelines.ovd.pseudo_labels.making import LABELS_FILE, make_labels
from tests.pipelines.ovd.table import TableModel
from tests.pipelines.ovd.test_bundles import make_generator
from tests.pipelines.ovd.tiny import CLASSES, NOVEL
from tests.vision_core.detection.synthetic import make_coco
from vision_core.config.loading import dump, load
from vision_core.errors import ConfigError, DataError, UsageError
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_noted_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> OvdConfig:
    folder = tmp_path_factory.mktemp("making")
    make_coco(folder / "data", count=4, classes=CLASSES)
    words = [
        f"data.root={folder / 'data'}",
        f"data.classes=[{','.join(CLASSES)}]",
        f"data.novel=[{','.join(NOVEL)}]",
        f"proposals.weights={make_generator(folder / 'generator')}",
        "proposals.count=6",
        "proposals.refinements=2",
    ]
    return load(OvdConfig, None, words)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> TableModel:
    table = TableModel()
    monkeypatch.setattr(making, "load_image_text", lambda settings: table)
    return table


def _annotations(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / LABELS_FILE).read_text())["annotations"])


def test_make__labels_that_training_reads(config: OvdConfig, tmp_path: Path) -> None:
    lines = make_labels(config, tmp_path, CPU)
    assert lines[0] == "4 of 4 images were scored now; the others were before."
    dataset, split = read_base(config.data)
    labels = read_labels(tmp_path / LABELS_FILE, dataset, split)
    assert sum(map(len, labels.by_image.values())) == int(lines[1].split()[0]) > 0
    assert labels.fingerprint == TableModel().fingerprint()
    base = [each for each in _annotations(tmp_path) if not each["is_pseudo"]]
    assert len(base) == sum(len(record.labels) for record in dataset.records)


def test_make__killed_and_continued_gives_the_same_file(
    config: OvdConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: TableModel
) -> None:
    make_labels(config, tmp_path / "whole", CPU, shard_images=1)

    def killed(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_labels(config, tmp_path / "parts", CPU, killed, shard_images=1)
    asked = len(model.batches)
    lines = make_labels(config, tmp_path / "parts", CPU, shard_images=1)
    assert lines[0].startswith("2 of 4 images were scored now")
    assert len(model.batches) - asked <= 2
    assert (tmp_path / "parts" / LABELS_FILE).read_bytes() == (tmp_path / "whole" / LABELS_FILE).read_bytes()


def test_make__novel_boxes_of_the_index_change_nothing(config: OvdConfig, tmp_path: Path) -> None:
    make_labels(config, tmp_path / "clean", CPU)
    root = shutil.copytree(str(config.data.root), tmp_path / "data")
    index = json.loads((root / "train.json").read_text())
    novel = {each["id"] for each in index["categories"] if each["name"] in NOVEL}
    for each in (each for each in index["annotations"] if each["category_id"] in novel):
        each["bbox"] = [1.0, 2.0, 30.0, 20.0]
    (root / "train.json").write_text(json.dumps(index))
    poisoned = config.model_copy(update={"data": config.data.model_copy(update={"root": root})})
    make_labels(poisoned, tmp_path / "poisoned", CPU)
    assert (tmp_path / "clean" / LABELS_FILE).read_bytes() == (tmp_path / "poisoned" / LABELS_FILE).read_bytes()


def test_make__another_selection_of_the_same_scores(config: OvdConfig, tmp_path: Path, model: TableModel) -> None:
    make_labels(config, tmp_path, CPU)
    asked, texts = len(model.batches), len(model.texts)
    other = config.model_copy(update={"candidates": config.candidates.model_copy(update={"threshold": 0.999})})
    lines = make_labels(other, tmp_path, CPU)
    assert lines[0].startswith("0 of 4 images")
    assert (len(model.batches), len(model.texts)) == (asked, texts)


def test_make__other_settings_of_the_scores_are_refused(config: OvdConfig, tmp_path: Path) -> None:
    make_labels(config, tmp_path, CPU)
    warmer = config.model_copy(update={"image_text": config.image_text.model_copy(update={"temperature": 0.1})})
    with pytest.raises(DataError, match=r"scored with other settings: temperature is '0.01', expected '0.1'"):
        make_labels(warmer, tmp_path, CPU)


def test_make__other_images_of_the_same_ids_are_refused(config: OvdConfig, tmp_path: Path) -> None:
    make_labels(config, tmp_path / "out", CPU)
    root = shutil.copytree(str(config.data.root), tmp_path / "data")
    first = min((root / "train").glob("*.png"))
    write_png(first, 255 - read_noted_image(first)[0])
    other = config.model_copy(update={"data": config.data.model_copy(update={"root": root})})
    with pytest.raises(DataError, match="holds the scores of other files, or of files that have changed since: '1' of"):
        make_labels(other, tmp_path / "out", CPU)


@pytest.mark.parametrize("text", ['{"images": [], "annotations": [], "categories": []}', "by hand", "[]"])
def test_make__a_file_made_elsewhere_is_not_replaced(text: str, config: OvdConfig, tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_text(text)
    with pytest.raises(UsageError, match="was not made by pseudo-label and is not replaced"):
        make_labels(config, tmp_path, CPU)
    assert [path.name for path in tmp_path.iterdir()] == [LABELS_FILE]


def test_verb__writes_the_file_and_tells_what_was_made(
    config: OvdConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(dump(config))
    words = ["pseudo-label", "--config", str(tmp_path / "own.yaml"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "4 of 4 images were scored now" in told
    assert f"candidates of 2 novel classes: {tmp_path / 'out' / LABELS_FILE}" in told
    assert main(words) == 0
    assert "0 of 4 images were scored now" in capsys.readouterr().out
    assert main([*words, "image_text.temperature=0.5"]) == 2
    assert "scored with other settings: temperature" in capsys.readouterr().err


def test_make__without_a_generator(config: OvdConfig, tmp_path: Path) -> None:
    bare = config.model_copy(update={"proposals": config.proposals.model_copy(update={"weights": None})})
    with pytest.raises(ConfigError, match="trained with method=proposals"):
        make_labels(bare, tmp_path, CPU)
