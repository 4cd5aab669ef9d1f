import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.wsi.adoption.foreign import corners, make_clam, rows, write_h5
from vision_core.errors import InputError
from vision_core.slides.features.adopted import read_any_features, read_patch_grid, write_adopted


def _adopt(tmp_path: Path, *, has_h5: bool = False) -> Path:
    clam = make_clam(tmp_path / "clam", {"a": 5}, has_h5=has_h5)
    features = clam / ("h5_files/a.h5" if has_h5 else "pt_files/a.pt")
    coords = None if has_h5 else clam / "patches" / "a.h5"
    return write_adopted(tmp_path / "ours", "a", features, coords, {"mpp": 0.5, "encoder": {"name": "uni"}})


@pytest.mark.parametrize("has_h5", [True, False])
def test_read_any_features__original_with_what_was_added(has_h5: bool, tmp_path: Path) -> None:
    found = read_any_features(_adopt(tmp_path, has_h5=has_h5))
    np.testing.assert_array_equal(found.features[:], rows(5))
    assert found.coords is not None
    np.testing.assert_array_equal(found.coords, corners(5))
    assert found.attributes["mpp"] == 0.5
    assert found.attributes["encoder"] == {"name": "uni"}


def test_read_any_features__both_folders_may_move(tmp_path: Path) -> None:
    path = _adopt(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert len(read_any_features(tmp_path / "there" / path.relative_to(tmp_path / "here"))) == 5


def test_read_any_features__a_file_of_features_itself(tmp_path: Path) -> None:
    assert len(read_any_features(make_clam(tmp_path, {"a": 3}) / "h5_files" / "a.h5")) == 3


def test_read_any_features__original_gone_or_changed(tmp_path: Path) -> None:
    path = _adopt(tmp_path)
    original = tmp_path / "clam" / "pt_files" / "a.pt"
    original.write_bytes(original.read_bytes() + b"\0")
    with pytest.raises(InputError, match="has changed since it was adopted"):
        read_any_features(path)
    original.unlink()
    with pytest.raises(InputError, match=r"its features, '.*a\.pt', are gone"):
        read_any_features(path)


def test_read_any_features__corners_of_another_run(tmp_path: Path) -> None:
    path = _adopt(tmp_path)
    write_h5(tmp_path / "clam" / "patches" / "a.h5", {"coords": corners(4)}, {})
    with pytest.raises(InputError, match=r"5 rows of features, but 4 coords in '.*patches/a\.h5'"):
        read_any_features(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', "\x00"])
def test_read_any_features__damaged(content: str, tmp_path: Path) -> None:
    path = _adopt(tmp_path)
    path.write_text(content)
    with pytest.raises(InputError, match="is damaged, or of another version"):
        read_any_features(path)


def test_write_adopted__says_nothing_of_this_machine(tmp_path: Path) -> None:
    record = json.loads(_adopt(tmp_path).read_text())
    assert record["features"] == "../clam/pt_files/a.pt"
    assert record["coords"] == "../clam/patches/a.h5"


def test_read_patch_grid__not_whole_pixels(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "p.h5", {"coords": corners(3) + 0.5}, {})
    with pytest.raises(InputError, match="no whole pixels"):
        read_patch_grid(path)
    path = write_h5(tmp_path / "q.h5", {"coords": corners(3)[:, 0]}, {})
    with pytest.raises(InputError, match=r"coords have shape \(3,\)"):
        read_patch_grid(path)
