"""Steps of MHIM against the numbers of the specification (checks C11 and C12), then its properties (C16)."""

import copy
import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pipelines.wsi.config import (
    Consistency,
    EmbeddingSettings,
    FollowingTeacher,
    Masking,
    MhimV1,
    MhimV2,
    ModelSettings,
    Recycling,
    Scores,
    TransmilSettings,
)
from pipelines.wsi.mhim.masking import keep_instances
from pipelines.wsi.mhim.recycling import split
from pipelines.wsi.mhim.student_teacher import (
    MHIM,
    consistency,
    cosine_between,
    high_share,
    keep_rate,
    mhim_losses,
    start,
)
from pipelines.wsi.models.abmil import ABMIL
from pipelines.wsi.models.aggregation import cross_entropy
from pipelines.wsi.models.build import build_model
from tests.pipelines.wsi.waves import BAG, assert_near, small_abmil, wave
from vision_core.training.mean_teacher import MeanTeacher

Name = Literal["abmil", "dsmil", "transmil"]
NAMES: tuple[Name, ...] = ("abmil", "dsmil", "transmil")
LABEL = torch.tensor(1)
UNMASKED = Masking(random=0.0, low=0.0, high=0.0)

STUDENT, TEACHER = wave(1, 6, a=0.7, b=0.1), wave(1, 6, a=1.3, b=0.4)


def _model(name: Name, recycling: Recycling | None = None) -> MHIM:
    settings = ModelSettings(
        name=name, embedding=EmbeddingSettings(dim=32), transmil=TransmilSettings(heads=2, dropout=0.1)
    )
    return MHIM(build_model(settings, feature_dim=6, num_classes=3), recycling)


def _step_v1(student: MHIM, teacher: nn.Module, bag: Tensor, settings: MhimV1) -> dict[str, Tensor]:
    assert isinstance(teacher, MHIM)
    taught = teacher.teach(bag, settings.scores)
    kept = keep_instances(taught.scores, settings.masking, settings.masking.high)
    return mhim_losses(student.aggregator, student.learn(bag, kept), taught, LABEL, settings.consistency)


def _step_v2(
    student: MHIM, teacher: nn.Module, bag: Tensor, settings: MhimV2
) -> tuple[dict[str, Tensor], Tensor | None]:
    assert isinstance(teacher, MHIM)
    taught = teacher.teach(bag, settings.scores)
    kept = keep_instances(taught.scores, settings.masking, settings.masking.high)
    aggregated, tokens = student.learn_recycling(bag, *split(kept, settings.recycling))
    return mhim_losses(student.aggregator, aggregated, taught, LABEL, settings.consistency), tokens


def test_teacher__moving_average() -> None:
    student = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(student.weight)
    teacher = MeanTeacher(student)
    nn.init.constant_(student.weight, 0.2)
    found = {}
    for step in range(1, 1001):
        teacher.update(student, 0.9997)
        found[step] = float(teacher.module.get_parameter("weight"))
    assert [found[step] for step in (1, 10, 1000)] == pytest.approx([0.99976, 0.997603237, 0.792627902], abs=1e-9)


def test_step_v1__end_to_end() -> None:
    student = MHIM(small_abmil("gelu"))
    taught = copy.deepcopy(student).teach(BAG, Scores())
    kept = keep_instances(taught.scores, UNMASKED.model_copy(update={"high_pool": 1.0}), high=0.25)
    assert kept.tolist() == [1, 2, 3]
    aggregated = student.learn(BAG, kept)
    losses = mhim_losses(student.aggregator, aggregated, taught, LABEL, Consistency(weight=0.5, temperature=0.1))
    assert_near(aggregated.feature, [[-0.009755, 0.139167, 0.228572, 0.465271, 0.359235]])
    assert_near(aggregated.logits, [1.040377, -0.656755])
    assert_near(losses["loss_cls"], 1.865362)
    assert_near(losses["loss_consistency"], 1.719125 / 2)
    total = torch.stack(list(losses.values())).sum()
    assert_near(total, 2.724925)
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-4, weight_decay=1e-5)
    total.backward()
    _check_gradients(student)
    optimizer.step()
    rows = [
        [0.644418, 0.904212, 0.999742, 0.913213, 0.660381],
        [0.287278, -0.137766, -0.538091, -0.840409, -0.989680],
    ]
    assert_near(student.get_parameter("aggregator.classifier.weight"), rows)


