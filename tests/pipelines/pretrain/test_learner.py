"""The training steps as the loop calls them: numbers, gradients, isolation, and what happens when a policy fails."""

import copy
import math
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.learner import CleanLearner, HeadLearner, PretrainLearner, StepSettings
from pipelines.pretrain.noise_mask.mask import blend
from pipelines.pretrain.noise_mask.objectives import image_costs, mean_log_total_density
from pipelines.pretrain.noise_mask.policy import NoisePolicy
from tests.pipelines.pretrain.closed_form import Objective, closed_form, numpy
from tests.pipelines.pretrain.toy import (
    BATCH,
    CLASSES,
    GOAL,
    PIXELS,
    ImageItems,
    image_batch,
    make_learner,
    settings,
    small_classifier,
)
from vision_core.randomness import key
from vision_core.runs.folder import RunFolder
from vision_core.training.learner import Prepared
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

RUNTIME = Runtime(device=torch.device("cpu"))


def masked(policy: str, **changes: object) -> PretrainLearner:
    return cast(PretrainLearner, make_learner(settings(policy=policy, **changes)))


def noise_of(learner: PretrainLearner) -> NoisePolicy:
    assert learner.noise is not None
    return learner.noise


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def linear() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * PIXELS**2, CLASSES))


@pytest.mark.parametrize("objective", ["released", "reinforce"])
def test_step__loss_and_both_gradients_in_closed_form(objective: Objective) -> None:
    learner = cast(PretrainLearner, make_learner(settings(policy=objective), linear()).double())
    batch = image_batch(dtype=torch.float64)
    reference = copy.deepcopy(learner)
    noise = noise_of(reference)
    heads = noise.network(batch.images)
    cells = noise.bases(heads).clamped()
    sample = cells.sample([key("mask", index, 0, 0) for index in batch.indices.tolist()])
    hidden = blend(batch.images, reference.mask(sample))
    expected = closed_form(objective, reference.classifier(hidden), batch.labels, (cells, sample))
    policy_gradients = torch.autograd.grad(
        [heads.log_alpha, heads.log_beta],
        list(noise.network.parameters()),
        [torch.from_numpy(expected.log_alpha), torch.from_numpy(expected.log_beta)],
    )

    losses = learner(batch)
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()

    assert loss.item() == pytest.approx(expected.loss, rel=1e-10)
    weight = expected.logits.T @ numpy(hidden.flatten(1))
    assert numpy(gradient(learner.classifier.get_parameter("1.weight"))) == pytest.approx(weight, rel=1e-9, abs=1e-12)
    for parameter, each in zip(noise_of(learner).network.parameters(), policy_gradients, strict=True):
        torch.testing.assert_close(gradient(parameter), each, rtol=1e-8, atol=1e-12)


def test_step__heads_are_evaluated_once_and_the_bases_move_after_they_were_used() -> None:
    learner = masked("released")
    noise = noise_of(learner)
    before = noise.bases.log_alpha.clone()
    heads = copy.deepcopy(noise.network)(image_batch().images)
    calls: list[int] = []
    noise.network.alpha.register_forward_hook(lambda *_: calls.append(1))
    learner(image_batch())
    assert calls == [1]
    assert int(cast(Tensor, noise.network.alpha[1].num_batches_tracked)) == 1
    torch.testing.assert_close(noise.bases.log_alpha, 0.99 * before + 0.01 * heads.log_alpha.mean(dim=0, keepdim=True))


def test_step__masks_follow_from_seed_step_and_image_not_from_the_place_in_the_batch() -> None:
    learner = masked("unlearned")
    seen: list[Tensor] = []
    learner.mask.register_forward_hook(lambda _module, _given, masks: seen.append(masks))
    batch = image_batch()
    learner(batch)
    turned = [2, 0, 3, 1]
    learner(type(batch)(images=batch.images[turned], labels=batch.labels[turned], indices=torch.tensor(turned)))
    assert torch.equal(seen[1], seen[0][turned])
    learner.step = 1
    learner(batch)
    assert not torch.isclose(seen[2], seen[0]).all(dim=(1, 2, 3)).any()


def test_step__unlearned_is_the_plain_cross_entropy_under_the_fixed_beta() -> None:
    learner = masked("unlearned")
    assert learner.noise is None
    losses = learner(image_batch())
    assert list(losses) == ["loss_classifier"]
    assert [part.name for part in learner.trained(settings().optim)] == ["classifier"]


def test_step__clean_is_bit_for_bit_plain_training() -> None:
    learner, network, batch = make_learner(settings(policy="none")), small_classifier(), image_batch()
    assert type(learner) is CleanLearner
    learner(batch)["loss_classifier"].backward()
    image_costs(network(batch.images), batch.labels).mean().backward()
    for ours, plain in zip(learner.classifier.parameters(), network.parameters(), strict=True):
        assert torch.equal(gradient(ours), gradient(plain))


