"""ABMIL against the numbers of the specification (check C5)."""

from pathlib import Path

import pytest
import torch

from pipelines.wsi.config import Scores
from pipelines.wsi.models.abmil import ABMIL
from tests.pipelines.wsi.waves import BAG, assert_near, small_abmil
from vision_core.bundles import bundle

SHIPPED = Path(__file__).resolve().parents[4] / "demos" / "checkpoints" / "wsi-demo"


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
    network = ABMIL(8, 2, embed_dim=16).eval()
    found = network.aggregate(network.embedding(torch.randn(20_000, 8)), Scores(kind="class"))
    assert found.scores is not None
    assert len(found.scores.unique()) > 19_990


def test_forward__order_of_the_tiles_does_not_count() -> None:
    network = small_abmil()
    torch.testing.assert_close(network(BAG), network(BAG.flip(0)), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("gated", "count"), [(False, 591_490), (True, 657_026)])
def test_parameters__as_published(gated: bool, count: int) -> None:
    network = ABMIL(gated=gated)
    assert sum(each.numel() for each in network.parameters()) == count


def test_initialisation__xavier_weights_and_zero_biases() -> None:
    network = ABMIL()
    weight = network.embedding.linear.weight
    assert weight.std().item() == pytest.approx((2 / (1024 + 512)) ** 0.5, rel=0.01)
    assert not network.embedding.linear.bias.any()


def test_aggregate__dropout_in_both_branches_where_set() -> None:
    network = ABMIL(
        8,
        2,
        dropout=0.0,
        attention_dim=384,
        gated=True,
        attention_activation="tanh",
        attention_bias=True,
        attention_dropout=0.25,
    )
    bag = torch.randn(5, 8)
    assert not torch.equal(network(bag), network(bag))
    network.eval()
    assert torch.equal(network(bag), network(bag))


def test_load_state_dict__shipped_bundle_loads_strictly_and_predicts_the_same() -> None:
    content = bundle.load(SHIPPED, "wsi")
    network = ABMIL(in_dim=1280, num_classes=2, embed_dim=128).eval()
    network.load_state_dict({name.removeprefix("aggregator."): each for name, each in content.tensors.items()})
    with torch.no_grad():
        logits, attention = network(content.inputs()["features"], return_attention=True)
    golden = content.outputs()
    torch.testing.assert_close(logits, golden["logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.softmax(dim=0), golden["probabilities"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention, golden["scores"][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gated", [False, True])
def test_tile_logits__sum_to_the_logits_without_bias(gated: bool) -> None:
    network = small_abmil("gelu", gated=gated)
    embedded = network.embedding(BAG)
    parts = network.tile_logits(embedded)
    assert parts.shape == (4, 2)
    assert_near(parts.sum(dim=0) + network.classifier.bias, network.aggregate(embedded).logits.tolist())
