import pytest
import torch
from torch import nn

from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.policy import MaskSample, PolicyNetwork, RunningBases
from tests.pipelines.pretrain.example import beta_cells, close, leaf, sampled
from vision_core.errors import TrainingError

ENTROPIES = [-0.040818, -0.106531, -0.303330, -0.494286, -0.161816, -0.298930, -0.161675, -0.061604]

START = [[0.2, 0.8, 0.5, 0.1]]
HEADS = [[1.0, -1, 0.5, 2], [0.0, 1, -0.5, 1]]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_policy__parameters_at_grid_64() -> None:
    policy = PolicyNetwork(64)
    assert _size(policy.extractor) == 4_922_488
    assert (_size(policy.alpha), _size(policy.beta)) == (2_628_608, 2_628_608)
    assert _size(policy) == 10_179_704


def test_policy__heads_of_three_layers_with_norms_and_rectifiers() -> None:
    policy = PolicyNetwork(2)
    for head in (policy.alpha, policy.beta):
        kinds = [type(layer) for layer in head]
        assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]


def test_policy__an_output_per_image_and_cell() -> None:
    cells = PolicyNetwork(3)(torch.randn(2, 3, 32, 32))
    assert cells.log_alpha.shape == cells.log_beta.shape == (2, 9)
    assert not torch.equal(cells.log_alpha, cells.log_beta)


def test_policy__statistics_move_once_a_step() -> None:
    policy = PolicyNetwork(2)
    policy(torch.randn(2, 3, 32, 32))
    counters = [value.item() for name, value in policy.named_buffers() if name.endswith("num_batches_tracked")]
    assert set(counters) == {1}


@pytest.mark.parametrize(("input_px", "seen"), [(224, 224), (112, 112)])
def test_policy__larger_images_are_averaged_down(input_px: int, seen: int) -> None:
    policy = PolicyNetwork(2, input_px).eval()
    inputs: list[torch.Tensor] = []
    policy.extractor.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    image = torch.arange(224.0).expand(1, 3, 224, 224)
    with torch.no_grad():
        policy(image)
    assert inputs[0].shape[-2:] == (seen, seen)
    expected = torch.arange(224.0).view(seen, -1).mean(dim=1)  # of neighbouring columns
    torch.testing.assert_close(inputs[0][0, 0, 0], expected)


def test_policy__training_on_one_image_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"'1' image.*at least 2"):
        PolicyNetwork(2)(torch.randn(1, 3, 32, 32))


def test_policy__evaluation_of_one_image_is_legal() -> None:
    assert PolicyNetwork(2).eval()(torch.randn(1, 3, 32, 32)).log_alpha.isfinite().all()


def drawn(cells: BetaCells) -> MaskSample:
    nothing = torch.tensor(0)
    return MaskSample(cells=cells, sample=sampled(), is_finite=nothing == 0, num_clamped=nothing)


def test_entropy__is_the_mean_over_images_and_cells() -> None:
    assert drawn(beta_cells()).entropy().item() == pytest.approx(sum(ENTROPIES) / 8, abs=2e-6)


def test_entropy__of_images_that_differ_is_not_that_of_their_mean() -> None:
    opposite = torch.tensor([[3.0], [-3.0]])
    assert drawn(BetaCells(log_alpha=opposite, log_beta=opposite)).entropy().item() < -1


def _bases() -> RunningBases:
    bases = RunningBases(4).double()
    for base in bases.buffers():
        base.copy_(torch.tensor(START, dtype=torch.float64))
    return bases


def _heads() -> BetaCells:
    return BetaCells(log_alpha=leaf(HEADS), log_beta=leaf([row[::-1] for row in HEADS]))


def test_forward__nine_tenths_of_the_base() -> None:
    cells = _bases()(_heads())
    close(cells.log_alpha, [[0.28, 0.62, 0.50, 0.29], [0.18, 0.82, 0.40, 0.19]])
    close(cells.log_beta[:, 0], [0.38, 0.28])


def test_forward__a_tenth_of_the_gradient_and_only_to_the_heads() -> None:
    bases, heads = _bases(), _heads()
    cells = bases(heads)
    bases.update(heads)  # in place, before the backward pass
    (cells.log_alpha.sum() + cells.log_beta.sum()).backward()
    assert heads.log_alpha.grad is not None
    close(heads.log_alpha.grad, [[0.1] * 4] * 2)
    assert not bases.log_alpha.requires_grad


def test_update__one_step_and_a_hundred() -> None:
    bases, heads = _bases(), _heads()
    bases.update(heads)
    close(bases.log_alpha, [[0.203, 0.792, 0.495, 0.114]])
    for _ in range(99):
        bases.update(heads)
    close(bases.log_alpha, [[0.390190, 0.292826, 0.183016, 0.987555]])


def test_update__means_of_two_processes_move_as_their_rows_together() -> None:
    together, apart, heads = _bases(), _bases(), _heads()
    together.update(heads)
    halves = [BetaCells(log_alpha=heads.log_alpha[[i]], log_beta=heads.log_beta[[i]]) for i in range(2)]
    apart.update(
        BetaCells(
            log_alpha=torch.cat([half.log_alpha.mean(dim=0, keepdim=True) for half in halves]),
            log_beta=torch.cat([half.log_beta.mean(dim=0, keepdim=True) for half in halves]),
        )
    )
    assert torch.equal(together.log_beta, apart.log_beta)


def test_start__uniform_and_in_the_checkpoint() -> None:
    bases = RunningBases(1000)
    assert 0 <= bases.log_alpha.min() < 0.05
    assert 0.95 < bases.log_alpha.max() < 1
    assert not torch.equal(bases.log_alpha, bases.log_beta)
    assert bases.state_dict().keys() == {"log_alpha", "log_beta"}
    assert bases.cells().log_alpha.shape == (1, 1000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_forward__half_precision_heads_give_single_precision_concentrations(dtype: torch.dtype) -> None:
    bases = RunningBases(4)
    heads = BetaCells(log_alpha=torch.ones(2, 4, dtype=dtype), log_beta=torch.ones(2, 4, dtype=dtype))
    bases.update(heads)
    assert bases(heads).log_alpha.dtype == torch.float32
