"""Networks in and out of bundles, and what a loaded one says of a bag."""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from pipelines.wsi.cohort.labels import LabelledSlide
from pipelines.wsi.config import EmbeddingSettings, ModelSettings, Recycling, Scores
from pipelines.wsi.evaluation.predictions import predict_bags
from pipelines.wsi.features.bags import mean_tile
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.models.build import build_model
from pipelines.wsi.weights.bundles import DECISION, SlideModel, architecture, load_network, save_network
from pipelines.wsi.weights.cards import calibration_record
from tests.vision_core.toy_bundle import edit_card
from vision_core.bundles import bundle
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import CheckpointError
from vision_core.evaluation.calibration import Calibration
from vision_core.evaluation.scope import fit_scope

Name = Literal["abmil", "dsmil", "transmil"]
CPU = torch.device("cpu")
CLASSES = ("normal", "tumour")


def settings(name: Name) -> ModelSettings:
    return ModelSettings(name=name, embedding=EmbeddingSettings(dim=16))


def network(name: Name, dim: int = 6, recycling: Recycling | None = None) -> MHIM:
    return MHIM(build_model(settings(name), dim, len(CLASSES)), recycling)


def card(name: Name, **changes: Any) -> Card:  # noqa: ANN401
    fields: dict[str, Any] = {
        "task": "wsi",
        "method": "plain",
        "config": {},
        "architecture": architecture(settings(name)),
        "preprocessing": {},
        "classes": CLASSES,
        "trained_on": TrainedOn(description="made", synthetic=True),
    }
    return Card(**fields | changes)


@pytest.mark.parametrize("name", ["abmil", "dsmil", "transmil"])
def test_save_network__comes_back_and_answers_the_same(name: Name, tmp_path: Path) -> None:
    made = network(name)
    save_network(tmp_path / "model", made, card(name))
    loaded = load_network(tmp_path / "model", CPU)
    bag = torch.randn(9, 6)
    torch.testing.assert_close(loaded.probabilities(bag).float(), made.eval().probabilities(bag))
    assert loaded.feature_dim == 6
    content = bundle.load(tmp_path / "model", "wsi")
    assert bundle.check_golden(content, loaded.answer) == 0
    assert set(content.outputs()) == {"logits", "feature", "scores", "probabilities"}


def test_save_network__recycling_of_training_alone_stays_behind(tmp_path: Path) -> None:
    save_network(tmp_path / "model", network("abmil", recycling=Recycling()), card("abmil"))
    assert not any("recycler" in name for name in bundle.load(tmp_path / "model").tensors)


def test_save_network__recycling_at_test_goes_with_it(tmp_path: Path) -> None:
    recycling = Recycling(at_test=True, tokens=3)
    made = network("abmil", recycling=recycling)
    save_network(tmp_path / "model", made, card("abmil", architecture=architecture(settings("abmil"), recycling)))
    loaded = load_network(tmp_path / "model", CPU)
    bag = torch.randn(9, 6)
    torch.testing.assert_close(loaded.probabilities(bag).float(), made.eval().probabilities(bag))
    assert loaded.predict(bag).scores.shape == (9,)


