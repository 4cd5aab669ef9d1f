"""The table of labels keeps what is written, to the bit, and knows what is not."""

import torch

from pipelines.sfod.methods.fixed_labels import LabelTable
from vision_core.detection.model.detector import Targets


def _targets(count: int) -> Targets:
    return Targets(boxes=torch.rand(count, 4) * 600, labels=torch.randint(0, 20, (count,)))


def test_table__gives_back_what_was_written() -> None:
    table, labels = LabelTable(5, most=3), [_targets(3), _targets(0), _targets(1)]
    best = [torch.tensor(score) for score in (0.9, 0.2, 0.71)]
    table.write(torch.tensor([4, 0, 2]), table.pack(labels, best))
    found = table.read([0, 4, 1, 2])
    assert found[2] is None
    for place, number in ((0, 1), (1, 0), (3, 2)):
        read = found[place]
        assert read is not None
        assert torch.equal(read[0].boxes, labels[number].boxes)
        assert torch.equal(read[0].labels, labels[number].labels)
        assert read[0].labels.dtype == torch.int64
        assert read[1] == best[number]


def test_table__is_saved_and_restored() -> None:
    table, other = LabelTable(2, most=4), LabelTable(2, most=4)
    table.write(torch.tensor([1]), table.pack([_targets(2)], [torch.tensor(0.5)]))
    other.load_state_dict(table.state_dict())
    assert other.read([0]) == [None]
    assert torch.equal(other.rows, table.rows)
