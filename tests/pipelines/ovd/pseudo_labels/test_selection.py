"""Selection for both methods: the numbers of the specification (P4)."""

import torch

from pipelines.ovd.config import Candidates
from pipelines.ovd.pseudo_labels.selection import candidate_scores, select_candidates

BOXES = torch.tensor(
    [[10, 10, 60, 60], [12, 12, 62, 60], [12, 12, 62, 60], [100, 20, 180, 90], [101, 22, 178, 92], [30, 100, 90, 160]]
).float()
CLIP = torch.tensor([0.93, 0.97, 0.60, 0.50, 0.81, 0.88])
RPN = torch.tensor([0.99, 0.40, 0.95, 0.90, 0.85, 0.70])
CLASSES = torch.tensor([17, 17, 21, 47, 47, 17])
VL_PLM = Candidates(fusion="mean", threshold=0.8)


def test_marvel__score_of_the_image_text_model_alone() -> None:
    assert select_candidates(BOXES, CLIP, RPN, CLASSES, Candidates()).tolist() == [1, 5, 4, 2]


def test_vl_plm__mean_with_objectness() -> None:
    fused = candidate_scores(CLIP, RPN, VL_PLM)
    torch.testing.assert_close(fused, torch.tensor([0.960, 0.685, 0.775, 0.700, 0.830, 0.790]))
    assert select_candidates(BOXES, CLIP, RPN, CLASSES, VL_PLM).tolist() == [0, 4]


def test_threshold__is_exclusive() -> None:
    only = torch.tensor([3])
    assert not len(select_candidates(BOXES[only], CLIP[only], RPN[only], CLASSES[only], Candidates(threshold=0.5)))


def test_select__no_box() -> None:
    none = torch.zeros(0)
    found = select_candidates(torch.zeros(0, 4), none, none, none.long(), Candidates())
    assert found.tolist() == []
