import copy

import pytest
import torch
from torch import nn

from vision_core.training.batch_norms import extreme_statistics, freeze_norms, has_moving_norms, reestimate_norms


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))


def batches() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(5, 3, 12, 12) * 3 + 1 for _ in range(4)]


def test_reestimate__first_layer_has_the_mean_of_the_batches_statistics() -> None:
    module = network()
    assert reestimate_norms(module, batches()) == 4
    inner = [module[0](images) for images in batches()]  # type: ignore[index]
    norm = module[1]  # type: ignore[index]
    expected = torch.stack([each.mean(dim=(0, 2, 3)) for each in inner]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, expected)
    spread = torch.stack([each.var(dim=(0, 2, 3)) for each in inner]).mean(dim=0)
    torch.testing.assert_close(norm.running_var, spread)


def test_reestimate__dropout_is_off_weights_and_momentum_stay() -> None:
    module = network()
    before = copy.deepcopy(module)
    reestimate_norms(module, batches())
    for ours, theirs in zip(module.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert module[1].momentum == 0.1  # type: ignore[index]
    assert not module.training
    again = copy.deepcopy(before)
    reestimate_norms(again, batches())
    assert torch.equal(again[4].running_mean, module[4].running_mean)  # type: ignore[index]


def test_freeze__until_train_is_called_again() -> None:
    module = network().train()
    assert has_moving_norms(module)
    freeze_norms(module)
    assert not has_moving_norms(module)
    assert module[2].training  # type: ignore[index]
    assert has_moving_norms(module.train())


@pytest.mark.parametrize(("largest", "count"), [(9_999.0, 0), (56_296.0, 1)])
def test_extreme_statistics(largest: float, count: int) -> None:
    found = extreme_statistics({"bn.running_var": torch.tensor([1.0, largest]), "bn.weight": torch.full((2,), 1e9)})
    assert len(found) == count
