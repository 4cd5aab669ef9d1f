"""The training steps as the loop sees them."""

import copy
from typing import Literal

import pytest
import torch

from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.bags import Bag
from pipelines.wsi.learner import BagLearner, MhimLearner, PlainLearner, make_learner
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.models.aggregation import Aggregated
from vision_core.config import loading as config
from vision_core.training.learner import Learner

Method = Literal["plain", "mhim_v1", "mhim_v2"]
METHODS: tuple[Method, ...] = ("plain", "mhim_v1", "mhim_v2")
NAMES = ("abmil", "dsmil", "transmil")
DIM, CLASSES, TOTAL = 6, 2, 100


def _config(*words: str) -> WsiConfig:
    return config.load(WsiConfig, None, ["model.embedding.dim=16", "model.transmil.heads=2", *words])


def _learner(*words: str) -> BagLearner:
    torch.manual_seed(1)
    return make_learner(_config(*words), DIM, CLASSES, TOTAL)


def _bag(tiles: int = 20, label: int = 1) -> Bag:
    generator = torch.Generator().manual_seed(tiles)
    return Bag(features=torch.randn(tiles, DIM, generator=generator), label=torch.tensor(label), name="s")


def _step(learner: Learner, bag: Bag, step: int, rate: float = 0.1) -> dict[str, torch.Tensor]:
    learner.step = step
    torch.manual_seed(step)
    losses: dict[str, torch.Tensor] = learner(bag)
    torch.stack(list(losses.values())).sum().backward()
    with torch.no_grad():
        for parameter in learner.parameters():
            if parameter.grad is not None:
                parameter.sub_(rate * parameter.grad)
                parameter.grad = None
    learner.after_step(step + 1)
    return losses


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tiles", [1, 2, 3, 7, 30])
def test_training_step__finite_for_any_number_of_tiles(method: Method, name: str, tiles: int) -> None:
    """Check C16 (g)."""
    learner = _learner(f"method={method}", f"model.name={name}")
    losses = _step(learner, _bag(tiles), 0)
    assert all(bool(loss.isfinite()) for loss in losses.values())
    assert all(bool(tensor.isfinite().all()) for tensor in learner.state_dict().values())
    assert ("loss_consistency" in losses) == (method != "plain")


@pytest.mark.parametrize("method", ["mhim_v1", "mhim_v2"])
def test_after_step__teacher_follows_and_takes_no_gradient(method: Method) -> None:
    """Check C16 (d), and the teacher's average after a step."""
    learner = _learner(f"method={method}", f"{method}.teacher.keep_rate=0.75")
    assert isinstance(learner, MhimLearner)
    before = {name: tensor.clone() for name, tensor in learner.teacher.module.state_dict().items()}
    _step(learner, _bag(), 0)
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    student = learner.student.state_dict()
    for name, tensor in learner.teacher.module.state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * before[name] + 0.25 * student[name])


def test_after_step__queries_follow_their_tokens_before_the_teacher_follows_them() -> None:
    learner = _learner("method=mhim_v2", "mhim_v2.recycling.keep_rate=0.5", "mhim_v2.teacher.keep_rate=0")
    assert isinstance(learner, MhimLearner)
    assert learner.student.recycler is not None
    before = learner.student.recycler.queries.clone()
    _step(learner, _bag(), 0)
    after = learner.student.recycler.queries
    assert not torch.equal(before, after)
    teacher = learner.teacher.module
    assert isinstance(teacher, MHIM)
    assert teacher.recycler is not None
    assert torch.equal(teacher.recycler.queries, after)


def test_after_step__tokens_of_all_bags_of_an_update_count_alike() -> None:
    learner = _learner("method=mhim_v2", "mhim_v2.recycling.keep_rate=0.5")
    assert learner.student.recycler is not None
    before, tokens = learner.student.recycler.queries.clone(), []
    recycle = learner.student.learn_recycling

    def seen(*arguments: torch.Tensor) -> tuple[Aggregated, torch.Tensor | None]:
        aggregated, made = recycle(*arguments)
        tokens.append(made)
        return aggregated, made

    learner.student.learn_recycling = seen  # type: ignore[method-assign, assignment]
    for tiles in (20, 30):
        learner(_bag(tiles))
    learner.after_step(1)
    assert tokens[0] is not None
    assert tokens[1] is not None
    expected = 0.5 * before + 0.25 * (tokens[0] + tokens[1])
    torch.testing.assert_close(learner.student.recycler.queries, expected)
    learner.after_step(2)  # nothing was recycled since
    torch.testing.assert_close(learner.student.recycler.queries, expected)


