import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import Tensor, nn

from vision_core.detection.model.frozen_norms import adapting_norms
from vision_core.errors import ConfigError


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 5, 6, generator=generator) * 3 + 2 for _ in range(3)]


def frozen(kind: type[nn.Module] = FrozenBatchNorm2d) -> nn.Module:
    layer = kind(4)
    layer.running_mean.fill_(7.0)  # type: ignore[operator]
    layer.weight.fill_(2.0)  # type: ignore[operator]
    return nn.Sequential(layer)


@pytest.mark.parametrize("kind", [FrozenBatchNorm2d, FrozenBatchNormAct2d])
def test_adapting_norms__same_as_batch_norm_with_cumulative_mean(kind: type[nn.Module]) -> None:
    network = frozen(kind)
    reference = nn.BatchNorm2d(4, momentum=None)
    nn.init.constant_(reference.weight, 2.0)
    with adapting_norms(network), torch.no_grad():
        for batch in batches():
            expected = reference(batch)
            expected = expected.relu() if kind is FrozenBatchNormAct2d else expected
            torch.testing.assert_close(network(batch), expected)
    state = network.state_dict()
    torch.testing.assert_close(state["0.running_mean"], reference.running_mean)
    torch.testing.assert_close(state["0.running_var"], reference.running_var)
    assert (state["0.weight"] == 2.0).all()


def test_adapting_norms__frozen_again_afterwards() -> None:
    network = frozen()
    names = list(network.state_dict())
    with adapting_norms(network):
        network(batches()[0])
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(batches()[1])
    assert list(state) == names
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_adapting_norms__frozen_again_after_an_error() -> None:
    network = frozen()
    with pytest.raises(RuntimeError, match="stop"), adapting_norms(network):
        raise RuntimeError("stop")
    assert "forward" not in vars(network[0])  # type: ignore[index]


def test_adapting_norms__in_pieces_equals_in_one() -> None:
    whole, pieces = frozen(), frozen()
    with adapting_norms(whole):
        for batch in batches():
            whole(batch)
    for number, batch in enumerate(batches()):
        with adapting_norms(pieces, passes=number):
            pieces(batch)
    assert torch.equal(whole.state_dict()["0.running_mean"], pieces.state_dict()["0.running_mean"])


def test_adapting_norms__folded_statistics_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match="1 frozen layers, all with mean 0"),
        adapting_norms(nn.Sequential(FrozenBatchNorm2d(4))),
    ):
        pass


def test_adapting_norms__no_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 frozen layers"), adapting_norms(nn.Linear(2, 2)):
        pass
