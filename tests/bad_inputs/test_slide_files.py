"""Slide files from public bug reports: the right pixels, or one line that says what is wrong."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.wsi.__main__ import main
from tests.bad_inputs import crashing
from tests.bad_inputs import slide_files as museum
from tests.bad_inputs.slide_dicoms import DicomKind, write_dicom
from tests.bad_inputs.slide_files import STRIPS, TILED
from tests.pipelines.wsi.tiny import make_bundle, picture, write_pyramid
from vision_core.errors import InputError
from vision_core.slides.reading import slide as reading
from vision_core.slides.reading.slide import Slide, open_slide
from vision_core.slides.settings import ReadSettings

Make = Callable[[Path, dict[str, Any]], Path]
LAYOUTS = pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiles", "strips"])
NO_COLOUR = "has one grey channel: the slide has no colour."
LARGER = "begins with a picture of 160 x 128 pixels, while directory {} holds one of 640 x 512. Save that one as a file"
REFUSED: list[tuple[Make, str]] = [
    (museum.channels_as_pages, NO_COLOUR),
    (museum.grey, NO_COLOUR),
    (museum.white_is_zero, NO_COLOUR),
    (museum.palette_of_greys, "has a palette of greys: the slide has no colour."),
    (museum.twelve_bits, "holds 3 channels of 16 bits, not RGB in 8. Save it as a tiled TIFF of RGB in 8 bits"),
    (museum.signed, "holds 3 channels of 8 bits as signed integers, not RGB in 8."),
    (museum.floats, "holds 3 channels of 32 bits as floating-point numbers, not RGB in 8."),
    (museum.cmyk, "is stored as CMYK (photometric 5, 4 channels), not as RGB."),
    (museum.fluorescence, "has 4 channels that are not marked as RGB (fluorescence?): no bright-field slide."),
    (museum.not_marked_as_rgb, "has 3 channels that are not marked as RGB (fluorescence?): no bright-field slide."),
    (museum.many_channels, "holds 1 channel of 16 bits, not RGB in 8."),
    (museum.focal_planes, "holds 3 pictures of 640 x 512 pixels: focal planes, channels or time points"),
    (museum.planes_in_other_files, "is described by OME as 9 channels, 1 focal planes and 1 time points"),
    (museum.lab, "is stored as CIELab (photometric 8, 3 channels), not as RGB."),
    (museum.log_luv, "is stored as LogLuv (photometric 32845, 3 channels), not as RGB."),
    (museum.ycbcr_without_jpeg, "is stored as YCbCr in another compression than JPEG (NONE (1))."),
    (museum.old_jpeg, "is compressed as old-style JPEG (6), which readers decode differently."),
    (museum.unknown_compression, "34887"),
    (museum.thumbnail_first, LARGER.format("1")),
    (museum.image_below_a_thumbnail, LARGER.format("0.0")),
]


def whole(slide: Slide, level: int = 0) -> np.ndarray:
    """All pixels of a level."""
    return slide.read(level, 0, 0, *slide.levels[level].size)


@LAYOUTS
@pytest.mark.parametrize(("make", "reason"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_open_slide__a_file_that_is_no_colour_slide_is_refused(
    make: Make, reason: str, layout: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path / "a.tif", layout)
    with pytest.raises(InputError) as refused:
        open_slide(path)
    assert len(refused.value.problems) == 1
    assert reason in str(refused.value) and str(path) in str(refused.value)
    with pytest.raises(InputError) as again:  # a stated resolution makes it no slide either
        open_slide(path, mpp=0.5)
    assert again.value.problems == refused.value.problems
    assert not capfd.readouterr().err


@LAYOUTS
@pytest.mark.parametrize("orientation", [2, 3, 4, 6, 8])
def test_open_slide__a_turned_image_is_read_as_stored_and_told(
    orientation: int, layout: dict[str, Any], tmp_path: Path
) -> None:
    with open_slide(museum.turned(tmp_path / "a.tif", layout, orientation)) as slide:
        np.testing.assert_array_equal(whole(slide), museum.tissue())
        assert any(f"(orientation {orientation}); pixels are read in the order" in note for note in slide.notes)


@LAYOUTS
def test_open_slide__separate_planes_and_a_palette_are_read(layout: dict[str, Any], tmp_path: Path) -> None:
    with open_slide(museum.separate_planes(tmp_path / "a.tif", layout)) as slide:
        np.testing.assert_array_equal(whole(slide), museum.tissue())
    with open_slide(museum.palette(tmp_path / "b.tif", layout)) as slide:
        colours = np.linspace((90, 40, 120), (243, 241, 244), 256).astype(np.uint8)
        numbers = cv2.cvtColor(museum.tissue(), cv2.COLOR_RGB2GRAY)
        np.testing.assert_array_equal(whole(slide), colours[numbers])


@LAYOUTS
@pytest.mark.parametrize("kind", ["unspecified", "assocalpha", "unassalpha"])
def test_open_slide__a_fourth_channel_never_overflows(kind: str, layout: dict[str, Any], tmp_path: Path) -> None:
    pixels = museum.tissue().astype(float)
    expected = {
        "unspecified": pixels,
        "assocalpha": np.minimum(pixels + 255 - 102, 255),
        "unassalpha": np.rint(pixels * 102 / 255 + 255 - 102),
    }[kind]
    with open_slide(museum.with_alpha(tmp_path / "a.tif", layout, kind)) as slide:
        assert np.abs(whole(slide) - expected).max() <= (1 if kind == "unassalpha" else 0)
        assert any("fourth channel" in note for note in slide.notes)


@LAYOUTS
def test_open_slide__a_fourth_channel_that_no_tag_tells_of_is_left_out(layout: dict[str, Any], tmp_path: Path) -> None:
    with open_slide(museum.fourth_channel_not_listed(tmp_path / "a.tif", layout)) as slide:
        np.testing.assert_array_equal(whole(slide), museum.tissue())
        assert "The meaning of the fourth channel is not stated; it is left out." in slide.notes


@LAYOUTS
@pytest.mark.parametrize("size", [(384, 256), (320, 384), (326, 256)])
def test_open_slide__a_padded_level_is_left_out_and_told(
    size: tuple[int, int], layout: dict[str, Any], tmp_path: Path
) -> None:
    with open_slide(museum.padded_level(tmp_path / "a.tif", layout, size)) as slide:
        assert [level.size for level in slide.levels] == [(640, 512)]
        assert any(
            note.startswith(f"Level 1 ({size[0]} x {size[1]} pixels) is left out: level 0 is") for note in slide.notes
        )
        np.testing.assert_array_equal(whole(slide), museum.tissue())


@LAYOUTS
def test_open_slide__a_level_of_other_steps_in_x_and_y_is_left_out(layout: dict[str, Any], tmp_path: Path) -> None:
    with open_slide(museum.stretched_level(tmp_path / "a.tif", layout)) as slide:
        assert len(slide.levels) == 1
        assert any("level 0 is 2 times as wide and 4 times as high" in note for note in slide.notes)


@LAYOUTS
def test_open_slide__a_picture_of_the_glass_is_no_level(layout: dict[str, Any], tmp_path: Path) -> None:
    with open_slide(museum.picture_of_the_glass(tmp_path / "a.tif", layout)) as slide:
        assert [level.size for level in slide.levels] == [(640, 512)]


@pytest.mark.parametrize(("width", "height"), [(320, 256), (319, 256), (320, 255), (107, 85), (213, 171)])
def test_open_slide__a_level_whose_size_is_rounded_is_kept(width: int, height: int, tmp_path: Path) -> None:
    small = cv2.resize(museum.tissue(), (width, height), interpolation=cv2.INTER_AREA)
    with open_slide(museum.two_levels(tmp_path / "a.tif", TILED, small)) as slide:
        assert [level.size for level in slide.levels] == [(640, 512), (width, height)]
        np.testing.assert_array_equal(whole(slide, 1), small)


def test_open_slide__a_thumbnail_that_is_marked_reduced_hides_no_image(tmp_path: Path) -> None:
    for layout in (TILED, STRIPS):
        with pytest.raises(InputError, match="160 x 128 pixels, while directory 1 holds one of 640 x 512"):
            open_slide(museum.thumbnail_first(tmp_path / "a.tif", layout, is_reduced=True))


@LAYOUTS
def test_open_slide__missing_tiles_are_white_and_counted(layout: dict[str, Any], tmp_path: Path) -> None:
    path = museum.without_tiles(tmp_path / "a.tif", layout, {1, 2}.__contains__)
    total, share = (20, "10.0%") if layout is TILED else (8, "25.0%")
    expected = museum.tissue()
    expected[(slice(0, 128), slice(128, 384)) if layout is TILED else slice(64, 192)] = 255
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), expected)
        assert f"2 of {total} tiles of level 0 ({share}) are not stored in the file; they are white." in slide.notes


@LAYOUTS
def test_open_slide__a_file_without_any_tile_is_refused(layout: dict[str, Any], tmp_path: Path) -> None:
    path = museum.without_tiles(tmp_path / "a.tif", layout, lambda number: True)
    with pytest.raises(InputError, match=r"holds none of its \d+ tiles: the program that wrote it did not finish"):
        open_slide(path)


@pytest.mark.parametrize(
    ("is_rgb", "mark", "found"),
    [
        (True, museum.JFIF, "YCbCr"),
        (True, museum.ADOBE_YCBCR, "YCbCr"),
        (False, museum.ADOBE_RGB, "RGB"),
        (True, museum.ADOBE_RGB, None),
        (False, museum.JFIF, None),
        (False, museum.ADOBE_YCBCR, None),
        (False, b"", None),
    ],
)
def test_open_slide__jpeg_tiles_marked_otherwise_than_their_directory(
    is_rgb: bool, mark: bytes, found: str | None, tmp_path: Path
) -> None:
    path = museum.mislabelled_jpeg(tmp_path / "a.tif", is_rgb_in_header=is_rgb, mark=mark)
    if found is None:
        open_slide(path).close()
        return
    with pytest.raises(InputError, match=f"is marked as {found}, while the directory says"):
        open_slide(path)


def test_open_slide__jpeg_2000_whose_colours_would_be_converted_twice(tmp_path: Path) -> None:
    path = museum.transformed_jpeg2000(tmp_path / "a.tif")
    with pytest.raises(InputError, match="tile 0 of directory 0 is marked as YCbCr, while the directory says RGB"):
        open_slide(path)


def test_open_slide__tiles_larger_than_memory_are_refused_before_openslide_meets_them(tmp_path: Path) -> None:
    """It ends its process where it cannot have the memory for one."""
    path = museum.set_tag(museum.write(tmp_path / "a.tif", museum.tissue()), 323, 2**29)
    with pytest.raises(InputError, match="has tiles of 128 x 536870912 pixels"):
        open_slide(path)


DICOM_REFUSED: list[tuple[str, DicomKind, str]] = [
    (
        "sparse without positions",
        DicomKind(is_sparse=True, positions="none"),
        "holds 20 frames without their positions (PerFrameFunctionalGroupsSequence).",
    ),
    (
        "sparse with empty items",
        DicomKind(is_sparse=True, positions="empty"),
        "does not give the positions of 20 of its 20 frames (PlanePositionSlideSequence).",
    ),
    (
        "sparse with few items",
        DicomKind(is_sparse=True, positions="few"),
        "holds 20 frames and the positions of 19.",
    ),
    (
        "sparse off the grid",
        DicomKind(is_sparse=True, positions="shifted"),
        "holds 20 of 20 frames that lie between tiles.",
    ),
    ("full with half its frames", DicomKind(stored=range(10)), "holds 10 frames for 20 tiles."),
    (
        "JFIF behind RGB",
        DicomKind(mark=museum.JFIF, photometric="RGB"),
        "is marked as YCbCr in its frames, while the header says RGB;",
    ),
    (
        "Adobe's RGB behind YBR",
        DicomKind(mark=museum.ADOBE_RGB, photometric="YBR_FULL_422"),
        "is marked as RGB in its frames, while the header says YBR_FULL_422;",
    ),
    (
        "JPEG 2000 that does not transform",
        DicomKind(is_jpeg2000=True, photometric="YBR_ICT"),
        "is marked as RGB in its frames, while the header says YBR_ICT;",
    ),
    ("YBR_RCT that is no JPEG 2000", DicomKind(photometric="YBR_RCT"), "is stored as YBR_RCT, which does not fit"),
    (
        "twelve bits",
        DicomKind(changes=[("BitsAllocated", 16), ("BitsStored", 12)]),
        "holds 3 channels of 12 bits in 16, not RGB of 8 bits.",
    ),
    ("grey", DicomKind(changes=[("PhotometricInterpretation", "MONOCHROME2")]), NO_COLOUR[:-1]),
    ("focal planes", DicomKind(changes=[("TotalPixelMatrixFocalPlanes", 3)]), "holds 3 focal planes, of which one"),
    ("optical paths", DicomKind(changes=[("NumberOfOpticalPaths", 2)]), "holds 2 optical paths, of which one"),
]


@pytest.mark.parametrize(("name", "kind", "reason"), DICOM_REFUSED, ids=[each[0] for each in DICOM_REFUSED])
def test_open_slide__a_dicom_slide_that_cannot_be_read_as_meant_is_refused(
    name: str, kind: DicomKind, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_dicom(tmp_path / "a.dcm", museum.tissue(), kind)
    with pytest.raises(InputError) as refused:
        open_slide(path)
    assert str(refused.value).startswith(f"'{path}' {reason}")
    assert not capfd.readouterr().err


@pytest.mark.parametrize("is_sparse", [False, True])
def test_open_slide__a_dicom_slide_and_its_levels(is_sparse: bool, tmp_path: Path) -> None:
    half = museum.tissue()[::2, ::2]
    kind = DicomKind(is_sparse=is_sparse)
    path = write_dicom(tmp_path / "a.dcm", museum.tissue(), kind)
    write_dicom(tmp_path / "b.dcm", half, DicomKind(mpp=1.0))
    with open_slide(path) as slide:
        assert [level.size for level in slide.levels] == [(640, 512), (320, 256)] and slide.mpp == 0.5
        np.testing.assert_array_equal(whole(slide), museum.tissue())
        np.testing.assert_array_equal(whole(slide, 1), half)


def test_open_slide__a_padded_level_of_dicom_is_left_out(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", museum.tissue())
    padded = np.full((256, 384, 3), 243, np.uint8)
    padded[:, :320] = museum.tissue()[::2, ::2]
    write_dicom(tmp_path / "b.dcm", padded, DicomKind(mpp=1.0))
    with open_slide(path) as slide:
        assert len(slide.levels) == 1
        assert any(note.startswith("Level 1 (384 x 256 pixels) is left out") for note in slide.notes)


def test_open_slide__a_level_of_dicom_that_is_padded_alike_on_both_sides_is_left_out(tmp_path: Path) -> None:
    """Both sides fit one downsample; the distance of its pixels does not."""
    path = write_dicom(tmp_path / "a.dcm", museum.tissue())
    padded = np.full((307, 384, 3), 243, np.uint8)
    padded[:256, :320] = museum.tissue()[::2, ::2]
    write_dicom(tmp_path / "b.dcm", padded, DicomKind(mpp=1.0))
    with open_slide(path) as slide:
        assert len(slide.levels) == 1
        assert any("level 0 and it cover 0.32 x 0.256 mm and 0.384 x 0.307 mm" in note for note in slide.notes)


def test_open_slide__a_bad_level_of_dicom_is_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", museum.tissue())
    bad = DicomKind(is_sparse=True, positions="none", mpp=1.0)
    write_dicom(tmp_path / "b.dcm", museum.tissue()[::2, ::2], bad)
    with pytest.raises(InputError, match=r"a\.dcm': its level 'b\.dcm' holds 6 frames without their positions"):
        open_slide(path)


def test_open_slide__missing_frames_of_dicom_are_white_and_counted(tmp_path: Path) -> None:
    kind = DicomKind(is_sparse=True, stored=range(5, 20))
    expected = museum.tissue()
    expected[:128] = 255
    with open_slide(write_dicom(tmp_path / "a.dcm", museum.tissue(), kind)) as slide:
        np.testing.assert_array_equal(whole(slide), expected)
        assert "5 of 20 tiles of level 0 (25.0%) are not stored in the file; they are white." in slide.notes


def test_open_slide__mirax_without_its_folder_is_no_picture(tmp_path: Path) -> None:
    """The file beside the folder is a JPEG of the label."""
    path = museum.mirax_alone(tmp_path / "a.mrxs")
    for told in ("is not beside it; copy it", "is incomplete; copy it again"):
        for mpp in (None, 0.5):
            with pytest.raises(InputError, match=f"is no slide without its data: its folder 'a' {told}"):
                open_slide(path, mpp=mpp)
        (tmp_path / "a").mkdir(exist_ok=True)


def test_open_slide__a_grey_picture_has_no_colour(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), cv2.cvtColor(museum.tissue(), cv2.COLOR_RGB2GRAY))
    with pytest.raises(InputError, match="is grey throughout: the slide has no colour"):
        open_slide(path, mpp=0.5)


def test_open_slide__grey_that_is_stored_as_rgb_is_told(tmp_path: Path) -> None:
    pixels = np.repeat(cv2.cvtColor(museum.tissue(), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    with open_slide(museum.write(tmp_path / "a.tif", pixels)) as slide:
        assert "The middle of the slide is grey: it seems to have no colour." in slide.notes


@LAYOUTS
def test_open_slide__stated_microns_win_over_tags_and_descriptions(layout: dict[str, Any], tmp_path: Path) -> None:
    wrong = museum.write(tmp_path / "a.tif", museum.tissue(), layout, resolution=(43_010, 43_010))
    with open_slide(wrong, mpp=0.5) as slide:
        assert slide.mpp == 0.5
        told = "The file gives 0.2325" if layout is TILED else "The TIFF's resolution gives 0.2325"
        assert any(note.startswith(f"{told} microns per pixel and the list of slides 0.5;") for note in slide.notes)
    with open_slide(wrong, ReadSettings(mpp=0.5)) as slide:
        assert slide.mpp == 0.5
    screen = museum.of_a_picture_editor(tmp_path / "b.ome.tif", layout)
    for mpp in (None, 0.5):
        with open_slide(screen, mpp=mpp) as slide:
            assert slide.mpp == 0.5
            assert any("gives 10.58 microns per pixel" in note for note in slide.notes)


def test_predict__one_slide_of_nine_on_which_openslide_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "_INSPECTION", f"{crashing.__name__}:crash_or_inspect")
    folder = tmp_path / "slides"
    for name in ("bad", *map(str, range(8))):
        write_pyramid(folder / f"{name}.tif", picture(30))
    bundle = make_bundle(tmp_path / "model")
    words = ["predict", "--checkpoint", str(bundle), "--input", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 4
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 8
    with (tmp_path / "out" / "failures.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert "bad.tif' made the decoder crash (SIGSEGV)" in row["reason"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["tiles", "dicom"])
def test_predict__notes_of_a_file_stand_beside_its_result(name: str, tmp_path: Path) -> None:
    if name == "tiles":
        path = museum.without_tiles(tmp_path / "a.tif", TILED, {19}.__contains__)
    else:
        kind = DicomKind(is_sparse=True, stored=range(19))
        path = write_dicom(tmp_path / "a.dcm", museum.tissue(), kind)
    bundle = make_bundle(tmp_path / "model")
    assert main(["predict", "--checkpoint", str(bundle), "--input", str(path), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert "1 of 20 tiles of level 0 (5.0%) are not stored in the file; they are white." in row["notice"]
