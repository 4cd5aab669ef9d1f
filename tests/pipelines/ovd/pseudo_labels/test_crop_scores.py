"""Scores of crops: the numbers of the specification (P3, P14), batches, boxes that are too small."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.ovd.config import ImageText
from pipelines.ovd.pseudo_labels.crop_scores import name_probabilities, score_crops
from tests.pipelines.ovd.table import TableModel

NAMES = functional.normalize(torch.tensor([[1.0, 1, 1], [1, 1.1, 1], [0.9, 1, 1.2]]), dim=1)
COLOURS = torch.eye(3)


def test_probabilities__two_scales() -> None:
    embedded = torch.tensor([[[1.0, 2, 2], [2, 1, 2]], [[2, 0, 1], [0, 1, 1]]])
    found = name_probabilities(embedded, NAMES)
    expected = torch.tensor([[0.247059, 0.162016, 0.590925], [0.242632, 0.105852, 0.651516]])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert found.argmax(dim=1).tolist() == [2, 2]


def test_probabilities__the_surest_stay_below_one() -> None:
    assert torch.tensor(0.99975).half().item() == 0.99951171875
    assert torch.tensor(0.99976).half().item() == 1.0
    cosines = torch.tensor([[0.09, 0.0]])
    probability = (cosines / 0.01).softmax(dim=1)[0, 0]
    assert probability.item() == pytest.approx(0.999877, abs=1e-6)
    assert probability.half().item() == 1.0
    names = torch.tensor([[1.0, 0], [0.91, (1 - 0.91**2) ** 0.5]])
    found = name_probabilities(torch.tensor([[[1.0, 0]]]).half(), names)
    assert found.dtype == torch.float32
    assert 0.9998 < found[0, 0].item() < 1


def _image() -> np.ndarray:
    """Red on the left, green on the right, 40 x 60 px."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30, 0] = 255
    image[:, 30:, 1] = 255
    return image


def test_score__each_box_by_its_colour() -> None:
    boxes = torch.tensor([[2.0, 4, 18, 20], [42, 10, 58, 30], [-20, -20, 10, 10]])
    found = score_crops(TableModel(), COLOURS, _image(), boxes, ImageText())
    assert found.rows.tolist() == [0, 1, 2]
    assert found.classes[:, 0].tolist() == [0, 1, 0]
    assert found.scores.shape == (3, 3)
    assert (found.scores[:, 0] > 0.99).all()
    assert found.boxes[2].tolist() == [0, 0, 10, 10]


def test_score__small_boxes_are_left_out_and_their_rows_told() -> None:
    boxes = torch.tensor([[2.0, 4, 6.9, 20], [42, 10, 58, 30], [50, 35.1, 60, 70], [0, 0, 5, 5]])
    found = score_crops(TableModel(), COLOURS, _image(), boxes, ImageText(), topk=1)
    assert found.rows.tolist() == [1, 3]
    assert found.scores.shape == (2, 1)


def test_score__the_larger_crop_is_about_the_clipped_box() -> None:
    """A box that hangs over the left edge: its crop of scale 1.5 must not reach the green half."""
    model = TableModel()
    found = score_crops(model, COLOURS, _image(), torch.tensor([[-60.0, 0, 20, 40]]), ImageText(crop_scales=(1.5,)))
    assert found.scores[0, 0].item() > 0.99
    assert found.classes[0, 0].item() == 0


def test_score__crops_go_in_batches_and_scores_do_not_depend_on_them() -> None:
    boxes = torch.tensor([[2.0, 4, 18, 20], [42, 10, 58, 30], [20, 5, 45, 35]])
    whole, small = TableModel(), TableModel()
    together = score_crops(whole, COLOURS, _image(), boxes, ImageText())
    apart = score_crops(small, COLOURS, _image(), boxes, ImageText(batch_size=4))
    assert whole.batches == [6]
    assert small.batches == [4, 2]
    torch.testing.assert_close(together.scores, apart.scores)


def test_score__no_box_is_large_enough() -> None:
    model = TableModel()
    found = score_crops(model, COLOURS, _image(), torch.tensor([[0.0, 0, 1, 1]]), ImageText())
    assert len(found.rows) == 0
    assert found.scores.shape == found.classes.shape == (0, 3)
    assert model.batches == []
