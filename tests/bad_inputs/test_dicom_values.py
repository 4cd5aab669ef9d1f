import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.bad_inputs import dicom_values as museum
from tests.bad_inputs.dicoms import dataset, ramp, still
from tests.vision_core.dicom.generated import write
from vision_core.dicom.reader import inspect_dicom, open_cine, read_dicom_image, read_noted_dicom
from vision_core.errors import InputError
from vision_core.images.reading import read_image

Make = Callable[[Path], museum.Shown]
_UNSAID = ("RGB", "YBR_FULL", "YBR_FULL_422")

# Each with the note that must be given; None: there is nothing to tell.
EXACT: dict[str, tuple[Make, str | None]] = {
    **{
        f"overlay {syntax.name}": (partial(museum.overlay, syntax=syntax), None)
        for syntax in (
            ExplicitVRLittleEndian,
            ExplicitVRBigEndian,
            RLELossless,
            JPEG2000Lossless,
            JPEGLSLossless,
            JPEGLosslessSV1,
        )
    },
    "overlay undeclared": (
        partial(museum.overlay, syntax=JPEG2000Lossless, is_declared=False),
        "has bits set above the 12 that it declares as stored",
    ),
    "sign": (museum.sign_in_bit_eleven, None),
    "padding range": (museum.padding_range, None),
    "padding inverted": (museum.padding_inverted, None),
    "padding unsigned": (museum.padding_unsigned, None),
    "padding float": (museum.padding_float, None),
    "negative slope": (museum.negative_slope, None),
    "window of one": (museum.window_of_one, None),
    "windows": (museum.windows, "has 2 windows; the first is used"),
    "second window": (
        partial(museum.windows, widths=(0, 20)),
        "has a window of the width 0 at 100, which shows nothing; another window is used",
    ),
    "window 0": (partial(museum.no_window, width=0), "has a window of the width 0 at 40, which shows nothing"),
    "window -5": (partial(museum.no_window, width=-5), "has a window of the width -5 at 40, which shows nothing"),
    "monochrome 1": (partial(museum.inverse, kind="MONOCHROME1", shape="INVERSE", is_inverted=True), None),
    "monochrome 2": (partial(museum.inverse, kind="MONOCHROME2", shape="IDENTITY", is_inverted=False), None),
    "monochrome 1 identity": (
        partial(museum.inverse, kind="MONOCHROME1", shape="IDENTITY", is_inverted=True),
        "declares MONOCHROME1 and PresentationLUTShape IDENTITY; small values are shown white",
    ),
    "monochrome 2 inverse": (
        partial(museum.inverse, kind="MONOCHROME2", shape="INVERSE", is_inverted=True),
        "declares MONOCHROME2 and PresentationLUTShape INVERSE; small values are shown white",
    ),
    "modality table": (museum.modality_table, None),
    "display table": (museum.display_table_and_window, "has a display table and a window; the table is used"),
    "palette 8 bits": (partial(museum.palette, descriptor=(200, 0, 8), dtype="<u1"), None),
    "palette 8 bits in words": (partial(museum.palette, descriptor=(200, 0, 8), dtype="<u2"), None),
    "palette 16 bits": (partial(museum.palette, descriptor=(256, 0, 16), dtype="<u2"), None),
    "palette first": (partial(museum.palette, descriptor=(100, 5, 16), dtype="<u2"), None),
    "palette 65536": (partial(museum.palette, descriptor=(0, 0, 16), dtype="<u2"), None),
    "palette 65536 bytes": (partial(museum.palette, descriptor=(0, 0, 8), dtype="<u1"), None),
    "JPEG 2000 transform RGB": (partial(museum.jpeg_2000_transform, declared="RGB", has_transform=True), None),
    "JPEG 2000 transform RCT": (partial(museum.jpeg_2000_transform, declared="YBR_RCT", has_transform=True), None),
    "JPEG 2000 transform twice": (
        partial(museum.jpeg_2000_transform, declared="YBR_FULL", has_transform=True),
        "declares colours as YBR_FULL; its compressed image is RGB and read as such",
    ),
    "JPEG 2000 RGB": (partial(museum.jpeg_2000_transform, declared="RGB", has_transform=False), None),
    "extended offsets": (partial(museum.frames_in_pieces, is_extended=True), None),
    "pieces": (partial(museum.frames_in_pieces, is_extended=False), None),
    "groups": (museum.groups, None),
    "one bit": (museum.one_bit_frames, None),
    "big-endian words": (museum.big_endian_words, None),
    "profile": (museum.profile, "has a colour profile other than sRGB, which is not applied"),
    **{
        f"{syntax.name} RGB": (partial(museum.lossless_colours, syntax=syntax, declared="RGB"), None)
        for syntax in museum.LOSSLESS
    },
    "planar by header": (
        partial(museum.lossless_colours, syntax=JPEGLSLossless, declared="RGB", PlanarConfiguration=1),
        None,
    ),
}

