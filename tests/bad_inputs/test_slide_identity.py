"""What one slide is: DICOM series, masks, microns per pixel and lists by path; what lies beside slides."""

import csv
import gzip
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.wsi.__main__ import main
from pipelines.wsi.cohort.cohort import examine_cohort, read_cohort
from pipelines.wsi.cohort.file_matching import match_files
from pipelines.wsi.cohort.slide_list import read_slide_list, stated_mpps
from pipelines.wsi.features.slide_processing import SlideProcessor
from tests.bad_inputs import dicoms
from tests.bad_inputs.seen import Seen
from tests.pipelines.wsi.lists import config_of, labelled, write_list
from tests.pipelines.wsi.tiny import damage_tile, make_bundle, picture, write_pyramid
from tests.vision_core.slides.dicom_slides import PERSON, write_series
from vision_core.errors import DataError
from vision_core.slides.identity import same_files
from vision_core.slides.reading.listing import find_slides
from vision_core.slides.reading.slide import Slide, open_slide
from vision_core.slides.tissue.edited_masks import check_masks, find_mask


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture
def seen(capsys: pytest.CaptureFixture[str]) -> Seen:
    return Seen(main, capsys)


def _predict(bundle: Path, slides: Path, out: Path, *words: str) -> list[str]:
    return ["predict", "--checkpoint", str(bundle), "--input", str(slides), "--out", str(out), *words]


