"""The defaults are MarvelOVD as released; profile and method change what they should and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.ovd.config import OvdConfig
from tests.pipelines.ovd.data.test_ovd_coco import published
from vision_core.config.loading import load
from vision_core.errors import ConfigError
from vision_core.training.schedules import learning_rate

_CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "ovd"
_LADDER = ("weak_strong", "stratified", "mining", "reweighting")


def _differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in first.items():
        if isinstance(value, dict):
            found |= _differences(value, second[name], f"{prefix}{name}.")
        elif value != second[name]:
            found[prefix + name] = value, second[name]
    return found


def _of(*words: str) -> dict[str, Any]:
    return load(OvdConfig, None, words).model_dump()


def test_defaults__are_the_program() -> None:
    config = OvdConfig()
    marvel = config.marvel
    assert (marvel.burn_in_last_iter, marvel.theta_burn, marvel.clip_weight, marvel.delta) == (500, 0.9, 0.5, 0.9)
    assert (marvel.score_weight, marvel.weight_scale, marvel.roi_iou) == (0.5, 2.0, 0.5)
    assert all(getattr(marvel, name) for name in _LADDER)
    assert not (marvel.legacy_base_from_confidence or marvel.add_novelty or marvel.min_novelty)
    assert (config.candidates.threshold, config.candidates.nms, config.candidates.fusion) == (0.5, 0.6, "clip")
    assert (config.proposals.count, config.proposals.refinements, config.proposals.rpn_nms) == (100, 10, 0.3)
    assert (config.image_text.crop_scales, config.image_text.temperature) == ((1.0, 1.5), 0.01)
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.clip_norm) == (0.9, 1e-4, 0)


def test_profile__paper_differs_by_named_switches() -> None:
    assert _differences(_of(), _of("profile=paper")) == {
        "profile": ("reference", "paper"),
        "classifier.background": ("zero", "learned"),
        "marvel.theta_burn": (0.9, 0.8),
        "marvel.burn_in_last_iter": (500, 499),
        "marvel.novelty_norm": ("all", "candidates"),
        "marvel.reweight_in_burn_in": (False, True),
        "marvel.weight_box_loss": (False, True),
        "strong_view.channel_order": ("bgr_as_rgb", "rgb"),
        "proposals.one_ratio": (True, False),
    }


def test_method__the_baseline_is_the_foot_of_the_ladder() -> None:
    assert _differences(_of(), _of("method=vl_plm")) == {
        "method": ("marvel", "vl_plm"),
        **{f"marvel.{name}": (True, False) for name in _LADDER},
        "marvel.box_loss_on": ("all", "base"),
        "candidates.fusion": ("clip", "mean"),
        "candidates.threshold": (0.5, 0.8),
    }


def test_given_keys__win_over_profile_and_method() -> None:
    config = load(
        OvdConfig, None, ["method=vl_plm", "profile=paper", "marvel.weak_strong=true", "marvel.theta_burn=.7"]
    )
    assert config.marvel.weak_strong
    assert not config.marvel.stratified
    assert (config.marvel.theta_burn, config.marvel.novelty_norm) == (0.7, "candidates")


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (0, 2e-5),
        (1, 3.998e-5),
        (250, 5.015e-3),
        (500, 1.001e-2),
        (999, 1.998002e-2),
        (1000, 2e-2),
        (59_999, 2e-2),
        (60_000, 2e-3),
        (79_999, 2e-3),
        (80_000, 2e-4),
    ],
)
def test_learning_rate__warm_up_and_two_falls(iteration: int, rate: float) -> None:
    assert learning_rate(OvdConfig().optim, iteration, 90_001) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("marvel.detla=0.9", "did you mean 'delta'"),
        ("marvel.delta=1.2", "less than or equal to 1"),
        ("image_text.crop_scales=[]", "at least 1 item"),
        ("method=detic", "'proposals', 'vl_plm' or 'marvel'"),
    ],
)
def test_load__refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(OvdConfig, None, [word])
    assert message in caught.value.lines()


@pytest.mark.parametrize("name", ["coco_marvel", "coco_marvel_paper", "coco_vl_plm", "coco_proposals"])
def test_published__classes_are_those_of_ovd_coco(name: str) -> None:
    config = load(OvdConfig, _CONFIGS / f"{name}.yaml")
    split = published()
    assert (config.data.classes, config.data.novel) == (split.classes, split.novel)
    assert (config.train.batch_size, config.optim.lr) == (16, 0.02)
    assert (config.detector.backbone, config.detector.neck, config.detector.roi_batch) == ("r50", "fpn", 512)
    assert (config.profile == "paper") is (name == "coco_marvel_paper")
