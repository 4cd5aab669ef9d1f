import pytest
import torch
from torch import Tensor, nn

from pipelines.wsi.config import Scores
from pipelines.wsi.models.aggregation import Aggregated
from pipelines.wsi.models.ppeg import fill_square
from pipelines.wsi.models.transmil import TransMIL


def _network(*, square_first: bool = False, heads: int = 2) -> TransMIL:
    network = TransMIL(6, 3, embed_dim=16, heads=heads, square_first=square_first).double().eval()
    nn.init.normal_(network.classifier.bias)
    return network


def _whole(network: TransMIL, tiles: Tensor) -> Tensor:
    tokens = torch.cat([network.class_token, tiles])
    tokens = tokens + network.first.attention(network.first.norm(tokens))
    tokens = torch.cat([tokens[:1], network.positions(tokens[1:])])
    tokens = tokens + network.second.attention(network.second.norm(tokens))
    feature: Tensor = network.norm(tokens)[:1]
    return feature


@pytest.mark.parametrize("count", [1, 7, 60])
def test_aggregate__equals_two_whole_layers(count: int) -> None:
    network, tiles = _network(), torch.randn(count, 16, dtype=torch.float64)
    found = network.aggregate(tiles)
    expected = _whole(network, tiles)
    torch.testing.assert_close(found.feature, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.logits, network.classifier(expected)[0], atol=1e-10, rtol=0)


def test_aggregate__square_first_lets_the_copies_attend() -> None:
    network, tiles = _network(square_first=True), torch.randn(10, 16, dtype=torch.float64)
    found = network.aggregate(tiles, Scores())
    torch.testing.assert_close(found.feature, _whole(network, fill_square(tiles)), atol=1e-10, rtol=0)
    assert _scores(found).shape == (2, 10)
    assert network.class_token.abs().max() < 1e-4


def test_aggregate__attention_scores_are_the_first_layers() -> None:
    network, tiles = _network(), torch.randn(10, 16, dtype=torch.float64)
    expected = network.first.attend(network.class_token, tiles).first_row()
    assert torch.equal(_scores(network.aggregate(tiles, Scores())), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_aggregate__class_scores_tile_by_tile(bias: bool) -> None:
    network, tiles = _network(), torch.randn(10, 16, dtype=torch.float64)
    attended = network.first.attend(network.class_token, tiles)
    attention, values = attended.first_row(), attended.other_values()
    expected = []
    for tile in range(10):
        share = torch.cat([attention[head, tile] * values[head, tile] for head in range(2)])
        logits = network.classifier.weight @ network.first.attention.output(share)
        expected.append((logits + network.classifier.bias if bias else logits).softmax(dim=0).max())
    found = _scores(network.aggregate(tiles, Scores(kind="class", bias=bias)))
    torch.testing.assert_close(found, torch.stack(expected)[None])


def test_aggregate__scores_cost_nothing_where_nobody_asks() -> None:
    assert _network().aggregate(torch.randn(3, 16, dtype=torch.float64)).scores is None


def test_forward__order_of_the_tiles_counts() -> None:
    network, bag = _network(), torch.randn(60, 6, dtype=torch.float64)
    assert not torch.allclose(network(bag), network(bag.flip(0)))


def test_parameters__as_published() -> None:
    network = TransMIL()
    assert sum(each.numel() for each in network.parameters()) == 2_672_146


def test_parameters__head_width_does_not_depend_on_their_number() -> None:
    assert _network(heads=4).first.attention.to_qkv.out_features == 3 * 4 * 2


def _scores(aggregated: Aggregated) -> Tensor:
    assert aggregated.scores is not None
    return aggregated.scores


def test_tile_logits__a_transformer_is_no_sum_over_tiles() -> None:
    network = TransMIL(in_dim=4, embed_dim=16)
    assert network.tile_logits(torch.rand(5, 16)) is None
