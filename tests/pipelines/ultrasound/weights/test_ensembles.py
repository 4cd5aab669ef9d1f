"""Several networks in one bundle: their probabilities are averaged, wherever the bundle is used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.ultrasound.config import ScreenNetwork, UltrasoundConfig
from pipelines.ultrasound.screening.scope_guard import guard_of, outside_frames
from pipelines.ultrasound.screening.screen import Screen
from pipelines.ultrasound.weights.bundles import Frames, load_network, logit_of_mean, quicken, raw_outputs
from pipelines.ultrasound.weights.ensembles import save_ensemble
from pipelines.ultrasound.weights.export import exportable
from pipelines.ultrasound.weights.initial import initial_network
from tests.pipelines.ultrasound.tiny import frame, make_bundle
from vision_core.bundles.bundle import amend, load, read_card
from vision_core.config.loading import load as load_config
from vision_core.errors import CheckpointError
from vision_core.evaluation.scope import fit_scope
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter

SMALL = Segmenter(layers=2, first=4)
SEEN = Frames(images=[frame(0, 1)[0], frame(1, 1)[0]], white=[255, 255])


def members(folder: Path, kind: str, count: int) -> dict[str, Path]:
    made = {}
    for seed in range(count):
        torch.manual_seed(seed)
        network = ResidualUNet(SMALL) if kind == "segment" else Screen(ScreenNetwork(network="resnet10t"))
        more = ["data.size_px=[32,32]"] if kind == "segment" else []
        made[f"seed-{seed}"] = make_bundle(folder / f"seed-{seed}", network, f"method={kind}", *more)
    return made


@pytest.mark.parametrize("kind", ["segment", "screen"])
def test_ensemble__averages_probabilities(tmp_path: Path, kind: str) -> None:
    paths = members(tmp_path, kind, 2)
    card = save_ensemble(tmp_path / "ensemble", paths)
    loaded = load_network(tmp_path / "ensemble")
    alone = [load_network(path).model for path in paths.values()]
    found, features = loaded.model.with_features(SEEN)
    np.testing.assert_allclose(found, np.mean([each(SEEN) for each in alone], axis=0), atol=1e-6)
    assert np.array_equal(features, np.concatenate([each.with_features(SEEN)[1] for each in alone], axis=1))
    assert card.architecture["members"] == [read_card(path).identity() for path in paths.values()]
    assert card.metrics == {} and card.calibration is None

    content = load(tmp_path / "ensemble")
    assert torch.equal(raw_outputs(loaded.model, content.inputs())["logits"], content.outputs()["logits"])
    quicken(loaded.model)
    np.testing.assert_allclose(loaded.model(SEEN), found, atol=1e-4)

    prepared = exportable(tmp_path / "ensemble", None)
    assert prepared.golden is not None
    inputs, outputs = prepared.golden
    with torch.no_grad():
        exported = prepared.module(inputs["frames"])
    torch.testing.assert_close(exported, outputs["probabilities"], rtol=0, atol=1e-5)


def test_logit_of_mean__also_where_a_probability_is_rounded_to_one() -> None:
    logits = [torch.tensor([0.3, 40.0, -90.0]), torch.tensor([-1.2, 44.0, -100.0])]
    found = logit_of_mean(logits)
    assert found[0].sigmoid() == pytest.approx(float((logits[0][0].sigmoid() + logits[1][0].sigmoid()) / 2))
    assert found[1] == pytest.approx(40 + float(np.log(2)) - float(np.log1p(np.exp(-4))), abs=1e-4)
    assert found[2] == pytest.approx(-90 - float(np.log(2)), abs=1e-4)


def test_guard__at_least_half_of_the_networks_must_call_a_frame_outside() -> None:
    draws = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    scope = replace(fit_scope(draws[:20], draws[20:]), threshold=3.0)
    inside, far = np.zeros((1, 5), np.float32), np.full((1, 5), 100, np.float32)

    def is_outside(*parts: np.ndarray) -> bool:
        return bool(outside_frames((scope,) * len(parts), np.concatenate(parts, axis=1))[0])

    assert not is_outside(inside, inside, far)
    assert is_outside(inside, far, far)
    assert is_outside(inside, far)


def test_guard__is_on_the_card_of_an_ensemble_if_all_have_one(tmp_path: Path) -> None:
    paths = members(tmp_path, "segment", 2)
    width = load_network(paths["seed-0"]).model.with_features(SEEN)[1].shape[1]
    draws = np.random.default_rng(0).normal(size=(8, width)).astype(np.float32)
    amend(paths["seed-0"], scope=fit_scope(draws, draws).to_record())
    assert guard_of(save_ensemble(tmp_path / "without", paths)) == ()
    amend(paths["seed-1"], scope=fit_scope(draws + 1, draws).to_record())
    guard = guard_of(save_ensemble(tmp_path / "with", paths))
    assert [float(each.mean[0]) for each in guard] == pytest.approx([draws[:, 0].mean(), draws[:, 0].mean() + 1])
    features = load_network(tmp_path / "with").model.with_features(SEEN)[1]
    assert outside_frames(guard, features).shape == (2,)


def test_ensemble__other_networks_and_starts_are_refused(tmp_path: Path) -> None:
    paths = members(tmp_path, "segment", 2)
    other = make_bundle(tmp_path / "other", ResidualUNet(Segmenter(layers=2, first=8)), "data.size_px=[32,32]")
    with pytest.raises(CheckpointError, match="another architecture"):
        save_ensemble(tmp_path / "ensemble", {**paths, "other": other})
    save_ensemble(tmp_path / "ensemble", paths)
    start = [f"source.weights={tmp_path / 'ensemble'}", "segmenter.layers=2", "segmenter.first=4"]
    with pytest.raises(CheckpointError, match="holds '2' networks, a run starts from one"):
        initial_network(load_config(UltrasoundConfig, None, start))
    amend(tmp_path / "ensemble", architecture={**read_card(tmp_path / "ensemble").architecture, "members": ["one"]})
    with pytest.raises(CheckpointError, match="the weights do not fit the architecture"):
        load_network(tmp_path / "ensemble")


def test_ensemble__remembers_the_sectors_that_any_member_has_seen(tmp_path: Path) -> None:
    paths = members(tmp_path, "segment", 2)
    one, other = (
        {"machine": name, "size": [32, 32], "corners": [[0, 0], [31, 0], [31, 31]]} for name in ("M 1", "M 2")
    )
    for path, seen in zip(paths.values(), ([one], [one, other]), strict=True):
        amend(path, preprocessing={**read_card(path).preprocessing, "sectors": seen})
    assert save_ensemble(tmp_path / "ensemble", paths).preprocessing["sectors"] == [one, other]