def _results(out: Path) -> dict[str, dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8") as file:
        return {str(Path(row["input"]).name): row for row in csv.DictReader(file)}


# DICOM series


def test_dicom__a_series_is_one_slide_and_its_label_is_never_read(
    bundle: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_series(tmp_path / "slides", picture(0), steps=(1, 2, 4))
    dicoms.still(tmp_path / "slides" / "ct.dcm")
    read: list[tuple[int, int]] = []
    whole = Slide.read

    def note(self: Slide, *region: int, **others: bool) -> object:
        read.append(self.size)
        return whole(self, *region, **others)

    monkeypatch.setattr(Slide, "read", note)
    told = seen.done(_predict(bundle, tmp_path / "slides", tmp_path / "out"))
    assert "1 of 1 inputs done" in told
    assert "Left out of" in told and "1 DICOM of CT, no slide ('ct.dcm')" in told
    assert PERSON not in told and dicoms.PERSON not in told
    assert list(_results(tmp_path / "out")) == ["a-volume1.dcm"]
    assert set(read) == {(512, 512)}
    with open_slide(files[-1]) as slide:
        np.testing.assert_array_equal(slide.read(0, 100, 200, 64, 32), picture(0)[200:232, 100:164])


def test_dicom__two_series_in_a_folder_are_two_slides(tmp_path: Path) -> None:
    for number, series in enumerate("ab"):
        write_series(tmp_path, picture(number), series)
    write_series(tmp_path / "c", picture(2), "c", names="{kind}{step}")  # without a suffix, as archives export them
    listing = find_slides(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in listing.slides] == [
        "a-volume1.dcm", "b-volume1.dcm", "c/volume1"
    ]  # fmt: skip
    assert [len(listing.instances[path]) for path in listing.slides] == [4, 4, 4]
    assert listing.notes() == []


def test_dicom__instances_in_folders_of_their_own_are_one_slide(tmp_path: Path) -> None:
    for path in write_series(tmp_path, picture(0)):
        (tmp_path / path.stem).mkdir()
        path.rename(tmp_path / path.stem / path.name)
    listing = find_slides(tmp_path)
    assert [path.name for path in listing.slides] == ["a-volume1.dcm"]
    assert "1 DICOM of a series that is read from another folder ('a-volume4/a-volume4.dcm')" in listing.notes()[0]


def test_dicom__a_label_alone_is_no_slide_and_a_damaged_file_fails_by_name(bundle: Path, tmp_path: Path) -> None:
    label, *_, volume = write_series(tmp_path / "all", picture(0))
    (tmp_path / "slides").mkdir()
    label.rename(tmp_path / "slides" / label.name)
    (tmp_path / "slides" / "cut.dcm").write_bytes(volume.read_bytes()[:300])
    listing = find_slides(tmp_path / "slides")
    assert [path.name for path in listing.slides] == ["cut.dcm"]
    assert listing.notes()[0].endswith("1 DICOM label or overview without its slide ('a-label.dcm').")


@pytest.mark.parametrize("stated", ["a-volume1", "a-volume4.dcm", "folder-a", "uid"])
def test_dicom__a_list_may_name_any_file_of_a_slide(stated: str, tmp_path: Path) -> None:
    for name in "ab":
        write_series(tmp_path / f"folder-{name}", picture(0), name)
    listing = find_slides(tmp_path)
    first, second = ({path: uid for uid, path in listing.series.items()}[path] for path in listing.slides)
    rows = [f"{first if stated == 'uid' else stated},x", f"{second if stated == 'uid' else 'b-volume1'},y"]
    found = match_files(labelled(tmp_path, ["slide,label", *rows]), listing, "refuse").records
    assert [record.path for record in found] == list(listing.slides)


def test_dicom__two_levels_of_a_slide_in_a_list_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, picture(0))
    rows = [f"a-volume{step},{label},{split}" for step, label, split in ((1, "x", "train"), (4, "y", "test"))]
    write_list(tmp_path, ["slide,label,split", *rows])
    seen = [problem for problem in _validated(tmp_path) if "both stand for the file of" in problem]
    assert seen == [
        f"'{tmp_path / 'labels.csv'}': rows 2 and 3 both stand for the file of 'a-volume1'. Keep one of them."
    ]


def test_dicom__another_level_that_changed_is_noticed(tmp_path: Path) -> None:
    *_, first, other = sorted(write_series(tmp_path, picture(0), steps=(1, 2)))
    processor = SlideProcessor(config_of({}), None)  # type: ignore[arg-type]
    slide = find_slides(tmp_path).slides[0]
    changed = other if slide == first else first
    before = processor.follows(slide)
    assert before
    changed.write_bytes(changed.read_bytes()[:-2] + b"\1\2")
    assert processor.follows(slide) != before
    assert processor.follows(write_pyramid(tmp_path / "other" / "a.tif", picture(1))) == ""


# Masks


def _mask(path: Path, box: Sequence[int] = (0, 0, 512, 512)) -> Path:
    left, top, right, bottom = box
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


def test_masks__one_that_fits_two_slides_is_refused_with_both(bundle: Path, tmp_path: Path, seen: Seen) -> None:
    for name in "ab":
        write_pyramid(tmp_path / "slides" / name / "x.tif", picture(ord(name)))
    _mask(tmp_path / "masks" / "x.tissue.geojson")
    words = _predict(bundle, tmp_path / "slides", tmp_path / "out", f"tissue.regions={tmp_path / 'masks'}")
    seen.refused(words, 2, "x.tissue.geojson' fits 2 slides", "a/x.tif' and ", "b/x.tif'", "as in 'a/x.tissue.geojson'")
    (tmp_path / "masks" / "a").mkdir()
    (tmp_path / "masks" / "x.tissue.geojson").rename(tmp_path / "masks" / "a" / "x.tissue.geojson")
    seen.done(words)
    notes = {Path(row["input"]).parent.name: row["notice"] for row in _rows(tmp_path / "out")}
    assert "Tissue as drawn" in notes["a"] and "Tissue as drawn" not in notes["b"]


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_masks__of_no_slide_are_named_and_two_of_a_slide_refused(bundle: Path, tmp_path: Path, seen: Seen) -> None:
    write_pyramid(tmp_path / "slides" / "x.tif", picture(0))
    _mask(tmp_path / "masks" / "X.TIF.geojson")
    _mask(tmp_path / "masks" / "other.geojson")
    words = _predict(bundle, tmp_path / "slides", tmp_path / "out", f"tissue.regions={tmp_path / 'masks'}")
    told = seen.done(words)
    assert "1 edited masks of" in told and "1 are of none of the slides: 'other.geojson'" in told
    assert "Tissue as drawn in 'X.TIF.geojson'" in _results(tmp_path / "out")["x.tif"]["notice"]
    _mask(tmp_path / "masks" / "x.tissue.geojson")
    seen.refused(words, 2, "x.tif' has 2 edited masks")


@pytest.mark.parametrize(
    "name",
    ["x.geojson", "x.tif.geojson", "x.tissue.geojson", "x.tissue.geojson.gz", "x.tif.tissue.geojson", "X.GeoJSON"],
)
def test_masks__are_found_under_every_name_that_programs_give_them(name: str, tmp_path: Path) -> None:
    written = _mask(tmp_path / "masks" / name)
    if name.endswith(".gz"):
        written.write_bytes(gzip.compress(written.read_bytes()))
    slide = tmp_path / "slides" / "x.tif"
    assert find_mask(tmp_path / "masks", slide) == written
    assert check_masks(tmp_path / "masks", [slide]) == [f"1 edited masks of '{tmp_path / 'masks'}' are used."]
    assert find_mask(tmp_path / "masks", slide.with_name("y.tif")) is None


# Microns per pixel


def test_mpp__a_list_states_it_by_path(tmp_path: Path) -> None:
    for name in "ab":
        write_pyramid(tmp_path / name / "x.tif", picture(0), mpp=None)
    write_list(tmp_path, ["slide,mpp", "a/x.tif,0.25", "b/x.tif,0.5"], "list.csv")
    processor = SlideProcessor(config_of({}), None, stated_mpps(tmp_path / "list.csv"))  # type: ignore[arg-type]
    for name, mpp in (("a", 0.25), ("b", 0.5)):
        with processor.open(tmp_path / name / "x.tif") as slide:
            assert slide.mpp == mpp
    write_list(tmp_path, ["slide,mpp", "a/x.tif,0.25", "./a/x.tif,0.5"], "twice.csv")
    with pytest.raises(DataError, match=r"rows 2 and 3 state '0\.25' and '0\.5'"):
        read_slide_list(tmp_path / "twice.csv")


# One file under several names


def _cohort_of(tmp_path: Path, labels: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Four slides of their own, and one more under as many names as there are labels."""
    rows = ["slide,label,split"]
    for number, (label, split) in enumerate((("x", "train"), ("y", "train"), ("x", "val"), ("y", "val"))):
        write_pyramid(tmp_path / f"s{number}.tif", picture(number))
        rows.append(f"s{number},{label},{split}")
    first = write_pyramid(tmp_path / "copy0.tif", picture(9))
    for number, (label, split) in enumerate(zip(labels, splits, strict=True)):
        if number == 1:
            os.link(first, tmp_path / "copy1.tif")
        elif number:
            shutil.copy(first, tmp_path / f"copy{number}.tif")
        rows.append(f"copy{number},{label},{split}")
    write_list(tmp_path, rows)
    return _validated(tmp_path)


def _validated(root: Path) -> list[str]:
    found = examine_cohort(config_of({"root": root}), find_slides(root))
    return [*found.problems, *found.notes]


def test_same_file__under_two_labels_or_on_two_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    told = "\n".join(_cohort_of(tmp_path / "a", "xxy", ("train", "train", "train")))
    assert "the same slide is there under 3 names" in told and "with the labels 'x' and 'y'" in told
    config = config_of({"root": tmp_path / "a", "eval_split": None})
    with pytest.raises(DataError, match="the same slide is there under 3 names"):
        read_cohort(config, find_slides(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    told = "\n".join(_cohort_of(tmp_path / "b", "xx", ("train", "test")))
    assert "on the lists 'test' and 'train'" in told


def test_same_file__on_one_list_is_told_loudly(tmp_path: Path) -> None:
    told = _cohort_of(tmp_path, "xx", ("test", "test"))
    assert [each for each in told if each.startswith("THE SAME SLIDE under several names")]
    assert not [each for each in told if each.startswith("'")]
    cohort = read_cohort(config_of({"root": tmp_path}), find_slides(tmp_path))
    assert any(note.startswith("THE SAME SLIDE") for note in cohort.notes)


def test_same_files__files_of_one_size_are_told_apart(tmp_path: Path) -> None:
    content = bytearray(np.random.default_rng(0).bytes(300_000))
    (tmp_path / "a").write_bytes(content)
    content[150_000:150_004] = b"\1\2\3\4"
    (tmp_path / "b").write_bytes(content)
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert list(same_files(tmp_path / name for name in "abc")) == [(tmp_path / "a", tmp_path / "c")]


# What lies beside slides


def test_listing__other_suffixes_are_read_or_named(bundle: Path, tmp_path: Path, seen: Seen) -> None:
    slides = tmp_path / "slides"
    write_pyramid(slides / "a.tif", picture(0))
    for number, suffix in enumerate((".qptiff", ".btf", ".ptif", ".tf8", ".tf2"), start=1):
        write_pyramid(slides / f"n{number}.tif", picture(number)).rename(slides / f"n{number}{suffix}")
    for name in ("x.isyntax", "x.vsi", "x.zvi", "x.qptiff", ".hidden.svs", "notes.txt"):
        (slides / name).write_bytes(b"no TIFF")
    os.mkfifo(slides / "pipe.svs")
    told = seen.done(_predict(bundle, slides, tmp_path / "out"))
    assert "6 of 6 inputs done" in told
    kinds = ("1 .isyntax ('x.isyntax')", "1 .vsi ('x.vsi')", "1 .zvi ('x.zvi')", "1 .qptiff that is no TIFF")
    for each in (*kinds, "pipe.svs", "notes.txt"):
        assert each in told
    assert ".hidden" not in told


def test_listing__parts_of_a_slide_are_not_left_out(tmp_path: Path) -> None:
    for name in ("m.mrxs", "m/Data0001.dat", "m/Slidedat.ini", "v.vms", "v.opt", "v_map.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = find_slides(tmp_path)
    assert [path.name for path in listing.slides] == ["m.mrxs", "v.vms"] and listing.notes() == []


def test_max_bad_tiles__given_to_predict_takes_effect(bundle: Path, tmp_path: Path, seen: Seen) -> None:
    damage_tile(write_pyramid(tmp_path / "slides" / "a.tif", picture(0)))
    words = _predict(bundle, tmp_path / "slides", tmp_path / "out")
    assert main(words) == 3
    told = (tmp_path / "out" / "failures.csv").read_text()
    assert "allow unreadable tiles with read.max_bad_tiles" in told
    seen.done([*_predict(bundle, tmp_path / "slides", tmp_path / "more"), "read.max_bad_tiles=100"])
    notes = _results(tmp_path / "more")["a.tif"]["notice"]
    assert "tiles cannot be read and are left out" in notes
