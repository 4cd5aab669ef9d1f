from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipelines.pretrain.config import Mixing, PretrainConfig
from pipelines.pretrain.data.mixing import mix, record_draws
from tests.pipelines.pretrain.example import close
from tests.pipelines.pretrain.tiny import make_folders, train
from vision_core.config.loading import replace
from vision_core.errors import CheckpointError

IMAGES = torch.stack([torch.full((3, 8, 8), value) for value in (0.0, 1.0, 2.0)])
TARGETS = torch.eye(3)


def _boxes(height: int, width: int, count: int) -> list[tuple[slice, slice, Tensor]]:
    """Rows, columns and targets of cutmix on the first image of a batch, for seeds whose box is not empty."""
    images, found = torch.stack([torch.full((3, height, width), value) for value in (0.0, 1.0, 2.0)]), []
    for seed in range(count):
        mixed, targets = mix(images, TARGETS, Mixing(cutmix=1), seed)
        rows, columns = mixed[0, 0].nonzero(as_tuple=True)
        if len(rows):
            box = slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
            assert len(rows) == mixed[0, 0][box].numel()
            found.append((*box, targets))
    return found


def test_mixup__shares_of_image_and_target() -> None:
    images, targets = mix(IMAGES, TARGETS, Mixing(mixup=1), 1)
    share = float(targets[0, 0])
    assert 0 < share < 1
    close(images[:, 0, 0, 0], [2 * (1 - share), share, 1 + share])  # partners are 2, 0, 1
    close(targets, [[share, 0, 1 - share], [1 - share, share, 0], [0, 1 - share, share]])


def test_cutmix__partner_in_the_box_and_targets_by_area() -> None:
    for rows, columns, targets in _boxes(8, 8, 10):
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / 64
        close(targets, [[share, 0, 1 - share], [1 - share, share, 0], [0, 1 - share, share]])
    images, _ = mix(IMAGES, TARGETS, Mixing(cutmix=1), 0)
    assert set(images[0].unique().tolist()) <= {0.0, 2.0}
    assert (IMAGES[0] == 0).all()


def test_cut_box__area_and_border() -> None:
    boxes = [(rows, columns) for rows, columns, _ in _boxes(16, 32, 60)]
    inner = [
        box
        for box in boxes
        if all(side.start > 0 and side.stop < edge for side, edge in zip(box, (16, 32), strict=True))
    ]
    assert 0 < len(inner) < len(boxes)
    for rows, columns in inner:  # in the image's proportions
        assert abs(2 * (rows.stop - rows.start) - (columns.stop - columns.start)) <= 2
    assert all(rows.stop <= 16 and columns.stop <= 32 for rows, columns in boxes)


def test_mix__off_returns_the_batch_itself() -> None:
    images, targets = mix(IMAGES, TARGETS, Mixing(), 0)
    assert images is IMAGES
    assert targets is TARGETS


@pytest.mark.parametrize("settings", [Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(mixup=0.4, cutmix=1.0)])
def test_mix__what_is_switched_on_acts_and_follows_from_the_seed(settings: Mixing) -> None:
    images, targets = mix(IMAGES, TARGETS, settings, 5)
    torch.rand(3)
    before = torch.get_rng_state()
    again, _ = mix(IMAGES, TARGETS, settings, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, again)
    assert not torch.equal(images, IMAGES)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), targets @ torch.tensor([0.0, 1, 2]))


def test_mix__both_switched_on_take_turns() -> None:
    mixed = [mix(IMAGES, TARGETS, Mixing(mixup=1, cutmix=1), seed)[0][0] for seed in range(20)]
    assert any(image.amax() > image.amin() for image in mixed)  # cutmix makes edges
    assert any(0 < image.amin() == image.amax() < 2 for image in mixed)  # mixup makes a new, even grey


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mixing.mixup": 0.4}, "'mixing.mixup=0.4'"),
        ({"mixing.cutmix": 1.0}, "'mixing.cutmix=1'"),
        (
            {"mixing.cutmix": 1.0, "data.augment.erasing": 0.2},
            "'mixing.cutmix=1, data.augment.erasing=0.2'",
        ),
    ],
)
def test_record_draws__checkpoints_of_other_draws_are_refused_by_name(changes: Mapping[str, float], told: str) -> None:
    learner, earlier = nn.Linear(2, 2), nn.Linear(2, 2).state_dict()
    record_draws(learner, replace(PretrainConfig(), changes))
    learner.load_state_dict(learner.state_dict(), strict=True)
    with pytest.raises(CheckpointError, match=f"written with {told}"):
        learner.load_state_dict(earlier, strict=True)


def test_record_draws__nothing_where_nothing_is_drawn() -> None:
    learner, earlier = nn.Linear(2, 2), nn.Linear(2, 2).state_dict()
    record_draws(learner, PretrainConfig())
    assert learner.state_dict().keys() == earlier.keys()
    learner.load_state_dict(earlier, strict=True)


@pytest.mark.parametrize(
    "change", ["mixing.mixup=0.4", pytest.param("data.augment.erasing=0.5", marks=pytest.mark.slow)]
)
def test_resume__a_checkpoint_from_before_torchvision_drew_is_refused(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = make_folders(tmp_path / "data"), tmp_path / "run"
    assert train(out, data, "policy=none", "train.epochs=1", change) == 0
    assert train(out, data, "policy=none", "train.epochs=1", change, "--resume") == 0
    state = torch.load(out / "last.pt", weights_only=True)
    del state["learner"]["draws"]
    torch.save(state, out / "last.pt")
    assert train(out, data, "policy=none", "train.epochs=1", change, "--resume") != 0
    assert f"written with '{change}' by a version whose random draws were others" in capsys.readouterr().err
