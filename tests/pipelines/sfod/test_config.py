"""The defaults are the released experiment, and keys are refused by name."""

from pathlib import Path

import pytest

from pipelines.sfod.config import SfodConfig
from vision_core.config.loading import load, load_runs, replace
from vision_core.errors import ConfigError, UsageError
from vision_core.runs.planned import Runs, refuse_data_without_root


def test_defaults__are_those_of_the_released_lpld() -> None:
    config = SfodConfig()
    assert (config.method, config.pseudo_labels.threshold, config.pseudo_labels.skip_empty_hpl) == ("lpld", 0.7, False)
    assert (config.teacher.keep_rate, config.teacher.every, config.train.epochs) == (0.75, "epoch", 10)
    assert (config.train.batch_size, config.optim.clip_norm) == (1, 0)
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (1e-3, 0.9, 1e-4)
    assert config.optim.schedule == "constant"
    lpld = config.lpld
    assert (lpld.iou, lpld.foreground, lpld.background, lpld.epsilon, lpld.weight) == (0.4, 0.9, 0.99, 1e-9, 0.1)
    assert not config.data.filter_empty


@pytest.mark.parametrize("method", ["wscol_core", "wsco_full", "wsco_full+lpld"])
def test_defaults__of_wscol_are_those_released(method: str) -> None:
    config = load(SfodConfig, None, [f"method={method}"])
    labels, wscol = config.pseudo_labels, config.wscol
    assert (labels.threshold, labels.skip_empty_hpl, labels.append_boxes) == (0.9, True, True)
    assert (config.teacher.keep_rate, config.teacher.every, config.train.epochs) == (0.9, "epoch", 20)
    assert wscol is not None
    assert (wscol.consistency_weight, wscol.contrast_weight, wscol.temperature, wscol.dim) == (1.0, 0.5, 0.07, 512)
    assert (wscol.bank, wscol.prototype_rate, wscol.steps, wscol.warm_steps, wscol.warm_epochs) == (10, 0.4, 4, 2, 1)
    assert (wscol.distance, wscol.variance, wscol.objectness, wscol.alpha) == ("euclid", 20, 0.5, 0)
    extra = (wscol.hard_positives, wscol.instance_weight, wscol.gradient_weight)
    assert extra == ((False, 0, 0) if method == "wscol_core" else (True, 0.01, 0.1))


def test_defaults__given_keys_and_the_preset_win_over_those_of_a_method() -> None:
    config = load(SfodConfig, None, ["method=wscol_core", "preset=small", "wscol.gradient_weight=0.2"])
    assert (config.pseudo_labels.threshold, config.pseudo_labels.skip_empty_hpl) == (0.6, True)
    assert (config.teacher.keep_rate, config.train.max_steps) == (0.99, 90)
    assert config.wscol is not None
    assert (config.wscol.gradient_weight, config.wscol.instance_weight) == (0.2, 0)
    changed = replace(SfodConfig(), {"method": "wscol_core"})
    assert changed.wscol is not None
    assert not changed.wscol.hard_positives


def test_wscol__of_other_methods_is_none_as_in_checkpoints_from_before() -> None:
    assert SfodConfig().wscol is None


def test_options_of_our_own__are_off() -> None:
    lpld = SfodConfig().lpld
    assert (lpld.lpl_without_hpl, lpld.lpl_nms_iou, lpld.clip_decoded_boxes) == (False, None, False)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("pseudo_labels.thresold=0.5", "did you mean 'threshold'"),
        ("pseudo_labels.threshold=-1", "should be a number from 0 to 1, or auto, got -1"),
        ("teacher.keep_rate=1.7", "less than or equal to 1, got 1.7"),
        ("lpld.epsilon=0", "greater than 0, got 0"),
        ("lpld.weight=.nan", "finite number, got nan"),
        ("method=wscol", "'wscol_core', 'wsco_full', 'wsco_full+lpld' or 'oracle', got 'wscol'"),
    ],
)
def test_load__refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(SfodConfig, None, [word])
    assert message in caught.value.lines()
    assert "command line" in caught.value.lines()


def test_load__all_problems_at_once(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("lpld: {iou: high}\nteacher: {keep_rate: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load(SfodConfig, path)
    assert len(caught.value.problems) == 2


def test_preset__small_sets_defaults_that_given_keys_replace() -> None:
    small = load(SfodConfig, None, ["preset=small", "train.max_steps=7"])
    assert (small.train.max_steps, small.train.batch_size, small.optim.clip_norm) == (7, 2, 5)
    assert (small.teacher.every, small.teacher.keep_rate, small.pseudo_labels.threshold) == ("step", 0.99, 0.6)
    assert small.lpld == SfodConfig().lpld
    assert load(SfodConfig, None, []) == SfodConfig()


@pytest.mark.parametrize("name", ["demo.yaml", "demo_source.yaml"])
def test_demo__its_settings_name_no_data_of_a_person(name: str) -> None:
    runs: Runs = {**load_runs(SfodConfig, Path(__file__).resolve().parents[3] / "configs" / "sfod" / name)}
    refuse_data_without_root(runs, [])
    other: Runs = {name: replace(each, {"data.format": "coco"}) for name, each in runs.items()}
    with pytest.raises(UsageError, match=r"data\.root is missing"):
        refuse_data_without_root(other, [])
