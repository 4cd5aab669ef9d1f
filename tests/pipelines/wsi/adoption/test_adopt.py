from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.wsi.adoption.adopt import AdoptionSettings, ReencodingCheck, adopt
from pipelines.wsi.adoption.foreign_folders import ForeignFolder, find_clam, find_trident
from pipelines.wsi.cohort.cohort import read_cohort
from pipelines.wsi.cohort.file_matching import list_features
from pipelines.wsi.cohort.labels import read_labels
from pipelines.wsi.features.survey import survey_features
from tests.pipelines.wsi.adoption.foreign import corners, make_clam, make_trident, write_h5, write_splits
from tests.pipelines.wsi.lists import config_of, write_list
from vision_core.errors import DataError
from vision_core.slides.features.adopted import read_any_features

TILES = {"a": 4, "b": 3, "c": 2, "d": 0}


def _said(
    encoder: str | None = None,
    tile_mpp: float | None = None,
    slide_mpp: float | None = None,
    slide_mpps: Mapping[str, float] | None = None,
) -> AdoptionSettings:
    return AdoptionSettings(encoder=encoder, tile_mpp=tile_mpp, slide_mpp=slide_mpp, slide_mpps=slide_mpps or {})


def _adopt(found: ForeignFolder, said: AdoptionSettings, out: Path, labels: Path | None = None) -> list[str]:
    return adopt(found, labels, said, out, lambda _: None)


def _attributes(out: Path, slide: str) -> Mapping[str, Any]:
    return read_any_features(out / "features" / f"{slide}.adopted.json").attributes


