"""Scores by name, on the truth and the scores that the specification works out (N11), and under masks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data.views import CentreViews
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.evaluation.scores import (
    Predictions,
    align_metrics,
    predict,
    predict_all,
    predict_masked,
    score,
)
from pipelines.pretrain.noise_mask.beta import BetaCells
from pipelines.pretrain.noise_mask.mask import NoiseMask, SharedMasks
from tests.pipelines.pretrain.tiny import CLASSES, PIXELS, make_folders

TRUTH = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
SCORES = np.array(
    [
        [0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3],
        [0.1, 0.2, 0.7], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6], [0.1, 0.6, 0.3], [0.2, 0.35, 0.45],
    ]
)  # fmt: skip


def test_score__the_worked_example() -> None:
    row = score("m", "s", Predictions(truth=TRUTH, scores=SCORES), ("a", "b", "c"))
    assert row.counts == {"images": 10}
    assert next(iter(row.metrics)) == "macro_f1"
    expected = {
        "macro_precision": 0.611111,
        "macro_recall": 0.611111,
        "balanced_accuracy": 0.611111,
        "macro_f1": 0.603175,
        "accuracy": 0.6,
        "roc_one_vs_rest": 0.885913,
        "roc_one_vs_one": 0.886574,
    }
    assert row.metrics == pytest.approx(expected, abs=1e-6)
    assert row.per_class["a.recall"] == pytest.approx(2 / 3)
    assert row.per_class["b.roc"] == pytest.approx(0.809524, abs=1e-6)


def test_score__a_class_without_images_is_listed_without_a_value_and_left_out_of_the_means() -> None:
    scores = np.concatenate([SCORES * 0.9, np.full((10, 1), 0.1)], axis=1)
    row = score("m", "s", Predictions(truth=TRUTH, scores=scores), ("a", "b", "c", "d"))
    assert row.per_class["d.f1"] is row.per_class["d.roc"] is row.per_class["d.recall"] is None
    assert row.metrics["macro_recall"] == pytest.approx(0.611111, abs=1e-6)
    assert row.metrics["roc_one_vs_one"] == pytest.approx(0.886574, abs=1e-6)


def test_score__independent_classes_each_have_their_own_curve() -> None:
    truth = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    scores = np.array([[0.9, 0.2], [0.1, 0.7], [0.6, 0.4], [0.7, 0.3]])
    row = score("m", "s", Predictions(truth=truth, scores=scores), ("a", "b"))
    assert row.per_class == {"a.roc": 0.75, "b.roc": 1.0}
    assert row.metrics == {"macro_f1": pytest.approx((0.8 + 2 / 3) / 2), "accuracy": 0.75, "roc_one_vs_rest": 0.875}


def test_align_metrics__what_a_model_lacks_is_none() -> None:
    rows = [score(name, "s", Predictions(truth=TRUTH, scores=SCORES), ("a", "b", "c")) for name in ("one", "other")]
    rows[0] = type(rows[0])(model="one", split="s", counts={}, metrics={**rows[0].metrics, "more": 0.5})
    first, second = align_metrics(rows)
    assert list(first.metrics) == list(second.metrics)
    assert (first.metrics["more"], second.metrics["more"]) == (0.5, None)


class MeanOf(nn.Module):
    """Logits from the mean brightness; keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0, 0.5]))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return images.mean(dim=(1, 2, 3))[:, None] * self.weight


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> CentreViews:
    root = make_folders(tmp_path_factory.mktemp("images"))
    data = PretrainData(root=root, image_px=PIXELS, resize_px=36, cache=None)
    return CentreViews(read_images(data, "test"), data)


def shared_masks(log_alpha: float, log_beta: float) -> SharedMasks:
    cells = BetaCells(log_alpha=torch.full((1, 16), log_alpha), log_beta=torch.full((1, 16), log_beta))
    return SharedMasks(cells=cells, mask=NoiseMask(grid=4, kernel=5, sigma=2, image_px=PIXELS))


def test_predict__every_image_once_in_order_and_normalised(views: CentreViews) -> None:
    network = MeanOf()
    found = predict(network, views, "toy")
    assert found.truth.tolist() == views.images.labels.tolist()
    assert found.scores.shape == (len(views), len(CLASSES))
    assert found.scores.sum(axis=1) == pytest.approx(1)
    assert torch.equal(network.seen[0][3:4], normalise(views[0, 3].images))


def test_shared_masks__mean_mask_is_the_expected_share(views: CentreViews) -> None:
    clean, network = normalise(views[0, 0].images), MeanOf()
    predict(network, views, "toy", transform=shared_masks(0.0, np.log(3)).apply_mean)
    torch.testing.assert_close(network.seen[0][:1], 0.25 * clean)


def test_shared_masks__random_masks_are_shared_by_a_batch_and_the_same_at_every_call(views: CentreViews) -> None:
    network = MeanOf()
    for _ in range(2):
        predict(network, views, "toy", transform=shared_masks(0.4, 0.4).apply_random)
    assert torch.equal(*network.seen)
    clean = torch.cat([normalise(views[0, number].images) for number in range(2)])
    masks = network.seen[0][:2] / clean
    torch.testing.assert_close(masks[0], masks[1], rtol=1e-3, atol=1e-3)
    assert masks.std() > 0.01


def test_predict_masked__names_both_and_none_without_a_policy(views: CentreViews) -> None:
    assert predict_masked(MeanOf(), views, "toy", None)[1] == {}
    predictions, found = predict_masked(MeanOf(), views, "toy", shared_masks(6.0, -4.0))  # hides next to nothing
    clean = score("m", "s", predict(MeanOf(), views, "toy"), CLASSES).metrics["accuracy"]
    assert score("m", "s", predictions, CLASSES).metrics["accuracy"] == clean
    assert found == {"mean_mask_accuracy": clean, "random_mask_accuracy": clean}


def test_predict_masked__reads_each_image_once_and_gives_the_bits_of_three_passes(
    views: CentreViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks, read = shared_masks(0.4, 0.4), []
    alone = [predict(MeanOf(), views, "toy", transform=each) for each in (None, masks.apply_mean, masks.apply_random)]
    plain = CentreViews.__getitem__

    def counted(own: CentreViews, place: Any) -> Any:  # noqa: ANN401
        read.append(place)
        return plain(own, place)

    monkeypatch.setattr(CentreViews, "__getitem__", counted)
    together = predict_all(MeanOf(), views, "toy", [None, masks.apply_mean, masks.apply_random])
    assert len(read) == len(views)
    assert all(np.array_equal(one.scores, other.scores) for one, other in zip(alone, together, strict=True))
