import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from tests.bad_inputs.dicoms import still
from vision_core.dicom.reader import open_cine, read_dicom_view, read_noted_dicom
from vision_core.errors import InputError

FRAMES = 5


def noise(frames: int = FRAMES, height: int = 16, width: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width), np.uint8)


def jpeg(frame: NDArray[np.uint8]) -> bytes:
    content = BytesIO()
    Image.fromarray(frame).save(content, "JPEG")
    return content.getvalue() + b"\0" * (content.tell() % 2)


@pytest.mark.parametrize("bits", [8, 16])
def test_read__frames_of_padding_alone_are_black_and_the_others_are_read(bits: int, tmp_path: Path) -> None:
    cine = np.zeros((3, 16, 16), f"u{bits // 8}")
    cine[1] = np.arange(256).reshape(16, 16)
    path = still(tmp_path / "a.dcm", cine, NumberOfFrames=3, PixelPaddingValue=0)
    with open_cine(path) as opened:
        for number in range(3):
            for found in (opened.read_full(number), opened.read(number)[0]):
                assert bool(found.any()) == (number == 1)
    view, _ = read_dicom_view(path)
    assert not view.pixels.any() and view.values is None


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_read__plain_frames_in_any_order_from_a_file_that_is_opened_once(syntax: str | None, tmp_path: Path) -> None:
    cine = noise()
    path = still(tmp_path / "a.dcm", cine, NumberOfFrames=FRAMES, **({"syntax": syntax} if syntax else {}))
    with open_cine(path) as opened:
        path.unlink()  # what is read now comes from the open file
        assert opened.num_frames == FRAMES
        for number in (3, 0, 4, 1, 2):
            assert np.array_equal(opened.read(number)[0][..., 0], cine[number])
        with pytest.raises(InputError, match="there is no frame '5'"):
            opened.read(FRAMES)


def test_read__frames_of_one_bit_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    cine = noise(7, 3, 5) > 127
    bits = np.packbits(cine.ravel(), bitorder="little").tobytes()
    changes = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "NumberOfFrames": 7}
    path = still(tmp_path / "a.dcm", noise(7, 3, 5), PixelData=bits + b"\0" * (len(bits) % 2), **changes)
    with open_cine(path) as opened:
        for number, frame in enumerate(cine):
            assert np.array_equal(opened.read(number)[0][..., 0] > 0, frame)


@pytest.mark.parametrize("kind", ["one piece a frame", "offset table", "two pieces a frame", "extended table"])
def test_read__compressed_frames_are_those_of_stills(kind: str, tmp_path: Path) -> None:
    streams = [jpeg(frame) for frame in noise()]
    changes: dict[str, object] = {"syntax": JPEGBaseline8Bit, "NumberOfFrames": FRAMES}
    if kind == "extended table":
        content, changes["ExtendedOffsetTable"], changes["ExtendedOffsetTableLengths"] = encapsulate_extended(streams)
    else:
        pieces = 2 if kind == "two pieces a frame" else 1
        content = encapsulate(streams, fragments_per_frame=pieces, has_bot=kind != "one piece a frame")
    path = still(tmp_path / "a.dcm", noise(), PixelData=content, **changes)
    with open_cine(path) as opened:
        for number, stream in enumerate(streams):
            alone = still(tmp_path / "b.dcm", noise(1)[0], PixelData=encapsulate([stream]), syntax=JPEGBaseline8Bit)
            assert np.array_equal(opened.read(number)[0], read_noted_dicom(alone)[0])


@pytest.mark.parametrize("is_compressed", [False, True])
def test_read__memory_does_not_grow_with_the_length(is_compressed: bool, tmp_path: Path) -> None:
    cine = noise(300, 128, 128)
    more = {"PixelData": encapsulate([jpeg(each) for each in cine], has_bot=False), "syntax": JPEGBaseline8Bit}
    path = still(tmp_path / "a.dcm", cine, NumberOfFrames=300, **(more if is_compressed else {}))
    with open_cine(path) as warm:
        warm.read(0)  # imports decoders
    tracemalloc.start()
    try:
        with open_cine(path) as opened:
            for number in range(opened.num_frames):
                opened.read(number)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_read__odd_frames_of_bytes_in_big_endian_words(tmp_path: Path) -> None:
    frames = np.arange(3 * 15, dtype=np.uint8).reshape(3, 3, 5)
    path = still(tmp_path / "words.dcm", frames, NumberOfFrames=3)
    found = dcmread(path)
    found.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    found.PixelData = np.frombuffer(frames.tobytes() + b"\0", ">u2").astype("<u2").tobytes()
    found["PixelData"].VR = "OW"
    dcmwrite(path, found, implicit_vr=False, little_endian=False, force_encoding=True)
    with open_cine(path) as cine:
        for number, values in enumerate(frames):
            np.testing.assert_array_equal(cine.read(number)[0][..., 0], values)
