import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.pretrain.demo.crops import Area, Piece, Slab, blocks_of, frames_of, slices_of, taken_lines

SLABS = [
    Slab(name="sagittal", axis=0, start=3),
    Slab(name="coronal", axis=1, start=2),
    Slab(name="axial-low", axis=2, start=1),
    Slab(name="axial-high", axis=2, start=41),
]
SHAPE = (101, 44, 82)
WINDOW = (slice(0, 101), slice(1, 43), slice(1, 81))


def _mirrored(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((volume + volume[::-1]) / 2)


def test_slices_of__no_voxel_of_another_part_nor_its_mirror_image_enters_a_slice() -> None:
    volume = 100 * _mirrored(np.random.default_rng(0).random(SHAPE))
    pieces = list(slices_of("brain", volume, SLABS, WINDOW))
    for part in ("train", "val", "test"):
        foreign = volume.copy()
        for axis in range(3):
            lines = taken_lines(SLABS, axis, SHAPE[0] if axis == 0 else None)
            for line, owner in lines.items():
                if owner != part:
                    np.moveaxis(foreign, axis, 0)[line] = np.nan
        blind = [piece for piece in slices_of("brain", foreign, SLABS, WINDOW) if piece.part == part]
        seen = [piece for piece in pieces if piece.part == part]
        assert len(blind) == len(seen) == 4 * {"train": 10, "val": 2, "test": 4}[part]
        for one, other in zip(seen, blind, strict=True):
            assert np.array_equal(one.pixels, other.pixels)  # NaN would be unequal


def test_slices_of__parts_of_a_slab_lie_three_slices_apart() -> None:
    lines = taken_lines(SLABS, 1)
    for line, part in lines.items():
        assert all(lines.get(line + step, part) == part for step in (1, 2, 3))
    assert len(lines) == 16


def test_slices_of__a_filled_line_is_the_mean_of_its_neighbours() -> None:
    volume = 100 * _mirrored(np.random.default_rng(1).random(SHAPE))
    piece = next(each for each in slices_of("brain", volume, SLABS, WINDOW) if each.concept == "coronal")
    assert piece.part == "train"
    assert piece.box[1] == slice(2, 3)
    assert 13 in piece.filled[2]  # axial-low, val
    row = piece.pixels[::-1][13 - 1]  # the window begins at 1
    untouched = [x for x in range(SHAPE[0]) if x not in piece.filled[0]]
    assert np.array_equal(row[untouched], np.rint((volume[:, 2, 12] + volume[:, 2, 14]) / 2)[untouched])


def test_slices_of__background_is_left_out() -> None:
    volume = np.zeros(SHAPE)
    volume[:, :, 60:] = 100 * _mirrored(np.random.default_rng(0).random(SHAPE))[:, :, 60:]
    found = {piece.concept for piece in slices_of("brain", volume, SLABS, WINDOW)}
    assert found == {"sagittal", "coronal", "axial-high"}


def test_blocks_of__parts_share_no_pixel_and_every_class_has_all_parts() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    areas = [
        Area(concept="left", box=(0, 0, 90, 60), grid=(3, 2)),
        Area(concept="right", box=(0, 60, 45, 120), grid=(2, 3)),
        Area(concept="right", box=(45, 60, 90, 120), grid=(2, 3)),
    ]
    pieces = list(blocks_of("picture", picture, areas))
    owned = np.zeros(picture.shape[:2], int)
    for piece in pieces:
        assert np.array_equal(piece.pixels, picture[piece.box])
        owned[piece.box] += 1
    assert owned.max() == 1
    assert _counts(pieces) == {
        ("left", "train"): 3, ("left", "val"): 1, ("left", "test"): 2,
        ("right", "train"): 6, ("right", "val"): 2, ("right", "test"): 4,
    }  # fmt: skip


def test_blocks_of__background_is_left_out() -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:20, :20] = np.random.default_rng(0).integers(0, 255, (20, 20, 3))
    pieces = list(blocks_of("picture", picture, [Area(concept="a", box=(0, 0, 40, 40), grid=(2, 2))]))
    assert [piece.place() for piece in pieces] == ["2-17 2-17"]


@pytest.mark.parametrize(("part", "numbers"), [("train", {0, 2, 4, 6, 8, 28}), ("test", {18, 20, 22, 24})])
def test_frames_of__parts_are_blocks_of_time(part: str, numbers: set[int]) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (30, 20, 20, 3), np.uint8)
    pieces = [
        each
        for each in frames_of("cine", frames, [Area(concept="near", box=(2, 4, 10, 16), grid=(1, 1))])
        if each.part == part
    ]
    assert {piece.box[0].start for piece in pieces} == numbers
    assert all(np.array_equal(each.pixels, frames[each.box[0].start, 2:10, 4:16]) for each in pieces)


def _counts(pieces: list[Piece]) -> dict[tuple[str, str], int]:
    names = [(piece.concept, piece.part) for piece in pieces]
    return {name: names.count(name) for name in names}
