import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.sfod.predict import SfodPredictor
from pipelines.sfod.verdict.source import read_source, store_statistics
from tests.pipelines.sfod.tiny import source_bundle
from tests.vision_core.detection.synthetic import SHAPES, make_voc
from vision_core.bundles.bundle import amend, read_card
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.detection.datasets.voc import read_voc
from vision_core.detection.evaluation import calibrate_bundle, detect_all
from vision_core.detection.predictor import DRAWN_SCORE
from vision_core.detection.settings import DetectionData
from vision_core.errors import CheckpointError

CPU = torch.device("cpu")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(source_bundle(), tmp_path / "source"))


@pytest.fixture
def labelled(tmp_path: Path) -> DetectionDataset:
    return read_voc(make_voc(tmp_path / "data", count=6), "test", DetectionData())


def calibrated(bundle: Path, dataset: DetectionDataset) -> Path:
    calibrate_bundle(bundle, dataset, detect_all(SfodPredictor.from_checkpoint(bundle), dataset, ""), "of a test")
    return bundle


def test_statistics__are_stored_and_read(bundle: Path, labelled: DetectionDataset) -> None:
    told = store_statistics(calibrated(bundle, labelled), labelled, most=4, device=CPU)
    assert "on 4 images" in told[0]
    source, lacking = read_source(read_card(bundle, "sfod"))
    assert not lacking
    assert source.truth_map is not None
    assert source.prototypes is not None
    assert source.known is not None
    assert source.prototypes.shape[0] == len(SHAPES) + 1
    assert source.known[-1], "background is everywhere"
    best, worst = source.truth_map(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert best > worst


def test_statistics__stay_when_the_same_list_is_scored_again(bundle: Path, labelled: DetectionDataset) -> None:
    store_statistics(calibrated(bundle, labelled), labelled, most=2, device=CPU)
    before = read_card(bundle).calibration
    calibrated(bundle, labelled)
    assert read_card(bundle).calibration == before


@pytest.mark.parametrize("most", [0, 3])
def test_statistics__need_a_calibration_and_images(bundle: Path, labelled: DetectionDataset, most: int) -> None:
    path = calibrated(bundle, labelled) if not most else bundle
    assert store_statistics(path, labelled, most, CPU) == ()
    assert "no statistics" in read_source(read_card(bundle))[1]


def test_source__without_calibration_works_at_the_drawn_score(bundle: Path) -> None:
    source, lacking = read_source(read_card(bundle))
    assert source.operating_score == DRAWN_SCORE
    assert "no operating score" in lacking


@pytest.mark.parametrize("broken", [{"truth": {}}, {"regions": [1]}, {"prototypes": [["x"]]}])
def test_statistics__that_cannot_be_read_are_refused(
    bundle: Path, labelled: DetectionDataset, broken: dict[str, object]
) -> None:
    store_statistics(calibrated(bundle, labelled), labelled, most=2, device=CPU)
    calibration = json.loads(json.dumps(read_card(bundle).calibration))
    amend(bundle, calibration={**calibration, "statistics": {**calibration["statistics"], **broken}})
    with pytest.raises(CheckpointError, match=r"calibration\.statistics"):
        read_source(read_card(bundle))