def _check_gradients(student: MHIM) -> None:
    gradients = {name: each.grad for name, each in student.named_parameters() if each.grad is not None}
    row = torch.tensor([-0.008244, 0.117618, 0.193180, 0.393229, 0.303611])
    assert_near(gradients["aggregator.classifier.weight"], [row.tolist(), (-row).tolist()])
    assert_near(gradients["aggregator.attention.score.weight"], [[0.154823, 0, 0.373453, 0]])
    assert_near(gradients["aggregator.embedding.linear.weight"].norm(), 2.223080)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_step_v1__small_bags(name: Name, count: int) -> None:
    student = _model(name)
    teacher = MeanTeacher(student)
    losses = _step_v1(student, teacher.module, torch.randn(count, 6), MhimV1(masking=Masking(random=0.5, low=0.2)))
    assert set(losses) == {"loss_cls", "loss_consistency"}
    _check_finite(student, losses)
    assert all(each.grad is None for each in teacher.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("keep", [0.0, 0.2, 1.0])
def test_step_v2__small_bags(name: Name, count: int, keep: float) -> None:
    settings = MhimV2(recycling=Recycling(keep=keep))
    student = _model(name, settings.recycling)
    teacher = MeanTeacher(student)
    losses, tokens = _step_v2(student, teacher.module, torch.randn(count, 6), settings)
    _check_finite(student, losses)
    assert (tokens is None) == (keep == 1)
    assert tokens is None or (tokens.shape == (5, 32) and not tokens.requires_grad)
    assert all(each.grad is None for each in teacher.parameters())


def _check_finite(student: MHIM, losses: dict[str, Tensor]) -> None:
    torch.stack(list(losses.values())).sum().backward()
    assert all(each.grad is None or bool(each.grad.isfinite().all()) for each in student.parameters())
    assert student.aggregator.embedding.linear.weight.grad is not None


@pytest.mark.parametrize("name", NAMES)
def test_step_v1__without_masks_and_consistency_is_plain_training_bit_for_bit(name: Name) -> None:
    student, bag = _model(name), torch.randn(20, 6)
    plain, teacher = copy.deepcopy(student.aggregator), MeanTeacher(student)
    torch.manual_seed(1)
    settings = MhimV1(masking=UNMASKED, consistency=Consistency(weight=0.0))
    losses = _step_v1(student, teacher.module, bag, settings)
    losses["loss_cls"].backward()
    torch.manual_seed(1)
    plain.loss(plain.aggregate(plain.embedding(bag)), LABEL).backward()
    assert set(losses) == {"loss_cls"}
    for ours, theirs in zip(student.aggregator.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("recycling", [None, Recycling(keep=0.5)])
def test_training_step__a_few_lines_without_a_task(recycling: Recycling | None) -> None:
    student = MHIM(ABMIL(in_dim=6, num_classes=2, embed_dim=32), recycling)
    teacher = MeanTeacher(student)
    optimizer = torch.optim.Adam([each for each in student.parameters() if each.requires_grad])
    before = copy.deepcopy(teacher.module.state_dict())
    step = student.training_step(torch.randn(40, 6), LABEL, teacher)
    sum(step.losses.values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    if student.recycler is not None and step.tokens is not None:
        student.recycler.follow(step.tokens, 0.9)
    teacher.update(student, keep_rate=0.5)
    assert set(step.losses) == {"loss_cls", "loss_consistency"}
    assert not recycling or len(step.kept) == 40 - math.ceil(40 * 0.03)
    assert (step.tokens is None) == (recycling is None)
    for name, entry in teacher.module.state_dict().items():
        torch.testing.assert_close(entry, (before[name] + student.state_dict()[name]) / 2)


@pytest.mark.parametrize("profile", [MhimV1(), MhimV2()])
def test_training_step__equals_its_parts(profile: MhimV1 | MhimV2) -> None:
    recycling = profile.recycling if isinstance(profile, MhimV2) else None
    student, bag = _model("transmil", recycling), torch.randn(40, 6)
    teacher = MeanTeacher(student)
    torch.manual_seed(1)
    found = student.training_step(bag, LABEL, teacher, profile)
    torch.manual_seed(1)
    if isinstance(profile, MhimV2):
        expected, tokens = _step_v2(student, teacher.module, bag, profile)
        assert found.tokens is not None
        assert tokens is not None
        assert torch.equal(found.tokens, tokens)
    else:
        expected = _step_v1(student, teacher.module, bag, profile)
    assert all(torch.equal(found.losses[name], loss) for name, loss in expected.items())


def test_training_step__share_of_the_highest_follows_a_schedule() -> None:
    student = _model("abmil")
    profile = MhimV1(masking=UNMASKED.model_copy(update={"high_pool": 1.0}))
    for high, kept in ((0.5, 20), (0.25, 30), (0.0, 40)):
        step = student.training_step(torch.randn(40, 6), LABEL, MeanTeacher(student), profile, high)
        assert len(step.kept) == kept


@pytest.mark.parametrize("name", NAMES)
def test_forward__trained_v2_is_the_plain_network(name: Name) -> None:
    student, bag = _model(name, Recycling()).eval(), torch.randn(20, 6)
    plain = _model(name).aggregator.eval()
    plain.load_state_dict(student.aggregator.state_dict())
    assert torch.equal(student(bag), plain(bag))


def test_forward__recycling_at_test_adds_tokens() -> None:
    student, bag = _model("abmil", Recycling(at_test=True)).eval(), torch.randn(20, 6)
    assert not torch.allclose(student(bag), student.aggregator(bag))
    assert float(student.probabilities(bag).sum().detach()) == pytest.approx(1)


def test_learn_recycling__tiles_then_tokens() -> None:
    student, bag = _model("transmil", Recycling()).eval(), torch.randn(9, 6)
    assert student.recycler is not None
    tiles, recycled = torch.tensor([4, 1, 7]), torch.tensor([0, 2, 3])
    embedded = student.aggregator.embedding(bag)
    expected = torch.cat([embedded[tiles], student.recycler(embedded[recycled])])
    found, _ = student.learn_recycling(bag, tiles, recycled)
    torch.testing.assert_close(found.logits, student.aggregator.aggregate(expected).logits)


@pytest.mark.parametrize("share_embedding", [True, False])
def test_start__teacher_gets_all_and_student_its_embedding(share_embedding: bool) -> None:
    student, teacher, baseline = _model("abmil"), _model("abmil"), _model("abmil").aggregator
    start(student, teacher, baseline.state_dict(), share_embedding=share_embedding)
    same = {
        name: torch.equal(entry, baseline.state_dict()[name]) for name, entry in student.aggregator.state_dict().items()
    }
    assert all(
        torch.equal(entry, baseline.state_dict()[name]) for name, entry in teacher.aggregator.state_dict().items()
    )
    assert same["embedding.linear.weight"] is share_embedding
    assert not same["attention.hidden.weight"]


def test_start__another_network_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        start(_model("abmil"), _model("abmil"), _model("dsmil").aggregator.state_dict(), share_embedding=True)


@pytest.mark.parametrize(("temperature", "expected"), [(0.1, 1.607183), (1.0, 1.945165)])
def test_consistency__temperature(temperature: float, expected: float) -> None:
    assert_near(consistency(STUDENT, TEACHER, temperature), expected)


def test_consistency__with_itself_is_the_entropy() -> None:
    assert_near(consistency(STUDENT, STUDENT, 1.0), 1.694321)


def test_consistency__mean_over_the_rows_of_two_classes() -> None:
    student, teacher = wave(2, 6, a=0.7, b=0.1), wave(2, 6, a=1.3, b=0.4)
    assert_near(consistency(student, teacher, 0.1), 1.937358)


@pytest.mark.parametrize(("weight", "total"), [(0.5, 1.777668), (0.1, 1.134795)])
def test_total__classification_and_weighted_consistency(weight: float, total: float) -> None:
    classification = cross_entropy(torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor(1))
    assert_near(classification, 0.974077)
    assert_near(classification + weight * consistency(STUDENT, TEACHER, 0.1), total)


def test_consistency__teacher_gets_no_gradient_and_half_precision_is_left() -> None:
    student, teacher = STUDENT.bfloat16().requires_grad_(), TEACHER.bfloat16().requires_grad_()
    loss = consistency(student, teacher, 0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.01), (1, 0.00999999383), (500, 0.00853553391), (1000, 0.005), (1500, 0.00146446609), (1999, 6.16850148e-09)],
)
def test_high_share__falls_to_zero(step: int, share: float) -> None:
    assert high_share(MhimV1().masking, step, 2000) == pytest.approx(share, rel=1e-6)


def test_high_share__constant_in_v2() -> None:
    assert high_share(MhimV2().masking, 1999, 2000) == 0.03


@pytest.mark.parametrize(("step", "rate"), [(0, 0.9997), (500, 0.999743934), (1000, 0.99985)])
def test_keep_rate__rises_to_one(step: int, rate: float) -> None:
    teacher = FollowingTeacher(keep_rate=0.9997, schedule="cosine")
    assert keep_rate(teacher, step, 2000) == pytest.approx(rate, abs=1e-9)


def test_keep_rate__constant_by_default() -> None:
    assert [keep_rate(profile.teacher, 1000, 2000) for profile in (MhimV1(), MhimV2())] == [0.9999, 0.9997]


@pytest.mark.parametrize(
    ("end", "epoch", "rate"),
    [
        (1e-7, 0, 2e-4),
        (1e-7, 1, 1.999877e-4),
        (1e-7, 50, 1.707253e-4),
        (1e-7, 100, 1.0005e-4),
        (1e-7, 199, 1.123306e-7),
        (0.0, 50, 1.707107e-4),
        (0.0, 100, 1e-4),
        (0.0, 199, 1.233675e-8),
    ],
)
def test_cosine_between__learning_rate_of_both_versions(end: float, epoch: int, rate: float) -> None:
    assert cosine_between(2e-4, end, epoch, 200) == pytest.approx(rate, rel=1e-6)


def test_high_share__zero_stays_zero() -> None:
    assert high_share(Masking(high=0.0), 10, 100) == 0