@pytest.mark.parametrize("has_h5", [True, False])
def test_adopt__clam_becomes_a_data_root(has_h5: bool, tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", TILES, has_h5=has_h5, level=1, downsample=2.0, patch_size=256)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = _adopt(find_clam(folder), _said("resnet50", slide_mpp=0.25), tmp_path / "ours")
    expected = {
        "origin": "CLAM",
        "encoder": {"name": "resnet50", "dim": 5},
        "mpp": 0.5,
        "mpp_source": "read.mpp",
        "tile_px": 256,
        "tile_side": 512,
    }
    found = _attributes(tmp_path / "ours", "a")
    assert {name: found[name] for name in expected} == expected
    assert read_any_features(tmp_path / "ours" / "features" / "a.adopted.json").coords is not None
    labels = read_labels(tmp_path / "ours" / "labels.csv")
    assert [(each.slide, each.patient, each.label) for each in labels.slides] == [
        ("a", "case0", 0),
        ("b", "case0", 1),
        ("c", "case1", 0),
        ("d", "case1", 1),
    ]
    assert told[0] == "4 feature files of CLAM, 5 features a tile, encoder resnet50."
    assert told[1] == "Microns per pixel of 4 slides' tiles by read.mpp: 0.5."
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_adopt__what_was_adopted_trains(tmp_path: Path) -> None:
    slides = {f"s{place:02d}": 3 for place in range(24)}
    _adopt(find_clam(make_clam(tmp_path / "clam", slides)), _said("uni", tile_mpp=0.25), tmp_path / "ours")
    config = config_of({"root": tmp_path / "ours", "format": "features", "protocol": "stratified"})
    cohort = read_cohort(config, list_features(tmp_path / "ours" / "features"))
    found = survey_features([*cohort.train, *cohort.val, *cohort.test])
    assert found.made_with == {"encoder": {"name": "uni", "dim": 5}, "mpp": 0.25, "tile_px": 512}
    assert found.notes == ()


def test_adopt__trident_says_encoder_and_magnification(tmp_path: Path) -> None:
    found = find_trident(make_trident(tmp_path / "trident", TILES))
    labels = write_list(tmp_path, ["slide,label,age", "a,x,4", "b,y,5", "c,x,6", "d,y,7"])
    told = _adopt(found, _said(), tmp_path / "ours", labels)
    assert _attributes(tmp_path / "ours", "b")["encoder"] == {"name": "uni", "dim": 5}
    assert _attributes(tmp_path / "ours", "b")["mpp"] == 0.5
    assert "Microns per pixel of 4 slides' tiles by the magnification, 20x: 0.5." in told


def test_adopt__slides_know_better_than_a_magnification(tmp_path: Path) -> None:
    found = find_trident(make_trident(tmp_path / "trident", {"a": 2, "b": 2}))
    told = _adopt(found, _said(slide_mpps={"a": 0.2325}), tmp_path / "ours")
    assert _attributes(tmp_path / "ours", "a")["mpp"] == 0.465
    assert "Microns per pixel of 1 slides' tiles by the slide: 0.465." in told
    assert told[-1].startswith("No CSV with columns slide and label was found")


def test_adopt__asks_once_for_all_that_is_missing(tmp_path: Path) -> None:
    found = find_clam(make_clam(tmp_path / "clam", TILES))
    with pytest.raises(DataError) as caught:
        _adopt(found, _said(), tmp_path / "ours")
    (problem,) = caught.value.problems
    assert "encoder.name=resnet50" in problem
    assert "tiles.mpp=0.5" in problem
    assert "read.mpp=0.25" in problem
    assert not (tmp_path / "ours").exists()
    with pytest.raises(DataError, match=r"does not write down the microns per pixel"):
        _adopt(found, _said("uni"), tmp_path / "ours")
    with pytest.raises(DataError, match=r"does not write down the encoder"):
        _adopt(found, _said(tile_mpp=0.5), tmp_path / "ours")


def test_adopt__microns_of_the_list(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", {"a": 2, "b": 2})
    labels = write_list(tmp_path, ["slide,label,mpp", "a,x,0.25", "b,y,0.5"])
    told = _adopt(find_clam(folder), _said("uni"), tmp_path / "ours", labels)
    assert [_attributes(tmp_path / "ours", name)["mpp"] for name in "ab"] == [0.25, 0.5]
    assert "Microns per pixel of 2 slides' tiles by the list: 0.25 to 0.5." in told
    assert [each.mpp for each in read_labels(tmp_path / "ours" / "labels.csv").slides] == [0.25, 0.5]


def test_adopt__microns_that_contradict_the_slide(tmp_path: Path) -> None:
    found = find_clam(make_clam(tmp_path / "clam", {"a": 2, "b": 2}))
    told = r"slide 'a': tiles\.mpp is '0\.5', but by the slide its tiles of 512 px have 0\.25"
    with pytest.raises(DataError, match=told):
        _adopt(found, _said("uni", tile_mpp=0.5, slide_mpps={"a": 0.25}), tmp_path / "ours")


def test_adopt__patches_of_another_run(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", {"a": 2, "b": 2, "c": 2})
    write_h5(folder / "patches" / "a.h5", {"coords": corners(5)}, {"patch_size": 512, "patch_level": 0})
    write_h5(folder / "patches" / "b.h5", {"coords": corners(2) + 7}, {"patch_size": 512, "patch_level": 0})
    with pytest.raises(DataError) as caught:
        _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours")
    first, second = caught.value.problems
    assert "a.h5' has '5' tiles, the features of that slide '2'" in first
    assert "b.h5' has its tiles elsewhere" in second


def test_adopt__damaged_files_are_all_told_and_nothing_is_written(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", {"a": 2, "b": 2})
    for name in "ab":
        (folder / "h5_files" / f"{name}.h5").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours")
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "ours").exists()


def test_adopt__one_split_stands_in_the_list(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", TILES)
    write_splits(folder, 0, ["a", "b"], ["c"], ["d"])
    _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours")
    assert [each.split for each in read_labels(tmp_path / "ours" / "labels.csv").slides] == [
        "train",
        "train",
        "val",
        "test",
    ]


def test_adopt__repeated_splits_stand_in_lists_of_their_own(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", TILES)
    write_splits(folder, 0, ["a", "b"], ["c"], ["d"])
    write_splits(folder, 1, ["a", "d"], [], ["b"])
    told = _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours")
    assert "split" not in read_labels(tmp_path / "ours" / "labels.csv").columns
    second = read_labels(tmp_path / "ours" / "labels-split-1.csv")
    assert [(each.slide, each.split) for each in second.slides] == [("a", "train"), ("b", "test"), ("d", "train")]
    assert "2 splits stand in lists of their own" in told[-1]


def test_adopt__test_lists_that_divide_all_slides_are_folds(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", TILES)
    write_splits(folder, 0, ["c"], ["d"], ["a", "b"])
    write_splits(folder, 1, ["a", "b"], [], ["c", "d"])
    _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours")
    assert [each.fold for each in read_labels(tmp_path / "ours" / "labels.csv").slides] == [0, 0, 1, 1]


def test_adopt__splits_of_other_slides(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", TILES)
    write_splits(folder, 0, ["a", "z"], ["c"], ["d"])
    with pytest.raises(DataError, match=r"splits_0\.csv': '1' slides have no label, first 'z'"):
        _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours")


def test_adopt__several_lists_of_labels(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", TILES)
    other = write_list(folder / "dataset_csv", ["slide_id,label", *(f"{name},{name}" for name in TILES)], "other.csv")
    with pytest.raises(DataError, match=r"'2' CSVs have slides and labels: .*Name one as data\.labels"):
        _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours")
    _adopt(find_clam(folder), _said("uni", tile_mpp=0.5), tmp_path / "ours", other)
    assert read_labels(tmp_path / "ours" / "labels.csv").classes == ("a", "b", "c", "d")


def test_adopt__encoder_as_it_proved_to_be(tmp_path: Path) -> None:
    asked: list[str] = []

    def check(adoption: Any) -> ReencodingCheck:  # noqa: ANN401
        asked.append(adoption.slide)
        return ReencodingCheck(cosine=0.9991, encoder={"name": "uni", "dim": 5, "weights": "5ab"})

    found = find_clam(make_clam(tmp_path / "clam", {f"s{place:02d}": 2 for place in range(23)}))
    told = adopt(found, None, _said("uni", tile_mpp=0.5), tmp_path / "ours", check)
    assert asked == ["s00", "s04", "s08", "s12", "s16"]
    assert _attributes(tmp_path / "ours", "s22")["encoder"] == {"name": "uni", "dim": 5, "weights": "5ab"}
    assert "Tiles of 5 slides encoded again are alike: lowest cosine 0.9991." in told


def test_adopt__microns_of_the_list_win_over_those_of_the_slide(tmp_path: Path) -> None:
    folder = make_clam(tmp_path / "clam", TILES, has_h5=True, level=0, patch_size=256)
    labels = write_list(tmp_path, ["slide,label,mpp", *(f"{name},{name < 'c'},0.5" for name in TILES)])
    told = _adopt(find_clam(folder), _said("uni", slide_mpps=dict.fromkeys(TILES, 0.2325)), tmp_path / "ours", labels)
    assert _attributes(tmp_path / "ours", "a")["mpp"] == 0.5
    assert any("by the list" in line for line in told)