# Lossy, or through YBR and back.
NEAR: dict[str, tuple[Make, str | None]] = {
    **{
        f"{syntax.name} YBR": (partial(museum.lossless_colours, syntax=syntax, declared="YBR_FULL"), None)
        for syntax in museum.LOSSLESS
    },
    **{
        f"{mark} {declared}": (
            partial(museum.jpeg, declared=declared, stored=stored, mark=mark),
            None
            if declared.startswith(stored)
            else f"declares colours as {declared}; its compressed image is {stored}",
        )
        for mark, stored in (
            ("adobe0", "RGB"),
            ("names", "RGB"),
            ("adobe1", "YBR"),
            ("jfif", "YBR"),
            ("subsampled", "YBR"),
        )
        for declared in ("RGB", "YBR_FULL", "YBR_FULL_422")
    },
    **{
        f"{mark} {declared}": (partial(museum.jpeg, declared=declared, stored=declared[:3], mark=mark), None)
        for mark in ("none", "adobe2")
        for declared in _UNSAID
    },
    "planar": (partial(museum.jpeg, declared="YBR_FULL", stored="YBR", mark="jfif", PlanarConfiguration=1), None),
    "JPEG 2000 YBR": (partial(museum.jpeg_2000_transform, declared="YBR_FULL", has_transform=False), None),
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "slope 0": ({"RescaleSlope": 0, "RescaleIntercept": 0}, "declares '0' as its RescaleSlope"),
    "slope nan": ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "declares 'nan' as its RescaleSlope"),
    "slope 1e38": ({"RescaleSlope": 3e38, "RescaleIntercept": 0}, r"declares '3e\+38' as its RescaleSlope"),
    "slope 1e9": (
        {"RescaleSlope": 1e9, "RescaleIntercept": 0, "WindowCenter": 40, "WindowWidth": 400},
        r"declares the RescaleSlope '1e\+09' and a window of the width '400'",
    ),
    "slope 1e-9": (
        {"RescaleSlope": 1e-9, "RescaleIntercept": 0, "WindowCenter": 40, "WindowWidth": 400},
        "declares the RescaleSlope '1e-09' and a window of the width '400'",
    ),
    "intercept": ({"RescaleSlope": 1, "RescaleIntercept": "inf"}, "declares 'inf' as its RescaleIntercept"),
    "slopes": ({"RescaleSlope": [1, 2], "RescaleIntercept": 0}, "holds '2' numbers in RescaleSlope"),
    "function": ({"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "CUBIC"}, "has a window of the kind 'CUBIC'"),
    "shape": ({"PresentationLUTShape": "LIN OD"}, "has the PresentationLUTShape 'LIN OD'"),
    "frames": ({"NumberOfFrames": 2}, "declares '512' bytes of pixels"),
    "samples 2": ({"SamplesPerPixel": 2}, "has '2' samples of '8' bits"),
    "samples 4": ({"SamplesPerPixel": 4}, "has '4' samples of '8' bits"),
    "grey of 3": ({"SamplesPerPixel": 3}, "declares 'MONOCHROME2' of '3' samples"),
    "colour of 1": ({"PhotometricInterpretation": "RGB"}, "declares 'RGB' of '1' samples"),
    "HSV": ({"PhotometricInterpretation": "HSV"}, "declares 'HSV' of '1' samples"),
    "allocated 24": ({"BitsAllocated": 24}, "has '1' samples of '24' bits"),
    "size": ({"PixelData": ramp().tobytes() + b"\7" * 100}, "declares '256' bytes of pixels and holds 356"),
    "short table": (
        {"ModalityLUTSequence": [museum.table([9, 0, 16], [1, 2])]},
        "has a table of '9' entries with 4 bytes",
    ),
    "table too large": (
        {"ModalityLUTSequence": [museum.table([2, 0, 8], [1, 300])]},
        "a table of '8' bits an entry that holds '300'",
    ),
    "only padding": ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 255}, "holds nothing but padding"),
}


@pytest.mark.parametrize("name", EXACT)
def test_read__right_value(name: str, tmp_path: Path) -> None:
    make, note = EXACT[name]
    assert_shows(make(tmp_path), note, tolerance=0)


@pytest.mark.parametrize("name", NEAR)
def test_read__right_colours(name: str, tmp_path: Path) -> None:
    make, note = NEAR[name]
    assert_shows(make(tmp_path), note, tolerance=6)


