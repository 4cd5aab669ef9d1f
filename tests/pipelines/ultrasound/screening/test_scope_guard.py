"""Frames of another kind are told before any result, and never segmented."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.ultrasound.__main__ import main
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.evaluation.rows import Models, score_list, screen_row
from pipelines.ultrasound.pipeline import UltrasoundPipeline
from pipelines.ultrasound.predict import UltrasoundPredictor
from pipelines.ultrasound.screening.scope_guard import guard_of, guard_record, outside_frames
from pipelines.ultrasound.segment import ModelMasks
from pipelines.ultrasound.weights.bundles import ScreenModel, SegmentModel, load_network, save_networks
from tests.pipelines.ultrasound.tiny import SIZE, Pair, frame, make_bundle, make_h5
from vision_core.bundles.bundle import read_card
from vision_core.config.loading import load
from vision_core.errors import CheckpointError
from vision_core.evaluation.scope import Scope
from vision_core.results import OUTSIDE
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter


def stripes() -> np.ndarray:
    """No frame that the tiny networks have seen: black and white columns."""
    return np.tile(np.array([0, 255], np.uint8), (SIZE[0], SIZE[1] // 2))


@pytest.mark.parametrize("kind", ["segment", "screen"])
def test_guard__is_on_the_card_and_knows_the_frames_that_set_its_threshold(pair: Pair, kind: str) -> None:
    path = getattr(pair, kind)
    lists = read_lists(load(UltrasoundConfig, None, [f"data.root={pair.data}"]).data, ["train", "val"])
    loaded = load_network(path)
    again = guard_record(loaded.model, lists["train"], lists["val"])
    stored = loaded.card.scope
    assert stored is not None
    # The card's is of the weights before their cast to the precision of the bundle.
    assert again["threshold"] == pytest.approx(stored["threshold"], rel=0.02)
    assert again["false_alarms"] == pytest.approx(1 / 9)  # eight frames of validation, all of them inside
    predictor = UltrasoundPredictor.from_checkpoint(path, "cpu")
    for number in range(4):
        image = np.repeat(frame(4, number)[0][..., None], 3, axis=2)  # subject 4 is of the list val
        assert not predictor(image).outside.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["segment", "screen"])
def test_predict__a_frame_of_another_kind_is_outside_and_has_no_mask(pair: Pair, tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(stripes()).save(tmp_path / "in" / "stripes.png")
    bundle = getattr(pair, kind)
    more = [f"segment={pair.segment}"] if kind == "screen" else []
    words = ["predict", "--checkpoint", str(bundle), "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*words, *more]) == 0
    made = tmp_path / "out" / "outputs" / "stripes"
    record = json.loads(made.with_suffix(".json").read_text())
    assert (record["category"], record["verdict"]) == (OUTSIDE, OUTSIDE)
    assert "1 of 1 frames are unlike the B-mode frames" in " ".join(record["notes"])
    with made.with_suffix(".frames.csv").open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["outside"], row["accepted"], row["present"], row["area_px"]) == ("1", "0", "0", "")


def test_predict__some_frames_outside_leave_the_others_their_result(pair: Pair) -> None:
    predictor = UltrasoundPredictor.from_checkpoint(pair.segment, "cpu")
    known = frame(4, 1)[0]
    found = predictor._part([known, stripes(), np.zeros_like(known)], ["a", "b", "c"])
    assert found.outside.tolist() == [False, True, False]
    assert found.accepted.tolist() == [True, False, False]
    assert not found.masks[1:].any()


def test_evaluate__tells_how_many_frames_predict_would_leave_out(pair: Pair) -> None:
    lists = read_lists(load(UltrasoundConfig, None, [f"data.root={pair.data}"]).data, ["val"])
    loaded = load_network(pair.screen)
    assert isinstance(loaded.model, ScreenModel)
    [scope] = guard_of(loaded.card)

    def notes(scope: Scope) -> tuple[str, ...]:
        models = Models(screen=loaded.model, guard=(scope,))  # type: ignore[arg-type]
        found = score_list(lists["val"], "observer_majority", models, "test", with_distances=False)
        return screen_row("a", found, 0.5).notes

    assert notes(scope) == ()
    assert notes(replace(scope, threshold=0.0)) == (
        "8 of 8 frames lie outside the scope of the screen: predict does not segment them; they are scored here.",
    )


def test_evaluate__a_segmenter_alone_tells_of_its_own_scope(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ResidualUNet(Segmenter(layers=2, first=4))
    path = make_bundle(tmp_path / "model", network)
    words = [f"data.root={make_h5(tmp_path / 'data')}", "data.eval_split=val", "train.device=cpu"]
    config = load(UltrasoundConfig, None, words)
    lists = read_lists(config.data, ["train", "val"])
    found = {}
    for name, threshold in {"all inside": 1e9, "all outside": 0.0}.items():
        model = SegmentModel(network, size_px=None)
        scope = {**guard_record(model, lists["train"], lists["val"]), "threshold": threshold}
        card = read_card(path).model_copy(update={"scope": scope})
        save_networks(tmp_path / name, [network], card)
        [found[name]] = UltrasoundPipeline().evaluate(config, {"a": tmp_path / name}, None)
    told = "8 of 8 frames lie outside the scope of the segmenter: predict does not segment them; they are scored here."
    assert [told in each.notes for each in found.values()] == [False, True]
    assert found["all inside"].metrics == found["all outside"].metrics
    masking = score_list(lists["val"], "observer_majority", Models(masking=ModelMasks(model)), "test")
    assert found["all inside"].metrics["dice"] == pytest.approx(masking.dice.mean(), abs=1e-3)


def test_guard__older_bundles_have_none_and_a_damaged_one_is_refused(pair: Pair) -> None:
    card = read_card(pair.screen)
    without = card.model_copy(update={"scope": None})
    assert guard_of(without) == ()
    assert not outside_frames((), np.full((2, 3), np.nan, np.float32)).any()
    with pytest.raises(CheckpointError, match="scope is damaged"):
        guard_of(card.model_copy(update={"scope": {"mean": "?"}}))
    with pytest.raises(CheckpointError, match="features, the network has 3"):
        outside_frames(guard_of(card), np.zeros((1, 3), np.float32))
