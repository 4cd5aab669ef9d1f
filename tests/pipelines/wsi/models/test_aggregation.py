"""Networks as a notebook calls them: a bag, or a padded batch with its mask."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.wsi.config import ModelSettings, Recycling
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.models.abmil import ABMIL
from pipelines.wsi.models.aggregation import Aggregator
from pipelines.wsi.models.build import build_model
from pipelines.wsi.models.dsmil import DSMIL
from pipelines.wsi.models.transmil import TransMIL
from pipelines.wsi.weights.bundles import SlideModel
from tests.pipelines.wsi.weights.test_bundles import card

Name = Literal["abmil", "dsmil", "transmil"]
CLASSES: dict[Name, type[ABMIL | DSMIL | TransMIL]] = {"abmil": ABMIL, "dsmil": DSMIL, "transmil": TransMIL}
DIM, COUNTS, LONGEST = 6, (3, 20, 11), 24


def _networks() -> dict[str, Aggregator | MHIM]:
    networks: dict[str, Aggregator | MHIM] = {name: kind(DIM, 3, embed_dim=32) for name, kind in CLASSES.items()}
    networks["mhim"] = MHIM(ABMIL(DIM, 3, embed_dim=32))
    networks["mhim_recycling_at_test"] = MHIM(ABMIL(DIM, 3, embed_dim=32), Recycling(at_test=True))
    return networks


NAMES = tuple(_networks())


def _network(name: str) -> Aggregator | MHIM:
    torch.manual_seed(3)
    return _networks()[name].eval()


def _padded(mask_first: int = 0) -> tuple[Tensor, Tensor]:
    """Bags of different size behind ``mask_first`` rows; the padding is NaN."""
    features, mask = torch.full((len(COUNTS), LONGEST, DIM), torch.nan), torch.zeros(len(COUNTS), LONGEST).bool()
    for place, count in enumerate(COUNTS):
        mask[place, mask_first : mask_first + count] = True
        features[place, mask[place]] = torch.randn(count, DIM)
    return features, mask


@pytest.mark.parametrize("name", NAMES)
def test_forward__a_bag_gives_logits_of_its_classes(name: str) -> None:
    network, bag = _network(name), torch.randn(20, DIM)
    logits, attention = network(bag, return_attention=True)
    assert (logits.shape, attention.shape) == ((3,), (20,))
    assert torch.equal(network(bag), logits)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mask_first", [0, 4])
def test_forward__bags_of_a_padded_batch_give_what_they_give_alone(name: str, mask_first: int) -> None:
    network, (features, mask) = _network(name), _padded(mask_first)
    logits, attention = network(features, mask, return_attention=True)
    assert (logits.shape, attention.shape) == ((3, 3), (3, LONGEST))
    assert torch.equal(network(features, mask), logits)
    assert not attention[~mask].any()
    for place, count in enumerate(COUNTS):
        alone, theirs = network(features[place, mask[place]], return_attention=True)
        torch.testing.assert_close(logits[place], alone)
        torch.testing.assert_close(attention[place, mask[place]], theirs)
        assert theirs.shape == (count,)


@pytest.mark.parametrize("name", NAMES)
def test_forward__a_batch_without_mask_and_a_bag_with_one(name: str) -> None:
    network, features = _network(name), torch.randn(2, 9, DIM)
    torch.testing.assert_close(network(features), torch.stack([network(bag) for bag in features]))
    mask = torch.arange(9) < 5
    torch.testing.assert_close(network(features[0], mask), network(features[0, :5]))


@pytest.mark.parametrize("name", NAMES)
def test_forward__gradients_pass_logits_and_attention(name: str) -> None:
    network, (features, mask) = _network(name).train(), _padded()
    logits, attention = network(features, mask, return_attention=True)
    (logits.sum() + attention.square().sum()).backward()
    used = [each for key, each in network.named_parameters() if "instance_classifier" not in key]
    assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in used)


@pytest.mark.parametrize("name", ["abmil", "dsmil", "transmil"])
def test_forward__softmax_and_attention_are_what_the_predictor_reports(name: Name) -> None:
    network = CLASSES[name](DIM, 3).eval()
    bag = torch.randn(30, DIM)
    with torch.no_grad():
        logits, attention = network(bag, return_attention=True)
    reading = SlideModel(MHIM(network), card(name), torch.device("cpu")).predict(bag)
    np.testing.assert_allclose(logits.softmax(dim=0).numpy(), reading.probabilities, rtol=1e-5)
    np.testing.assert_allclose(attention.numpy(), reading.scores, rtol=1e-5, atol=1e-7)


def test_forward__attention_of_abmil_sums_to_one() -> None:
    features, mask = _padded()
    _, attention = _network("abmil")(features, mask, return_attention=True)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("combine", ["probabilities", "logits", "bag"])
def test_forward__softmax_is_the_prediction_of_dsmil(combine: Literal["probabilities", "logits", "bag"]) -> None:
    network, bag = DSMIL(DIM, 3, embed_dim=32, combine=combine).eval(), torch.randn(20, DIM)
    expected = network.probabilities(network.aggregate(network.embedding(bag)))
    torch.testing.assert_close(network(bag).softmax(dim=0), expected)


@pytest.mark.parametrize(
    ("features", "mask", "words"),
    [
        (torch.zeros(5), None, r"expected \(N, 6\) or \(B, N, 6\), found \(5,\)"),
        (torch.zeros(5, 7), None, r"expected \(N, 6\) or \(B, N, 6\), found \(5, 7\)"),
        (torch.zeros(1, 2, 5, 6), None, r"found \(1, 2, 5, 6\)"),
        (torch.zeros(0, 6), None, r"at least one tile, found the shape \(0, 6\)"),
        (torch.zeros(0, 5, 6), None, r"at least one tile, found the shape \(0, 5, 6\)"),
        (torch.zeros(2, 5, 6), torch.ones(2, 4).bool(), r"bool of the shape \(2, 5\), found torch.bool .* \(2, 4\)"),
        (torch.zeros(2, 5, 6), torch.ones(2, 5), r"bool of the shape \(2, 5\), found torch.float32"),
        (torch.zeros(5, 6), torch.ones(1, 5).bool(), r"bool of the shape \(5,\), found torch.bool .* \(1, 5\)"),
        (torch.zeros(2, 5, 6), torch.tensor([[True] * 5, [False] * 5]), "found a bag without any"),
    ],
)
@pytest.mark.parametrize("name", ["abmil", "mhim"])
def test_forward__wrong_shapes_are_refused(name: str, features: Tensor, mask: Tensor | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _network(name)(features, mask)


@pytest.mark.parametrize("name", ["abmil", "dsmil", "transmil"])
def test_constructor__defaults_are_those_of_the_settings(name: Name) -> None:
    made = []
    for build in (CLASSES[name], lambda: build_model(ModelSettings(name=name), 1024, 2)):
        torch.manual_seed(0)
        network = build()
        made.append((network.state_dict(), network(torch.randn(40, 1024))))  # in training: with every dropout
    (state, logits), (expected_state, expected) = made
    assert all(torch.equal(state[key], tensor) for key, tensor in expected_state.items())
    assert state.keys() == expected_state.keys()
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("name", ["abmil", "dsmil", "transmil"])
def test_constructor__values_out_of_range_are_refused(name: Name) -> None:
    with pytest.raises(ValueError, match="dropout"):
        CLASSES[name](DIM, 2, dropout=1.5)
    with pytest.raises(ValueError, match="activation"):
        CLASSES[name](DIM, 2, activation="elu")  # type: ignore[arg-type]