def assert_shows(made: museum.Shown, note: str | None, tolerance: int) -> None:
    path, right = made
    pixels, notes = read_noted_dicom(path, inspect_dicom(path).num_frames - 1)
    difference = np.abs(pixels.astype(int) - right)
    assert difference.max() <= tolerance
    assert difference.mean() <= tolerance / 2
    assert [each for each in notes if note is None or note not in each] == []
    assert len(notes) == (note is not None)


@pytest.mark.parametrize("name", REFUSED)
def test_read__refused(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        read_dicom_image(still(tmp_path / "a.dcm", **changes))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ["slope 0", "slope nan", "function", "shape", "short table", "frames", "samples 4"])
def test_inspect__refuses_by_the_header_alone(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        inspect_dicom(still(tmp_path / "a.dcm", **changes))


def test_read__groups_that_are_not_one_for_each_frame_are_refused(tmp_path: Path) -> None:
    path, _ = museum.groups(tmp_path, slopes=(1, 2, 3))
    with pytest.raises(InputError, match="declares '2' frames and holds the display values of 3"):
        read_dicom_image(path, 0)


def test_read__a_slope_of_one_frame_that_leaves_no_picture_is_refused(tmp_path: Path) -> None:
    path, _ = museum.groups(tmp_path, slopes=(1, 0))
    read_dicom_image(path, 0)
    with pytest.raises(InputError, match="declares '0' as its RescaleSlope"):
        read_dicom_image(path, 1)


@pytest.mark.parametrize("value", ["1 ", "", "0", b"01"])
def test_read__number_of_frames_however_it_is_written(value: str | bytes, tmp_path: Path) -> None:
    found = dataset()
    found.add_new("NumberOfFrames", "UN" if isinstance(value, bytes) else "LO", value)
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert inspect_dicom(tmp_path / "a.dcm").num_frames == 1
    np.testing.assert_array_equal(read_dicom_image(tmp_path / "a.dcm"), museum.grey(ramp()))


@pytest.mark.parametrize(("value", "message"), [("many", "holds no number in NumberOfFrames"), ("-2", "'-2' frames")])
def test_read__number_of_frames_that_is_none(value: str, message: str, tmp_path: Path) -> None:
    found = dataset()
    found.add_new("NumberOfFrames", "LO", value)
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    for read in (inspect_dicom, read_dicom_image):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.dcm")


def test_read__frames_that_are_not_declared_are_told(tmp_path: Path) -> None:
    path = still(tmp_path / "a.dcm", PixelData=ramp().tobytes() * 3)
    pixels, notes = read_noted_dicom(path)
    np.testing.assert_array_equal(pixels, museum.grey(ramp()))
    assert notes == ("holds the pixels of 3 frames and declares 1",)
    with open_cine(path) as cine:  # for those who read frames without notes
        assert cine.notes() == notes


@pytest.mark.parametrize("declared", [None, 1, 2])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_read__compressed_frames_that_are_not_declared_are_told(
    syntax: str, declared: int | None, tmp_path: Path
) -> None:
    frames = [ramp(), 255 - ramp(), ramp() // 2]
    found = dcmread(museum.compressed_frames(tmp_path, frames, syntax))
    if declared is None:
        del found.NumberOfFrames
    else:
        found.NumberOfFrames = declared
    found.save_as(tmp_path / "a.dcm")
    pixels, notes = read_noted_dicom(tmp_path / "a.dcm", 0)
    np.testing.assert_array_equal(pixels, museum.grey(ramp()))
    assert notes == (f"holds the pixels of 3 frames and declares {declared or 1}",)


def test_read__one_compressed_frame_in_pieces_is_one(tmp_path: Path) -> None:
    found = dcmread(museum.compressed_frames(tmp_path, [ramp()], JPEG2000Lossless, pieces=2))
    del found.NumberOfFrames
    found.save_as(tmp_path / "a.dcm")
    pixels, notes = read_noted_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(pixels, museum.grey(ramp()))
    assert notes == ()


@pytest.mark.parametrize("position", [15, 8])
def test_read__an_overlay_among_the_bits_of_the_image_is_refused(position: int, tmp_path: Path) -> None:
    found = dataset(ramp(np.uint16) | (1 << position))
    found.add_new(0x60000100, "US", 16)
    found.add_new(0x60000102, "US", position)
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=f"declares an overlay in bit '{position}' and 16 bits of image"):
        read_dicom_image(tmp_path / "a.dcm")


def test_read__an_overlay_of_its_own_is_none_among_the_bits(tmp_path: Path) -> None:
    found = dataset()
    found.add_new(0x60000100, "US", 1)
    found.add_new(0x60000102, "US", 0)
    found.add_new(0x60003000, "OW", bytes(32))
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    pixels, notes = read_noted_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(pixels, museum.grey(ramp()))
    assert notes == ()


def test_read__zeros_behind_the_pixels_are_filling(tmp_path: Path) -> None:
    path = still(tmp_path / "a.dcm", PixelData=ramp().tobytes() + bytes(100))
    pixels, notes = read_noted_dicom(path)
    np.testing.assert_array_equal(pixels, museum.grey(ramp()))
    assert notes == ()


@pytest.mark.parametrize("name", ["PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"])
def test_read__pixels_that_are_no_squares_are_told(name: str, tmp_path: Path) -> None:
    oblong: dict[str, Any] = {name: [2, 1]}
    square: dict[str, Any] = {name: [2, 2]}
    _, notes = read_noted_dicom(still(tmp_path / "a.dcm", **oblong))
    assert notes == ("has pixels of the height 2 and the width 1; they are read as squares",)
    _, notes = read_noted_dicom(still(tmp_path / "a.dcm", **square))
    assert notes == ()


def test_read__pixels_of_an_enhanced_file_that_are_no_squares_are_told(tmp_path: Path) -> None:
    group, measures = Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    group.PixelMeasuresSequence = [measures]
    _, notes = read_noted_dicom(still(tmp_path / "a.dcm", SharedFunctionalGroupsSequence=[group]))
    assert notes == ("has pixels of the height 0.5 and the width 0.25; they are read as squares",)


@pytest.mark.parametrize("shape", ["RECTANGULAR", ["CIRCULAR", "POLYGONAL"]])
def test_read__a_shutter_that_viewers_lay_over_the_picture_is_told(shape: str | list[str], tmp_path: Path) -> None:
    _, notes = read_noted_dicom(still(tmp_path / "a.dcm", ShutterShape=shape))
    assert notes == ("has a shutter, which viewers lay over the picture; it is not applied",)


@pytest.mark.parametrize("preamble", [bytes(128), b"II*\0\x80\1\0\0" + bytes(120)])
def test_image__dicom_under_the_name_of_an_image_is_named(preamble: bytes, tmp_path: Path) -> None:
    found = dataset()
    found.preamble = preamble
    found.save_as(tmp_path / "a.png", enforce_file_format=True)
    with pytest.raises(InputError, match="it is DICOM; export it as PNG"):
        read_image(tmp_path / "a.png")


def test_read__a_subtraction_that_viewers_show_is_told(tmp_path: Path) -> None:
    mask = Dataset()
    mask.MaskOperation = "AVG_SUB"
    path = still(tmp_path / "a.dcm", MaskSubtractionSequence=[mask], RecommendedViewingMode="SUB")
    _, notes = read_noted_dicom(path)
    assert notes == ("is meant to be seen minus a mask (DSA); it is shown as it was taken",)


def test_read__a_window_beside_all_values_is_told(tmp_path: Path) -> None:
    _, notes = read_noted_dicom(still(tmp_path / "a.dcm", WindowCenter=4000, WindowWidth=400))
    assert notes == ("shows every pixel in one grey, '0', by its window",)


def test_read__a_stream_of_more_bits_than_the_header_does_not_end_the_process(tmp_path: Path) -> None:
    """GDCM ends the process at lossless JPEG of 8 bits behind a header of 7."""
    values = ramp() // 2
    found = dataset(values, BitsStored=7, HighBit=6)
    path = write(found, values, JPEGLosslessSV1, tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_dicom_image(path), museum.grey(values / 127 * 255))


def test_read__notes_are_warnings_of_the_plain_reader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = museum.windows(tmp_path)
    with caplog.at_level(logging.WARNING, logger="domainsight"):
        read_dicom_image(path)
    assert caplog.messages == [f"'{path}' has 2 windows; the first is used."]


def test_refusal__a_large_image_advises_what_the_verb_takes(tmp_path: Path) -> None:
    path = still(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"0.0001 are allowed\. Make it smaller\.$"):
        inspect_dicom(path, 0.0001)
    with pytest.raises(InputError, match=r"Raise data\.max_megapixels, or make it smaller\.$"):
        inspect_dicom(path, 0.0001, key="data.max_megapixels")


def test_read__colours_of_one_bit_are_refused(tmp_path: Path) -> None:
    path = still(tmp_path / "a.dcm", BitsAllocated=1, BitsStored=1, HighBit=0, SamplesPerPixel=3,
                 PhotometricInterpretation="RGB", PlanarConfiguration=0)  # fmt: skip
    with pytest.raises(InputError, match="declares 'RGB' of one bit a sample"):
        read_dicom_image(path)


def test_inspect__a_palette_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path, _ = museum.palette(tmp_path, descriptor=(256, 0, 16), dtype="<u2")
    found = dcmread(path)
    found.GreenPaletteColorLookupTableData = found.GreenPaletteColorLookupTableData[:-100]
    found.save_as(path)
    with pytest.raises(InputError, match="has a table of '256' entries with 412 bytes"):
        inspect_dicom(path)
