from io import BytesIO

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from vision_core.dicom.codestream import read_stream

COMPRESSED = [
    "JPEG2000", "693_J2KI", "GDCMJ2K_TextGBR", "examples_jpeg2k", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless",
    "JPEGLSNearLossless_16",
    "JPEG-lossy", "JPGExtended", "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_gdcm", "SC_rgb_small_odd_jpeg",
    "SC_jpeg_no_color_transform", "examples_ybr_color",
]  # fmt: skip


@pytest.mark.parametrize("name", COMPRESSED)
def test_shape__is_that_of_the_header_in_real_files(name: str) -> None:
    header = dcmread(str(get_testdata_file(f"{name}.dcm")))
    frames = int(header.get("NumberOfFrames", 1) or 1)
    frame = get_frame(header.PixelData, 0, number_of_frames=frames)
    stream = read_stream(frame)
    assert stream is not None
    assert stream.shape == (header.Rows, header.Columns, header.SamplesPerPixel)


@pytest.mark.parametrize("options", [{"progressive": True}, {"comment": b"x" * 3000}, {"icc_profile": b"y" * 70_000}])
def test_shape__whatever_stands_before_it(options: dict[str, object]) -> None:
    stream = BytesIO()
    Image.new("RGB", (37, 21)).save(stream, format="JPEG", **options)
    found = read_stream(stream.getvalue())
    assert found is not None
    assert found.shape == (21, 37, 3)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xff\xff", b"\xff\x4f\xff\x51\x00", bytes(64)]
)
def test_shape__of_nothing_is_none(content: bytes) -> None:
    assert read_stream(content) is None


def test_shape__a_segment_without_length_ends_the_search() -> None:
    assert read_stream(b"\xff\xd8\xff\xe0\x00\x00" + b"\xff" * 100) is None
