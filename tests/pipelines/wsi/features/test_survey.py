from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.features.survey import Survey, survey_features
from tests.pipelines.wsi.lists import DIM, write_tiles
from vision_core.errors import DataError

LITE = {"name": "lite0", "dim": DIM, "weights": "1f", "precision": "bf16"}


def _record(path: Path) -> SlideRecord:
    return SlideRecord(slide=path.stem, patient=path.stem, label=0, path=path, mpp=None, place=0)


def _survey(*paths: Path, **options: Any) -> Survey:  # noqa: ANN401
    return survey_features([_record(path) for path in paths], **options)


def test_survey_features__what_the_files_say(tmp_path: Path) -> None:
    paths = [write_tiles(tmp_path / f"{count}.h5", count, encoder=LITE, mpp=0.5, tile_px=256) for count in (2, 3)]
    found = _survey(*paths)
    assert (found.feature_dim, found.made_with) == (DIM, {"encoder": LITE, "mpp": 0.5, "tile_px": 256})
    assert found.notes == ()


def test_survey_features__files_that_do_not_say_are_counted(tmp_path: Path) -> None:
    found = _survey(write_tiles(tmp_path / "a.h5", 2, encoder=LITE, mpp=0.5), write_tiles(tmp_path / "b.h5", 3))
    assert found.made_with == {"encoder": LITE, "mpp": 0.5}
    assert found.notes[0].startswith("1 of 2 feature files do not say with which encoder")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"encoder": {**LITE, "weights": "2f"}}, r"b\.h5': encoder is 'lite0'; that of '.*a\.h5' is 'lite0'"),
        ({"encoder": {"name": "uni", "dim": DIM}}, "encoder is 'uni'; that of .* is 'lite0'"),
        ({"mpp": 1.0}, "mpp is '1.0'; that of .* is '0.5'"),
        ({"tile_px": 512}, "tile_px is '512'; that of .* is '256'"),
    ],
)
def test_survey_features__made_in_two_ways(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    first = write_tiles(tmp_path / "a.h5", 2, encoder=LITE, mpp=0.5, tile_px=256)
    with pytest.raises(DataError, match=message):
        _survey(first, write_tiles(tmp_path / "b.h5", 2, **{"encoder": LITE, "mpp": 0.5, "tile_px": 256, **said}))


@pytest.mark.parametrize("said", [{"encoder": {**LITE, "precision": "off"}}, {"mpp": 0.502}])
def test_survey_features__small_differences_are_none(said: dict[str, Any], tmp_path: Path) -> None:
    first = write_tiles(tmp_path / "a.h5", 2, encoder=LITE, mpp=0.5)
    assert _survey(first, write_tiles(tmp_path / "b.h5", 2, **{"encoder": LITE, "mpp": 0.5, **said})).feature_dim == DIM


def test_survey_features__widths_differ_and_the_few_are_told(tmp_path: Path) -> None:
    paths = [write_tiles(tmp_path / f"{name}.h5", 2, dim=dim) for name, dim in zip("abc", (8, 1536, 8), strict=True)]
    with pytest.raises(DataError) as caught:
        _survey(*paths)
    (problem,) = caught.value.problems
    assert "b.h5' has 1536 features a tile, most files have 8" in problem
    assert "these features look like UNI2-h" in problem


def _bad_files(folder: Path) -> list[Path]:
    rows = np.ones((3, DIM), np.float32)
    rows[2, 0] = np.inf
    np.save(folder / "infinite.npy", rows)
    (folder / "empty.h5").touch()
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    return [folder / "infinite.npy", folder / "empty.h5", folder / "objects.npy"]


def test_survey_features__all_bad_files_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _survey(write_tiles(tmp_path / "a.h5", 2), *_bad_files(tmp_path))
    told = "\n".join(caught.value.problems)
    assert "infinite.npy': NaN or infinity in 1 of 3 rows, first 2" in told
    assert "empty.h5' is empty" in told
    assert "objects.npy' may be a pickle of objects" in told


def test_survey_features__bad_files_left_out_on_request(tmp_path: Path) -> None:
    found = _survey(write_tiles(tmp_path / "a.h5", 2), *_bad_files(tmp_path), on_bad="drop")
    assert found.left_out == ("infinite", "empty", "objects")
    assert "slides whose features cannot be used, left out: 3 (infinite, empty, objects)" in found.notes


def test_survey_features__no_tile_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None of the '1' slides has a tile"):
        _survey(write_tiles(tmp_path / "a.h5", 0))


def test_subset__some_of_the_slides(tmp_path: Path) -> None:
    paths = [write_tiles(tmp_path / f"{name}.h5", count) for name, count in zip("abc", (2, 0, 0), strict=True)]
    found = _survey(*paths)
    assert found.without_tissue == ("b", "c")
    assert found.subset([_record(paths[0]), _record(paths[2])]).without_tissue == ("c",)
