from pathlib import Path

import pytest

from pipelines.wsi.adoption.foreign_folders import find_clam, find_trident, read_splits
from tests.pipelines.wsi.adoption.foreign import make_clam, make_trident, write_splits
from tests.pipelines.wsi.lists import write_list
from vision_core.errors import DataError


def test_find_clam__h5_before_pt_with_patches_labels_and_splits(tmp_path: Path) -> None:
    folder = make_clam(tmp_path, {"a": 2, "b": 3})
    (folder / "h5_files" / "b.h5").unlink()
    write_splits(folder, 0, ["a"], [], ["b"])
    found = find_clam(folder)
    assert {name: path.name for name, path in found.features.items()} == {"a": "a.h5", "b": "b.pt"}
    assert {name: str(path.relative_to(folder)) for name, path in found.patches.items()} == {
        "a": "patches/a.h5",
        "b": "patches/b.h5",
    }
    assert [path.name for path in found.tables] == ["task.csv"]
    assert {number: path.name for number, path in found.splits.items()} == {0: "splits_0.csv"}
    assert found.encoder is None


def test_find_clam__two_sets_of_features(tmp_path: Path) -> None:
    make_clam(tmp_path / "uni", {"a": 2})
    make_clam(tmp_path / "conch", {"a": 2})
    with pytest.raises(DataError, match=r"conch/h5_files/a\.h5' and '.*uni/h5_files/a\.h5' are of one slide"):
        find_clam(tmp_path)


def test_find_clam__what_an_earlier_adoption_wrote_is_passed_over(tmp_path: Path) -> None:
    folder = make_clam(tmp_path, {"a": 2, "b": 3})
    write_list(folder / "ours", ["slide,label", "a,x"])
    assert len(find_clam(folder).tables) == 2
    assert len(find_clam(folder, folder / "ours").tables) == 1


def test_find_clam__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folder 'h5_files' or 'pt_files'"):
        find_clam(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        find_clam(tmp_path / "none")


@pytest.mark.parametrize("below", [".", "20x_256px_0px_overlap", "20x_256px_0px_overlap/features_uni_v1"])
def test_find_trident__from_any_of_its_folders(below: str, tmp_path: Path) -> None:
    found = find_trident(make_trident(tmp_path, {"a": 2, "b": 1}) / below)
    assert sorted(found.features) == sorted(found.patches) == ["a", "b"]
    assert found.encoder == "uni"


def test_find_trident__several_encoders(tmp_path: Path) -> None:
    folder = make_trident(tmp_path, {"a": 2})
    other = folder / "20x_256px_0px_overlap" / "features_virchow2"
    other.mkdir()
    (other / "a.h5").touch()
    with pytest.raises(DataError, match=r"features_uni_v1', '.*features_virchow2'\. Give the folder of one encoder"):
        find_trident(folder)
    assert find_trident(other).encoder == "virchow2"


def test_find_trident__not_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folder 'features_<encoder>'"):
        find_trident(make_clam(tmp_path, {"a": 1}))


def test_read_splits__lists_of_different_length(tmp_path: Path) -> None:
    path = write_splits(tmp_path, 0, ["a", "b.svs", "c"], ["d"], ["e", "f"])
    assert read_splits(path) == {"a": "train", "b": "train", "c": "train", "d": "val", "e": "test", "f": "test"}


def test_read_splits__slide_on_two_lists_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3: slide 'a' is in test and in train|row 3: slide 'a' is in train"):
        read_splits(write_splits(tmp_path, 0, ["b", "a"], [], ["a"]))
    with pytest.raises(DataError, match="has no column 'train'"):
        read_splits(write_list(tmp_path, ["slide,label", "a,x"]))