def test_step__mask_of_ones_is_bit_for_bit_clean_training() -> None:
    batch = image_batch()
    clean, hiding = make_learner(settings(policy="none")), masked("reinforce")
    hiding.mask.register_forward_hook(lambda _module, _given, masks: torch.ones_like(masks))
    clean(batch)["loss_classifier"].backward()
    hiding(batch)["loss_classifier"].backward()
    for ours, plain in zip(hiding.classifier.parameters(), clean.classifier.parameters(), strict=True):
        assert torch.equal(gradient(ours), gradient(plain))


def test_trained__classifier_and_policy_have_their_own_optimizer_and_nothing_else_trains() -> None:
    learner = masked("released")
    parts = {part.name: part for part in learner.trained(settings().optim)}
    assert (parts["policy"].optim.lr, parts["policy"].optim.schedule) == (0.01, "cosine")
    listed = [parameter for part in parts.values() for parameter in part.module.parameters()]
    assert {id(each) for each in listed} == {id(each) for each in learner.parameters() if each.requires_grad}


@pytest.mark.parametrize(
    "changes",
    [{"mixing.mixup": 0.4}, {"mixing.cutmix": 1.0}, {"mixing.label_smoothing": 0.2}],
    ids=["mixup", "cutmix", "label smoothing"],
)
@pytest.mark.parametrize("policy", ["none", "released", "reinforce"])
def test_step__mixing_acts(policy: str, changes: dict[str, float]) -> None:
    plain = make_learner(settings(policy=policy))(image_batch())
    mixed = make_learner(settings(policy=policy, **changes))(image_batch())
    assert mixed["loss_classifier"].item() != pytest.approx(plain["loss_classifier"].item(), rel=1e-4)


def test_step__several_labels_an_image_are_questions_of_their_own() -> None:
    batch = image_batch()
    many = torch.arange(BATCH * CLASSES).reshape(BATCH, CLASSES) % 2
    learner = make_learner(settings(policy="none"))
    loss = learner(type(batch)(images=batch.images, labels=many, indices=batch.indices))["loss_classifier"]
    scores = small_classifier()(batch.images).sigmoid()
    assert many.dtype == torch.int64
    expected = -(many * scores.log() + (1 - many) * (1 - scores).log()).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("policy", ["released", "reinforce"])
def test_step__in_half_precision_is_near_the_one_in_full(policy: str) -> None:
    batch = image_batch()
    full = masked(policy)(batch)
    learner = masked(policy)
    with torch.autocast("cpu", torch.bfloat16):
        half = learner(batch)
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(loss.item(), rel=0.03, abs=0.02)
    assert noise_of(learner).bases.log_alpha.dtype == torch.float32


def spoil_heads(learner: PretrainLearner) -> None:
    with torch.no_grad():
        cast(nn.Linear, noise_of(learner).network.alpha[-1]).bias[0] = math.nan


def spoil_reward(learner: PretrainLearner) -> None:
    learner.baseline.register_forward_hook(lambda _module, _given, expected: expected * math.nan)


def collapse(learner: PretrainLearner) -> None:
    noise_of(learner).bases.log_alpha.fill_(7.0)
    noise_of(learner).bases.log_beta.fill_(7.0)


def flatten(learner: PretrainLearner) -> None:
    noise = noise_of(learner)
    for head in (noise.network.alpha, noise.network.beta):
        nn.init.zeros_(cast(nn.Linear, head[-1]).weight)
        nn.init.zeros_(cast(nn.Linear, head[-1]).bias)
    noise.bases.log_alpha.zero_()
    noise.bases.log_beta.zero_()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (spoil_heads, "its outputs are not finite"),
        (spoil_reward, "its reward or loss is not finite"),
        (collapse, "its entropy fell to"),
        (flatten, "its entropy rose to"),
    ],
)
def test_alarm__a_failed_policy_stops_and_the_classifier_goes_on(
    fault: "type[object]", told: str, tmp_path: Path
) -> None:
    learner = masked("reinforce")
    fault(learner)  # type: ignore[call-arg]
    policy = copy.deepcopy(noise_of(learner).network).state_dict()
    classifier = copy.deepcopy(learner.classifier).state_dict()
    prepared = Prepared(learner=learner, items=ImageItems(8))
    fit(prepared, settings(policy="reinforce"), RUNTIME, RunFolder(tmp_path))
    assert learner.alarm.is_stopped
    [note] = learner.notes
    assert note.startswith("ALARM: the policy was stopped at step 0: ") and told in note
    assert all(each.isfinite().all() for each in learner.classifier.state_dict().values())
    assert not torch.equal(learner.classifier.state_dict()["0.weight"], classifier["0.weight"])
    for name, parameter in noise_of(learner).network.named_parameters():
        assert torch.equal(parameter.nan_to_num(), policy[name].nan_to_num())


