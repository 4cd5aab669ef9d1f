"""ABMIL against the numbers of the specification (check C5)."""

import pytest
import torch

from pipelines.wsi.config import AbmilSettings, EmbeddingSettings, ModelSettings, Scores
from pipelines.wsi.models.abmil import Abmil
from tests.pipelines.wsi.waves import BAG, assert_near, small_abmil


def test_aggregate__relu() -> None:
    network = small_abmil("relu")
    embedded = network.embedding(BAG)
    found = network.aggregate(embedded, Scores())
    assert_near(network.attention(embedded), [1.917084, 1.315752, 0.478402, 1.246076])
    assert found.scores is not None
    assert_near(found.scores, [[0.435443, 0.238658, 0.103304, 0.222595]])
    assert_near(found.feature, [[0.473373, 0.903241, 0.477572, 0.337189, 0.266112]])
    assert_near(found.logits, [2.113134, -0.557470])


def test_aggregate__gelu() -> None:
    network = small_abmil("gelu")
    embedded = network.embedding(BAG)
    found = network.aggregate(embedded, Scores())
    assert_near(network.attention(embedded), [1.511229, 0.979435, 0.196432, 0.844830])
    assert found.scores is not None
    assert_near(found.scores, [[0.422006, 0.247950, 0.113321, 0.216723]])
    assert_near(found.feature, [[0.321975, 0.756866, 0.347640, 0.199250, 0.155592]])
    assert_near(found.logits, [1.554289, -0.285503])


def test_aggregate__gated() -> None:
    network = small_abmil("gelu", attention="tanh", gated=True)
    embedded = network.embedding(BAG)
    found = network.aggregate(embedded, Scores())
    assert_near(network.attention(embedded), [-0.390337, -0.143882, -0.041585, -0.095482])
    assert found.scores is not None
    assert_near(found.scores, [[0.198424, 0.253880, 0.281226, 0.266470]])
    assert_near(found.logits, [1.185263, -0.270917])


@pytest.mark.parametrize(
    ("bias", "expected"),
    [(False, [0.720187, 0.684481, 0.504819, 0.575842]), (True, [0.677071, 0.638623, 0.546309, 0.525149])],
)
def test_aggregate__class_scores(bias: bool, expected: list[float]) -> None:
    network = small_abmil("gelu")
    found = network.aggregate(network.embedding(BAG), Scores(kind="class", bias=bias))
    assert found.scores is not None
    assert_near(found.scores, [expected])


def test_aggregate__single_precision_is_near() -> None:
    network = small_abmil("gelu").float()
    assert_near(network.aggregate(network.embedding(BAG.float())).logits, [1.554289, -0.285503], tolerance=2e-5)


def test_aggregate__class_scores_of_a_large_bag_do_not_tie() -> None:
    network = Abmil(ModelSettings(embedding=EmbeddingSettings(dim=16)), 8, 2).eval()
    found = network.aggregate(network.embedding(torch.randn(20_000, 8)), Scores(kind="class"))
    assert found.scores is not None
    assert len(found.scores.unique()) > 19_990


def test_forward__order_of_the_tiles_does_not_count() -> None:
    network = small_abmil()
    torch.testing.assert_close(network(BAG), network(BAG.flip(0)), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("gated", "count"), [(False, 591_490), (True, 657_026)])
def test_parameters__as_published(gated: bool, count: int) -> None:
    network = Abmil(ModelSettings(abmil=AbmilSettings(gated=gated)), 1024, 2)
    assert sum(each.numel() for each in network.parameters()) == count


def test_initialisation__xavier_weights_and_zero_biases() -> None:
    network = Abmil(ModelSettings(), 1024, 2)
    weight = network.embedding.linear.weight
    assert weight.std().item() == pytest.approx((2 / (1024 + 512)) ** 0.5, rel=0.01)
    assert not network.embedding.linear.bias.any()


def test_aggregate__dropout_in_both_branches_where_set() -> None:
    settings = ModelSettings(
        embedding=EmbeddingSettings(dropout=0.0),
        abmil=AbmilSettings(gated=True, bias=True, activation="tanh", hidden=384, dropout=0.25),
    )
    network = Abmil(settings, 8, 2)
    bag = torch.randn(5, 8)
    assert not torch.equal(network(bag), network(bag))
    network.eval()
    assert torch.equal(network(bag), network(bag))
