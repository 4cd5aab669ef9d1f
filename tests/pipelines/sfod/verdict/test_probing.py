from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.sfod.verdict import probing
from pipelines.sfod.verdict.probing import Probe, Prober, with_noise
from tests.pipelines.sfod.tiny import source_bundle
from tests.vision_core.detection.synthetic import SHAPES
from vision_core.detection.model.detector import DetectionTensors, Detector
from vision_core.detection.weights.bundles import load_detector
from vision_core.errors import NotFiniteError
from vision_core.images.reading import read_image


@cache
def detector() -> Detector:
    return load_detector(source_bundle())[0]


@cache
def picture() -> Tensor:
    """An image that the detector has learned: what it is sure of holds on any processor."""
    path = source_bundle().parents[1] / "data" / "JPEGImages" / "train_002.png"
    return torch.from_numpy(read_image(path, 1).copy()).permute(2, 0, 1)


@cache
def probe(score: float = 0.3) -> Probe:
    return Prober(detector(), score)(picture(), "a.png")


def test_probe__sums_are_of_their_kind() -> None:
    found = probe()
    kept = (found.scores >= 0.3).sum()
    assert kept > 0
    assert found.counts.sum() == kept
    assert found.counts.shape == (len(SHAPES),)
    for name in ("stability", "geometry", "flatness"):
        above, below = getattr(found, name)
        assert 0 <= above <= below
        assert below >= 3 * kept  # three draws or views, each with the kept boxes on one side
    assert found.consistency[1] == found.confidence[1] == found.entropy[1] == kept
    assert found.confidence[0] == pytest.approx(found.scores[found.scores >= 0.3].sum(), rel=1e-5)
    assert ((found.stabilities >= 0) & (found.stabilities <= 1 + 1e-6)).all()
    assert found.feature_counts[:-1].sum() == kept
    assert found.feature_sums.shape == (len(SHAPES) + 1, detector().embedded_dim)


def test_probe__is_drawn_anew_by_nothing() -> None:
    again = Prober(detector(), 0.3)(picture(), "a.png")
    for name, value in vars(probe()).items():
        assert np.array_equal(value, getattr(again, name)), name


def test_probe__without_disturbance_agrees_wholly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_DROPOUT", 0.0)
    monkeypatch.setattr(probing, "with_noise", lambda detector, seed: detector)
    found = Prober(detector(), 0.3)(picture(), "a.png")
    assert found.stability[0] == pytest.approx(found.stability[1], rel=1e-5)
    assert found.flatness[0] == pytest.approx(found.flatness[1], rel=1e-5)
    assert found.divergence[0] == pytest.approx(0, abs=1e-6)


def test_views__are_mapped_back() -> None:
    """Boxes of the mirrored and rescaled image lie where those of the image itself lie, not where the view has them."""
    prober = Prober(detector(), 0.1)
    plain = _centres(prober._pass(detector(), detector().features([picture()]), "a").kept)
    for view in prober._views(picture(), "a"):
        nearest = torch.cdist(_centres(view), plain).min(dim=1).values
        assert nearest.median() < 5


def _centres(found: DetectionTensors) -> Tensor:
    assert len(found.boxes)
    return (found.boxes[:, :2] + found.boxes[:, 2:]) / 2


def test_probe__above_every_score_keeps_nothing() -> None:
    found = Prober(detector(), 1.1)(picture(), "a.png")
    assert found.counts.sum() == 0
    assert found.stability.tolist() == found.geometry.tolist() == found.flatness.tolist() == [0, 0]
    assert len(found.scores) > 0


def test_noise__moves_each_filter_by_a_share_of_its_norm() -> None:
    noisy = with_noise(detector(), seed=1, length=0.1)
    for before, after in zip(detector().parameters(), noisy.parameters(), strict=True):
        if before.dim() < 2:
            assert torch.equal(before, after)
        else:
            moved, norm = ((each).flatten(1).norm(dim=1) for each in (after - before, before))
            assert torch.allclose(moved, 0.1 * norm, rtol=1e-3, atol=1e-6)


def test_probe__not_finite_is_an_error() -> None:
    broken = with_noise(detector(), seed=1)
    with torch.no_grad():
        next(broken.roi_heads.box_predictor.parameters())[0] = torch.nan
    with pytest.raises(NotFiniteError):
        Prober(broken, 0.3)(picture(), "a.png")


def test_names__key_the_draws() -> None:
    arguments: dict[str, Any] = {"operating_score": 0.05}
    first, second = (Prober(detector(), **arguments)(picture(), name).stability[0] for name in ("a.png", "b.png"))
    assert first != second