def test_discard__tokens_of_an_update_that_was_left_out_move_no_queries() -> None:
    """Gradients beyond fp16, or a loss that is not finite: the next update follows its own tokens alone."""
    learner, alone = (_learner("method=mhim_v2", "mhim_v2.recycling.keep_rate=0.5") for _ in range(2))
    for each in (learner, alone):
        if each is learner:
            torch.manual_seed(5)
            each(_bag(30))
            each.discard()
        torch.manual_seed(6)
        each(_bag(20))
        each.after_step(1)
    assert learner.student.recycler is not None
    assert alone.student.recycler is not None
    assert torch.equal(learner.student.recycler.queries, alone.student.recycler.queries)


def test_begin__v1_shares_the_embedding_and_v2_nothing() -> None:
    baseline = _learner("method=plain", "train.seed=5").student.aggregator
    torch.nn.init.constant_(baseline.embedding.linear.weight, 0.5)
    for method, is_shared in (("mhim_v1", True), ("mhim_v2", False)):
        learner = _learner(f"method={method}")
        assert isinstance(learner, MhimLearner)
        learner.begin(baseline.state_dict())
        teacher = learner.teacher.module
        assert isinstance(teacher, MHIM)
        assert bool((teacher.aggregator.embedding.linear.weight == 0.5).all())
        assert bool((learner.student.aggregator.embedding.linear.weight == 0.5).all()) == is_shared


@pytest.mark.parametrize("name", NAMES)
def test_training_step__without_masks_and_consistency_it_is_plain_training(name: str) -> None:
    """Check C16 (f): the same bits with the same draws."""
    plain = _learner("method=plain", f"model.name={name}")
    masking = "mhim_v1.masking={random: 0, low: 0, high: 0}"
    mhim = _learner("method=mhim_v1", f"model.name={name}", masking, "mhim_v1.consistency.weight=0")
    assert isinstance(plain, PlainLearner)
    mhim.student.load_state_dict(copy.deepcopy(plain.student.state_dict()))
    for step in range(3):
        losses = [_step(learner, _bag(label=step % 2), step) for learner in (plain, mhim)]
        assert torch.equal(losses[0]["loss_cls"], losses[1]["loss_cls"])
    for one, other in zip(plain.student.parameters(), mhim.student.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_product__v2_in_evaluation_is_the_plain_network(name: str) -> None:
    """Check C16 (e)."""
    learner = _learner("method=mhim_v2", f"model.name={name}")
    _step(learner, _bag(), 0)
    product = learner.product().eval()
    bag = _bag(11).features
    assert torch.equal(product(bag), product.aggregator(bag))


def test_after_step__what_was_said_of_validation_is_forgotten() -> None:
    learner = _learner("method=mhim_v1")
    learner.validated = {"student": object()}  # type: ignore[dict-item]
    _step(learner, _bag(), 0)
    assert learner.validated == {}


def test_training_step__high_share_falls_and_is_logged() -> None:
    words = ["method=mhim_v1", "mhim_v1.masking={random: 0, low: 0, high: 0.5, high_pool: 1}"]
    learner = _learner(*words)
    kept = []
    for step in (0, TOTAL // 2, TOTAL - 1):
        _step(learner, _bag(), step)
        kept.append(learner.metrics["kept_share"])
    assert kept == [0.5, 0.75, 0.95]


def test_mhim_learner__by_hand_counts_its_steps_and_does_not_leave_the_teacher_behind() -> None:
    learner = _learner("method=mhim_v1", "mhim_v1.teacher.keep_rate=0.5", "mhim_v1.teacher.schedule=cosine")
    assert isinstance(learner, MhimLearner)
    optimizer = torch.optim.SGD(learner.student.parameters(), lr=0.1)

    def move() -> None:
        torch.stack(list(learner(_bag()).values())).sum().backward()
        optimizer.step()

    move()
    with pytest.raises(RuntimeError, match="its teacher has not: call after_step"):
        learner(_bag())
    learner.after_step(1)
    move()
    assert (learner.step, learner.update) == (1, 1)
    learner.after_step(2)
    learner(_bag())
    learner(_bag())  # gradients of two bags, without a step of the optimizer between them
    assert learner.update == 2
