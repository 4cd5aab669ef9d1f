from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.pretrain.config import Bases, Mask, Mixing, PretrainConfig, Reinforce, Released
from vision_core.config.loading import load_runs, replace
from vision_core.config.schema import Optim
from vision_core.errors import ConfigError
from vision_core.training.schedules import learning_rate


def test_defaults__are_the_released_recipe() -> None:
    assert Mask().model_dump() == {"grid": 64, "kernel": 13, "sigma": 6.0, "unlearned_concentration": 1.6}
    assert Bases().model_dump() == {"share": 0.9, "keep_rate": 0.99}
    assert Released().scale_classifier
    assert Mixing().model_dump() == {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0}
    assert (Reinforce().baseline_keep_rate, Reinforce().entropy_weight) == (0.9, 0.0)


def test_mask__even_kernel_is_refused_with_its_value() -> None:
    with pytest.raises(ValidationError, match="should be odd"):
        Mask(kernel=12)


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"sigma": 0.0}, {"unlearned_concentration": -1.0}])
def test_mask__impossible_value_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Mask.model_validate(wrong)


def runs(*words: str) -> dict[str, PretrainConfig]:
    found: Any = load_runs(PretrainConfig, None, ["data.root=images", *words])[""].expand()
    return dict(found)


def rates(optim: Optim, epochs: int, per_epoch: int = 7) -> list[float]:
    """The rate at the first and the last step of every epoch, which must be the same."""
    total = epochs * per_epoch
    found = [learning_rate(optim, step, total, per_epoch) for step in range(total)]
    assert found[::per_epoch] == found[per_epoch - 1 :: per_epoch]
    return found[::per_epoch]


def test_defaults__optimizers_and_stages_are_the_published_ones() -> None:
    found = runs()
    assert list(found) == ["pretrain", "finetune"]
    first, second = found["pretrain"], found["finetune"]
    for optim in (first.optim, first.policy_optim, second.optim):
        assert (optim.name, optim.momentum, optim.weight_decay, optim.decay_norms) == ("sgd", 0.9, 1e-4, True)
        assert optim.clip_norm == 0
    assert (first.policy, first.classifier, first.policy_input) == ("released", "resnet50", 224)
    assert [(each.train.epochs, each.train.batch_size, each.train.drop_last) for each in found.values()] == [
        (90, 256, True),
        (10, 256, True),
    ]
    assert (first.averaging.last_epochs, second.averaging.last_epochs) == (0, 3)


def test_rates__classifier_and_policy_of_the_first_stage() -> None:
    first = runs()["pretrain"]
    assert rates(first.optim, 90) == pytest.approx([0.1] * 30 + [0.01] * 30 + [0.001] * 30)
    policy = rates(first.policy_optim, 90)
    expected = [0.01, 0.00999695, 0.0075, 0.005, 3.045865e-6]
    assert [policy[epoch] for epoch in (0, 1, 30, 45, 89)] == pytest.approx(expected, rel=1e-6)


def test_rates__finetuning_warms_up_and_stays() -> None:
    published = [1e-5, 1.514286e-4, 2.928571e-4, 4.342857e-4, 5.757143e-4, 7.171429e-4, 8.585714e-4, 1e-3, 1e-3, 1e-3]
    optim = runs()["finetune"].optim
    assert rates(optim, 10) == pytest.approx(published, rel=1e-6)
    assert rates(optim, 40)[36:38] == pytest.approx([1e-3, 1e-4])


def test_expand__the_baseline_is_one_stage_and_a_mean_of_three_epochs() -> None:
    [baseline] = runs("policy=none").values()
    assert (baseline.averaging.last_epochs, baseline.is_masked) == (3, False)
    assert list(runs("policy=none", "then=[finetune]")) == ["pretrain", "finetune"]


