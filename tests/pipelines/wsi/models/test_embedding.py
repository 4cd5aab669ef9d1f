"""The embedding layer in stretches against the same layer in plain torch."""

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.wsi.config import EmbeddingSettings
from pipelines.wsi.models.embedding import Embedding

Activation = Literal["relu", "gelu"]
FEATURES = torch.randn(2500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TILES = torch.randperm(2500, generator=torch.Generator().manual_seed(1))[:1100]


def _layer(activation: Activation, dropout: float = 0.0) -> Embedding:
    torch.manual_seed(2)
    return Embedding(EmbeddingSettings(dim=8, activation=activation, dropout=dropout), 6).double()


def _plain(layer: Embedding, features: Tensor) -> Tensor:
    return layer.activation(layer.linear(features))  # type: ignore[no-any-return]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("tiles", [None, TILES, TILES[:1], TILES[:0]])
def test_forward__outputs_and_gradients_equal_plain_torch(activation: Activation, tiles: Tensor | None) -> None:
    layer = _layer(activation)
    weights = list(layer.parameters())
    found, expected = layer(FEATURES, tiles), _plain(layer, FEATURES if tiles is None else FEATURES[tiles])
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(each.square().sum(), weights) for each in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("tiles", [None, TILES, TILES[:1], TILES[:0]])
@pytest.mark.parametrize("is_training", [True, False])
def test_forward__rows_behind_equal_a_concatenation(tiles: Tensor | None, is_training: bool) -> None:
    layer = _layer("relu").train(is_training)
    behind = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    found, expected = layer(FEATURES, tiles, behind), torch.cat([layer(FEATURES, tiles), behind])
    torch.testing.assert_close(found, expected)
    weights = [behind, *layer.parameters()]
    gradients = [torch.autograd.grad(each.square().sum(), weights) for each in (found, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(layer(FEATURES, tiles, behind), expected)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_forward__dropout_goes_through_the_gradient(activation: Activation) -> None:
    layer = _layer(activation, dropout=0.25)
    found = layer(FEATURES)
    scaled = _plain(layer, FEATURES) / 0.75
    kept = (found != 0).double()
    torch.testing.assert_close(found, scaled * kept)
    gradients = [torch.autograd.grad(each.square().sum(), list(layer.parameters())) for each in (found, scaled * kept)]
    torch.testing.assert_close(*gradients)


def test_forward__evaluation_equals_training_without_dropout() -> None:
    layer = _layer("gelu", dropout=0.25)
    torch.testing.assert_close(layer.eval()(FEATURES, TILES), _plain(layer, FEATURES[TILES]))


def test_forward__features_that_need_a_gradient_get_one() -> None:
    features = FEATURES[:10].clone().requires_grad_()
    functional.relu(_layer("relu")(features)).sum().backward()
    assert features.grad is not None
    assert features.grad.any()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_forward__under_autocast_gradients_equal_plain_torch(activation: Activation) -> None:
    layer = _layer(activation).float()
    weights = list(layer.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        both = layer(FEATURES.float()), _plain(layer, FEATURES.float())
    assert both[0].dtype == both[1].dtype
    found, expected = (torch.autograd.grad(each.float().mean(), weights) for each in both)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-3)