@pytest.mark.parametrize("name", ["abmil", "dsmil", "transmil"])
def test_read__scores_are_the_attention_whatever_the_stretches(
    name: Name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network(name).eval()
    model = SlideModel(made, card(name), CPU)
    bag = torch.randn(23, 6)
    whole = model.predict(bag)
    with torch.no_grad():
        expected = made.aggregator.aggregate(made.aggregator.embedding(bag), Scores()).scores
    assert expected is not None
    np.testing.assert_allclose(whole.scores, expected.mean(dim=0).numpy(), rtol=1e-5, atol=1e-7)
    monkeypatch.setattr("pipelines.wsi.features.bags._CHUNK_TILES", 5)
    np.save(tmp_path / "bag.npy", bag.numpy())
    mapped = model.predict(np.load(tmp_path / "bag.npy", mmap_mode="r"))
    np.testing.assert_allclose(mapped.scores, whole.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mapped.probabilities, whole.probabilities, rtol=1e-5)


def test_read__probabilities_are_calibrated_and_the_threshold_with_them() -> None:
    fitted = Calibration(temperature=2.0, coverage=0.9, threshold=0.7, num_cases=20)
    plain = SlideModel(network("abmil"), card("abmil"), CPU)
    calibrated = SlideModel(plain.network, card("abmil", calibration={**fitted.to_record(), DECISION: 0.2}), CPU)
    bag = torch.randn(9, 6)
    raw, reading = plain.predict(bag), calibrated.predict(bag)
    np.testing.assert_allclose(reading.probabilities, fitted.probabilities(np.log(raw.probabilities)))
    assert raw.possible is None
    assert reading.possible is not None
    assert reading.possible.tolist() == fitted.sets(np.log(raw.probabilities)).tolist()
    # A fifth before calibration: odds of a quarter, whose root is a half.
    assert calibrated.threshold == pytest.approx(1 / 3)
    assert reading.called == int(raw.probabilities[1] >= 0.2)


def test_read__slides_are_called_as_validation_called_them() -> None:
    """Scores of nearly one differ in their logarithms alone, and no calibration turns a slide."""
    made = network("abmil")
    with torch.no_grad():
        for parameter in made.aggregator.classifier.parameters():  # type: ignore[union-attr]
            parameter.mul_(60)
    bags = [torch.randn(9, 6) * (1 + number) for number in range(20)]
    raw = torch.stack([made.eval().log_probabilities(bag) for bag in bags]).double().detach().exp().numpy()
    labels = (raw[:, 1] > np.median(raw[:, 1])).astype(np.int64)
    records = [LabelledSlide(row=row, slide=f"s{row}", patient="p", label=int(each)) for row, each in enumerate(labels)]
    found = predict_bags(lambda place: torch.from_numpy(raw[place]), records, CLASSES)
    model = SlideModel(made, card("abmil", calibration=calibration_record(found)), CPU)
    assert [model.predict(bag).called for bag in bags] == labels.tolist()
    shown = predict_bags(lambda place: model.probabilities(bags[place]), records, CLASSES, model.threshold)
    assert shown.called.tolist() == labels.tolist()


def test_read__a_bag_far_from_training_is_outside() -> None:
    generator = np.random.default_rng(0)
    scope = fit_scope(generator.normal(size=(40, 6)), generator.normal(size=(40, 6)))
    model = SlideModel(network("abmil"), card("abmil", scope=scope.to_record()), CPU)
    near = torch.from_numpy(generator.normal(size=(5, 6)))
    assert model.predict(near).is_outside is False
    assert model.predict(near + 50).is_outside is True
    assert SlideModel(model.network, card("abmil"), CPU).predict(near).is_outside is None


def test_mean_tile__of_stretches_is_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = torch.randn(23, 6)
    monkeypatch.setattr("pipelines.wsi.features.bags._CHUNK_TILES", 5)
    np.testing.assert_allclose(mean_tile(bag.half().numpy()), bag.half().float().mean(dim=0), rtol=1e-4, atol=1e-6)


def test_load_network__weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """Row H5 of the bad inputs, and E23."""
    save_network(tmp_path / "model", network("abmil"), card("abmil"))
    for changes, told in (
        ({"architecture": {**architecture(settings("dsmil")), "feature_dim": 6}}, r"describes dsmil .* do not fit"),
        ({"classes": ["a", "b", "c"]}, "with 3 classes, which the weights do not fit: 'aggregator.classifier.bias'"),
        ({"architecture": {}}, "says no width of features"),
        ({"architecture": {"feature_dim": 6, "model": {"name": "resnet"}}}, "describes no network for slides"),
        ({"task": "sfod"}, "is of pipeline 'sfod', not 'wsi'"),
    ):
        copy = Path(shutil.copytree(tmp_path / "model", tmp_path / "copy", dirs_exist_ok=True))
        edit_card(copy, lambda content, changes=changes: content.update(changes))  # type: ignore[misc]
        with pytest.raises(CheckpointError, match=told):
            load_network(copy, CPU)


@pytest.mark.parametrize("recycling", [None, Recycling(at_test=True, tokens=3)])
def test_read__evidence_of_the_tiles_averages_to_the_log_odds_of_the_slide(recycling: Recycling | None) -> None:
    made = network("abmil", recycling=recycling)
    fitted = Calibration(temperature=2.0, coverage=0.9, threshold=0.7, num_cases=20)
    model = SlideModel(made, card("abmil", calibration={**fitted.to_record(), DECISION: 0.5}), CPU)
    reading = model.predict(torch.randn(9, 6))
    assert reading.evidence is not None
    assert (reading.evidence.shape, reading.evidence_for) == ((9,), 1)
    odds = np.log(reading.probabilities[1] / reading.probabilities[0])
    if recycling is None:  # tokens, which are no tiles, have their part too; biases begin at 0
        assert reading.evidence.mean() == pytest.approx(odds, abs=1e-5)


def test_read__evidence_has_one_scale_whatever_the_number_of_tiles() -> None:
    model = SlideModel(network("abmil"), card("abmil"), CPU)
    bag = torch.randn(7, 6)
    one, ten = model.predict(bag).evidence, model.predict(bag.repeat(10, 1)).evidence
    assert one is not None and ten is not None
    np.testing.assert_allclose(ten[:7], one, rtol=1e-4, atol=1e-5)


def test_read__a_transformer_gives_no_evidence() -> None:
    assert SlideModel(network("transmil"), card("transmil"), CPU).predict(torch.randn(9, 6)).evidence is None


def test_read__of_several_classes_evidence_is_for_the_called_one() -> None:
    made = MHIM(build_model(settings("abmil"), 6, 3))
    reading = SlideModel(made, card("abmil", classes=("a", "b", "c")), CPU).predict(torch.randn(9, 6))
    assert reading.evidence_for == reading.called == int(reading.probabilities.argmax())