def test_expand__transfer_has_its_own_data_and_starts_from_the_last_stage() -> None:
    found = runs("then=[finetune,transfer]", "transfer.data.root=others", "transfer.epochs=3")
    assert list(found) == ["pretrain", "finetune", "transfer-linear", "transfer-full"]
    last = found["transfer-full"]
    assert (str(last.data.root), last.source.run, last.train.epochs, last.train.drop_last) == (
        "others",
        "finetune",
        3,
        False,
    )
    assert last.transfer.parts == ("full",)
    assert runs("then=[transfer]", "transfer.data.root=others")["transfer-linear"].source.run == "pretrain"


def test_expand__a_stage_by_itself_has_the_settings_of_its_section() -> None:
    [alone] = runs("method=finetune", "finetune.epochs=4", "optim.momentum=0.5").values()
    assert (alone.train.epochs, alone.optim.lr, alone.optim.momentum) == (4, 1e-3, 0.5)
    assert alone.averaging.last_epochs == 3
    assert list(runs("method=transfer")) == ["linear", "full"]
    assert list(runs("method=transfer", "transfer.parts=[full]")) == [""]


def test_config__transfer_without_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"transfer\.data\.root is empty"):
        runs("then=[transfer]")


def test_config__masks_are_measured_where_there_are_any() -> None:
    assert runs("policy=none", "mask.grid=500")
    assert runs("method=finetune", "mask.grid=500")
    with pytest.raises(ConfigError, match=r"mask\.grid '500' is finer than the image of 224 pixels"):
        runs("mask.grid=500")


def test_expand__stages_after_finetuning() -> None:
    found = runs("method=finetune", "then=[transfer]", "transfer.data.root=others", "transfer.parts=[linear]")
    assert list(found) == ["finetune", "transfer-linear"]
    assert found["transfer-linear"].source.run == "finetune"


@pytest.mark.parametrize("words", [["method=transfer", "then=[finetune]"], ["method=finetune", "then=[finetune]"]])
def test_config__a_stage_that_cannot_follow_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"then 'finetune' cannot follow the stage"):
        runs(*words)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("alarm.highest_entropy=0.1", r"alarm\.highest_entropy: should be less than or equal to 0"),
        ("alarm.lowest_entropy=-1e-6", r"lowest_entropy should be below highest_entropy '-1e-06', got '-1e-06'"),
        ("alarm.highest_entropy=-3", r"lowest_entropy should be below highest_entropy '-3', got '-2'"),
    ],
)
def test_alarm__bounds_that_every_policy_breaks_are_refused(word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        runs(word)
    assert runs("alarm.lowest_entropy=-3", "alarm.highest_entropy=0")


@pytest.mark.parametrize("word", ["transfer.data.root=others", "transfer.data.image_px=96"])
def test_expand__a_transfer_by_itself_takes_its_images_from_data(word: str) -> None:
    key, _, value = word.partition("=")
    asked = rf"{key} '{value}' is for a transfer that follows another stage \(then\)\. With method=transfer, set data\."
    with pytest.raises(ConfigError, match=asked):
        load_runs(PretrainConfig, None, ["method=transfer", word])[""].expand()
    assert list(runs("method=transfer", "data.image_px=96")) == ["linear", "full"]


def test_expand__the_settings_of_a_transfers_run_can_be_run_again() -> None:
    last = runs("then=[transfer]", "transfer.data.root=others", "transfer.data.image_px=96")["transfer-full"]
    again = replace(last, {"data.root": "elsewhere"})
    assert str(dict(again.expand())[""].data.root) == "elsewhere"


def test_config__one_image_a_step_where_no_norm_looks_at_it() -> None:
    assert runs("classifier=vit_small", "policy=none", "train.batch_size=1")
    assert runs("method=transfer", "transfer.parts=[linear]", "train.batch_size=1")
    for more in (["classifier=vit_small"], ["policy=none"], ["method=finetune", "classifier=vit_small"]):
        with pytest.raises(ConfigError, match="batch normalisation needs at least 2 images"):
            runs(*more, "train.batch_size=1", "finetune.batch_size=1")
