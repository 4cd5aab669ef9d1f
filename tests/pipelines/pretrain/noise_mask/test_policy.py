import pytest
import torch
from torch import nn

from pipelines.pretrain.noise_mask.policy import PolicyNetwork
from vision_core.errors import TrainingError


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
    policy = PolicyNetwork(2, input_px).eval()  # type: ignore[arg-type]
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
