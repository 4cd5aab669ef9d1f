"""DSMIL against the numbers of the specification (check C6)."""

from typing import Literal

import torch
from torch.nn import functional

from pipelines.wsi.config import Scores
from pipelines.wsi.models.dsmil import DSMIL
from tests.pipelines.wsi.waves import assert_near, wave

TILES = wave(5, 4, a=0.77, b=0.3)
Combine = Literal["probabilities", "logits", "bag"]


def _network(combine: Combine = "probabilities", weight: float = 0.5) -> DSMIL:
    network = DSMIL(4, 2, embed_dim=4, dropout=0.0, query_dim=3, combine=combine, instance_weight=weight).double()
    state = {
        "instance_classifier.weight": wave(2, 4, a=0.51, b=0.2),
        "instance_classifier.bias": wave(2, a=0.9, b=0.4, c=0.1),
        "query.0.weight": wave(3, 4, a=0.33, b=0.5),
        "query.0.bias": wave(3, a=0.2, b=0.1, c=0.1),
        "query.2.weight": wave(3, 3, a=0.71, b=0.6),
        "query.2.bias": wave(3, a=0.4, b=0.2, c=0.1),
        "value.0.weight": wave(4, 4, a=0.29, b=0.8),
        "value.0.bias": wave(4, a=0.6, b=0.3, c=0.1),
        "bag_classifier.weight": wave(2, 2, 4, a=0.19, b=0.4),
        "bag_classifier.bias": wave(2, a=0.7, b=0.5, c=0.2),
    }
    missing = network.load_state_dict(state, strict=False).missing_keys
    assert all(name.startswith("embedding.") for name in missing)
    return network


def test_aggregate__both_streams() -> None:
    found = _network().aggregate(TILES, Scores(kind="attention"))
    assert_near(found.feature, [[1.964439, 1.296669, 0.251546, 0.502048], [1.946284, 1.284759, 0.261159, 0.521226]])
    assert_near(found.logits, [5.986929, 4.813401])
    assert found.instance_logits is not None
    assert_near(found.instance_logits, [2.159597, 0.251065])


def test_aggregate__attention_asks_the_critical_tile_of_each_class() -> None:
    network = _network()
    instances = functional.linear(TILES, network.instance_classifier.weight, network.instance_classifier.bias)
    assert instances.argmax(dim=0).tolist() == [4, 0]
    queries = network.query(TILES)
    attention = (queries @ queries[[4, 0]].T / 3**0.5).softmax(dim=0)
    assert_near(attention[:, 0], [0.266250, 0.097285, 0.268543, 0.097703, 0.270218])
    by_attention = network.aggregate(TILES, Scores(kind="attention")).scores
    by_class = network.aggregate(TILES, Scores(kind="class")).scores
    assert by_attention is not None
    assert by_class is not None
    torch.testing.assert_close(by_attention[0], attention.amax(dim=1))
    torch.testing.assert_close(by_class[0], instances.amax(dim=1))


def test_probabilities__three_ways() -> None:
    found = _network().aggregate(TILES)
    assert_near(_network("probabilities").probabilities(found), [0.817318, 0.182682])
    combined = torch.tensor([4.073263, 2.532233], dtype=torch.float64)
    assert_near(_network("logits").probabilities(found), combined.softmax(dim=0).tolist())
    assert_near(_network("bag").probabilities(found), found.logits.softmax(dim=0).tolist())


def test_loss__three_ways() -> None:
    found, label = _network().aggregate(TILES), torch.tensor(1)
    assert found.instance_logits is not None
    bag, best = (functional.cross_entropy(each, label) for each in (found.logits, found.instance_logits))
    torch.testing.assert_close(_network("probabilities").loss(found, label), (bag + best) / 2)
    torch.testing.assert_close(_network("bag", weight=0.0).loss(found, label), bag)
    mixed = torch.tensor([4.073263, 2.532233], dtype=torch.float64)
    assert_near(_network("logits").loss(found, label), functional.cross_entropy(mixed, label).item())


def test_forward__order_of_the_tiles_does_not_count() -> None:
    network = _network().eval()
    torch.testing.assert_close(network(TILES), network(TILES.flip(0)), atol=1e-12, rtol=0)


def test_parameters__as_published_without_the_unused_classifier() -> None:
    network = DSMIL()
    assert sum(each.numel() for each in network.parameters()) == 873_734 - (512 * 2 + 2)


def test_tile_logits__sum_to_the_logits_without_biases() -> None:
    cases: list[tuple[Combine, float]] = [("bag", 0.0), ("logits", 0.5), ("logits", 0.2)]
    for combine, share in cases:
        network = _network(combine, share or 0.5)
        parts = network.tile_logits(TILES)
        assert network.bag_classifier.bias is not None
        biases = torch.lerp(network.bag_classifier.bias, network.instance_classifier.bias, share)
        assert_near(parts.sum(dim=0) + biases, network.logits(network.aggregate(TILES)).tolist())