@pytest.mark.parametrize("policy", ["released", "reinforce"])
def test_alarm__is_remembered_by_a_checkpoint(policy: str) -> None:
    learner, again = masked(policy), masked(policy)
    collapse(learner)
    learner(image_batch())
    again.load_state_dict(learner.state_dict(), strict=True)
    assert again.alarm.is_stopped
    assert list(again(image_batch())) == ["loss_classifier"]


def test_alarm__after_it_the_released_objective_keeps_its_scale() -> None:
    learner = masked("released", **{"mask.grid": 32})
    collapse(learner)
    losses = learner(image_batch())
    cost = masked("unlearned", **{"mask.grid": 32})(image_batch())["loss_classifier"]
    assert losses["loss_classifier"].item() == pytest.approx(cost.item() * math.log(32**2), rel=0.05)


def test_alarm__a_classifier_that_diverges_is_not_the_policys_fault_alone() -> None:
    learner = masked("reinforce")
    with torch.no_grad():
        learner.classifier.get_parameter("4.bias")[0] = math.nan
    assert not learner(image_batch())["loss_classifier"].isfinite()


@pytest.mark.parametrize("policy", ["released", "reinforce"])
def test_alarm__a_sound_policy_trains_without(policy: str, tmp_path: Path) -> None:
    learner = masked(policy)
    fit(Prepared(learner=learner, items=ImageItems(12)), settings(policy=policy), RUNTIME, RunFolder(tmp_path))
    assert not learner.notes
    assert -2 < learner.metrics["policy_entropy"] < 0


def test_freeze_norms__no_statistic_moves_while_weights_do() -> None:
    learner = masked("reinforce", freeze_norms=True).train()
    before = copy.deepcopy(learner.state_dict())
    torch.stack(list(learner(image_batch()).values())).sum().backward()
    after = learner.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "running" in name or "tracked" in name)
    assert gradient(learner.classifier.get_parameter("1.weight")).abs().sum() > 0


def test_head__alone_trains_and_the_features_are_those_of_inference() -> None:
    network = small_classifier()
    learner = HeadLearner(network, GOAL, "4", StepSettings(is_selected=True)).train()
    before = copy.deepcopy(network.state_dict())
    learner(image_batch())["loss_classifier"].backward()
    assert {name for name, each in network.named_parameters() if each.grad is not None} == {"4.weight", "4.bias"}
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    assert learner.is_selected


def run(folder: Path, config: PretrainConfig, stop_at: int | None = None) -> CleanLearner:
    learner = make_learner(config)
    folder.mkdir(exist_ok=True)
    if stop_at is not None:
        learner.register_forward_hook(_stop_in(stop_at))
    fit(Prepared(learner=learner, items=ImageItems(9)), config, RUNTIME, RunFolder(folder))
    return learner


class Killed(Exception):
    pass


def _stop_in(step: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def hook(learner: CleanLearner, _given: object, _losses: object) -> None:
        if learner.step == step:
            raise Killed

    return hook


@pytest.mark.parametrize(
    ("policy", "changes"),
    [
        pytest.param("released", {}, marks=pytest.mark.slow),
        ("reinforce", {"reinforce.baseline": "ema"}),
        ("none", {"averaging.last_epochs": 2}),
        ("none", {"mixing.mixup": 0.4, "mixing.cutmix": 1.0}),
    ],
)
@pytest.mark.parametrize(
    "stop_at", [pytest.param(1, marks=pytest.mark.slow), 4], ids=["in the first epoch", "in the second"]
)
def test_resume__in_the_middle_of_a_stage_ends_with_the_same_bits(
    policy: str, changes: dict[str, object], stop_at: int, tmp_path: Path
) -> None:
    config = settings(policy=policy, **changes, **{"train.epochs": 2, "train.batch_size": 3, "train.save_every": 1})
    whole = run(tmp_path / "whole", config)
    with pytest.raises(Killed):
        run(tmp_path / "parts", config, stop_at)
    resumed = run(tmp_path / "parts", config)
    expected, found = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name].nan_to_num(), found[name].nan_to_num()) for name in expected)
    product, again = whole.product().state_dict(), resumed.product().state_dict()
    assert all(torch.equal(product[name], again[name]) for name in product)


def test_checkpoint__holds_policy_bases_baseline_alarm_and_history() -> None:
    names = masked("reinforce").state_dict().keys()
    assert {
        "noise.network.extractor.conv1.0.weight",
        "noise.bases.log_alpha",
        "noise.bases.log_beta",
        "baseline.average",
        "baseline.has_begun",
        "alarm._extra_state",
        "history.log_alpha",
    } <= names


def test_density__of_the_unlearned_mask_at_the_published_grid_is_as_specified() -> None:
    from pipelines.pretrain.noise_mask.beta import unlearned_cells

    cells = unlearned_cells(1.6, torch.zeros(8, 1), 64 * 64)
    assert mean_log_total_density(cells.log_density(cells.sample(range(8)))).item() == pytest.approx(8.417, rel=0.02)
