"""The sentence that answers the study's question, from made results."""

from collections.abc import Mapping, Sequence

import pytest
import torch

from benchmarks.pretrain import tables
from benchmarks.pretrain.control import guess
from benchmarks.studies import Rows, Study
from pipelines.pretrain.config import Mask

SEEDS = (0, 1, 2)


def _rows(scores: Mapping[str, Sequence[float]]) -> Rows:
    return [
        {"method": method, "seed": seed, "macro_f1": value}
        for method, values in scores.items()
        for seed, value in zip(SEEDS, values, strict=False)
    ]


def _verdict(monkeypatch: pytest.MonkeyPatch, scores: Mapping[str, Sequence[float]]) -> list[str]:
    monkeypatch.setattr(Study, "rows", lambda _study: _rows(scores))
    return tables.verdict().splitlines()


def test_verdict__ahead_of_a_control_only_in_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {
        "none": (50.0, 50.0, 50.0),
        "lr_x8.5": (40.0, 40.0, 40.0),
        "unlearned": (60.0, 60.0, 60.0),
        "released": (50.0, 70.0, 70.0),
        "reinforce": (70.0, 70.0, 70.0),
    }
    released, reinforce = _verdict(monkeypatch, scores)
    assert released == (
        "* learned, released objective: ahead in every seed of: no mask, learning rate × 8.5. "
        "Not shown against: no mask; mask that is not learned."
    )
    assert reinforce.endswith(
        "ahead in every seed of: no mask; no mask, learning rate × 8.5; mask that is not learned."
    )


def test_verdict__ahead_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = dict.fromkeys(("none", "lr_x8.5", "unlearned", "released", "reinforce"), (50.0, 50.0, 50.0))
    assert all("ahead of none in every seed" in line for line in _verdict(monkeypatch, scores))


def test_verdict__a_missing_seed_leaves_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = dict.fromkeys(("none", "lr_x8.5", "unlearned", "released", "reinforce"), (50.0, 50.0, 50.0))
    told = _verdict(monkeypatch, scores | {"reinforce": (90.0, 90.0)})
    assert told[1] == "* learned, REINFORCE: not finished."


def test_scores_table__entropy_of_the_mask_that_is_not_learned() -> None:
    alpha = torch.tensor(Mask().unlearned_concentration)
    assert f"{torch.distributions.Beta(alpha, alpha).entropy():.3f}" == tables.UNLEARNED_ENTROPY


def test_scores_table__every_row_has_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "rows", lambda _study: [])
    for make in tables.TABLES.values():
        lines = [line for line in make().splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_missing__names_every_cell_once() -> None:
    cells = tables.missing([])
    assert len(cells) == len(set(cells)) == 3 * (5 + 1 + 1 + 2) + 1
    assert "reinforce_112-2" in cells


def test_guess__one_over_the_classes_of_the_file() -> None:
    rows = [{"source": "a", "concept": "1"}, {"source": "a", "concept": "2"}, {"source": "b", "concept": "3"}]
    assert guess(rows) == pytest.approx((0.5 + 0.5 + 1) / 3)
