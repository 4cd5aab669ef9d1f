"""The defaults are the released experiment, and keys are refused by name."""

from pathlib import Path

import pytest

from pipelines.sfod.config import SfodConfig
from vision_core.config.loading import load
from vision_core.errors import ConfigError


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
        ("method=wscol", "'source', 'bn', 'mt' or 'lpld', got 'wscol'"),
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
