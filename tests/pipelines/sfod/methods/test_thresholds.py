"""Thresholds that follow from what the source detects."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.sfod.__main__ import main
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.methods.thresholds import score_of_rank
from pipelines.sfod.predict import SfodPredictor
from tests.pipelines.sfod.tiny import ADAPTATION, source_bundle
from tests.vision_core.detection.synthetic import make_voc
from vision_core.bundles.bundle import read_card
from vision_core.config.loading import load
from vision_core.errors import ConfigError


def test_score_of_rank__so_many_exceed_it_and_no_more() -> None:
    scores = [np.array([0.9, 0.3], np.float32), np.array([0.7, 0.5, 0.1], np.float32)]
    score, told = score_of_rank(scores, 1.5)
    assert score == pytest.approx(0.3)
    assert "the threshold is 0.300, which 3 detections of the source on 2 images exceed" in told
    assert score_of_rank(scores, 2.5)[0] == 0  # there are no more than five
    assert score_of_rank([np.zeros(0, np.float32)], 1)[0] == 0


def test_per_image__a_run_starts_with_so_many_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, source, out = make_voc(tmp_path / "data", count=4), source_bundle(), tmp_path / "run"
    words = [*ADAPTATION[1:], f"data.root={root}", "data.format=voc", f"source.weights={source}", "method=mt"]
    words += ["pseudo_labels.per_image=1.5", "train.epochs=1", "teacher.every=step"]
    assert main(["train", "--out", str(out), *words]) == 0
    assert "pseudo_labels.per_image=1.5: the threshold is " in capsys.readouterr().out
    predictor = SfodPredictor.from_checkpoint(source)
    names = (root / "ImageSets" / "Main" / "train.txt").read_text().split()
    paths = [next((root / "JPEGImages").glob(f"{name}.*")) for name in names]
    found = np.concatenate([predictor(path).scores for path in paths])
    settings = read_card(out / "model").config
    threshold = settings["pseudo_labels"]["threshold"]
    assert (found > threshold).sum() == round(1.5 * len(paths))


def test_per_image__not_beside_auto() -> None:
    with pytest.raises(ConfigError, match="per_image sets it too"):
        load(SfodConfig, None, ["pseudo_labels.per_image=2", "pseudo_labels.threshold=auto"])
