"""Verbs of the task on tiny trees of published data sets, and scores of two bundles side by side."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.sfod.__main__ import main
from pipelines.sfod.initial_weights import DEMO_BUNDLE
from tests.pipelines.sfod.tiny import SUPERVISED, source_bundle
from tests.vision_core.detection.datasets.published import make_cityscapes
from tests.vision_core.detection.synthetic import make_voc
from vision_core.bundles.bundle import amend, read_card


def test_convert_data__published_trees_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_cityscapes(tmp_path / "city")
    words = [f"data.root={root}", "data.format=cityscapes", "data.split=train", "data.eval_split=val"]
    out = tmp_path / "coco"
    assert main(["convert-data", "--to", "coco", "--images", "link", "--out", str(out), *words]) == 0
    told = capsys.readouterr().out
    assert "polygons of labels without instances, which stay in the source: 2 (road)" in told
    assert "val: 2 images, 4 boxes." in told
    index = json.loads((out / "train.json").read_text())
    assert [each["iscrowd"] for each in index["annotations"]] == [0, 1, 0, 1]
    assert index["annotations"][0]["segmentation"] == [[10, 5, 40, 8, 38, 30, 12, 28]]
    assert index["annotations"][0]["area"] == 630
    assert index["annotations"][1]["segmentation"] == [[0, 8, 20, 8, 20, 32]]  # cut at the edge, as its box
    first = out / "train" / index["images"][0]["file_name"]
    assert first.samefile(root / "leftImg8bit" / "train" / "aachen" / first.name)
    assert main(["convert-data", "--to", "coco", "--out", str(out), *words]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["convert-data", "--to", "voc", "--out", str(tmp_path / "voc"), *words]) == 2
    told = capsys.readouterr().err
    assert "4 crowd regions; 8 boxes with 'segmentation' of coco" in told


def test_evaluate__two_bundles_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_voc(tmp_path / "data", count=3)
    bundle, out = str(source_bundle()), tmp_path / "out"
    words = [f"data.root={root}", "data.format=voc", "data.eval_split=test"]
    compared = ["--checkpoint", bundle, "--beside", bundle, "--out", str(out)]
    assert main(["evaluate", *compared, *words]) == 0
    told = capsys.readouterr().out
    beside, alone = json.loads((out / "evaluation.json").read_text())
    assert beside["model"] == f"{alone['model']} beside"
    assert set(alone["details"]["errors (number)"]) == set(alone["details"]["AP50 gained without errors of"])
    assert "AP50 gained without errors of, data:test" in told
    pictures = {path.name for path in (out / "pictures").iterdir()}
    assert {"precision_recall.csv", "precision_recall.png", "labels.coco.json"} <= pictures
    assert f"detections-{alone['model']}.json" in pictures
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    adapted = read_card(copy).config  # to a plain folder: the labels of another one are found all the same
    config = {**adapted, "data": {**adapted["data"], "format": "images"}}
    amend(copy, config=config, metrics={alone["split"]: {**alone["counts"], "source": {"voc07_ap50": 0.125}}})
    assert main(["evaluate", "--checkpoint", str(copy), words[0], words[2]]) == 0
    assert "The source on data:test, as the card tells: voc07_ap50 12.5" in capsys.readouterr().out


def test_evaluate__data_of_another_place_are_not_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    named = read_card(DEMO_BUNDLE).config["data"]["root"]
    assert main(["evaluate", "--checkpoint", str(DEMO_BUNDLE)]) == 2
    told = f"are not here: its card names '{named}'. Give those to score on: data.root=FOLDER data.eval_split=LIST."
    assert told in capsys.readouterr().err


def test_validate__a_report_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_cityscapes(tmp_path / "city")
    words = [f"data.root={root}", "data.format=foggy_cityscapes", "data.fog_beta=0.02", "data.split=train"]
    report = tmp_path / "report.json"
    command = ["validate", "--workers", "1", "--cache", str(tmp_path / "sound.json"), "--out", str(report)]
    words = [*SUPERVISED, *words]
    assert main([*command, *words]) == 0
    [found] = json.loads(report.read_text())["lists"]
    assert (found["num_items"], found["faults"], found["problems"]) == (2, [], [])
    assert found["numbers"]["classes"]["car"] == 2
    assert found["numbers"]["crowd"] == 2
    assert main([*command, *words]) == 0  # its own report is replaced
    report.write_text("{}")
    assert main([*command, *words]) == 2
    assert "is no list of findings" in capsys.readouterr().err
