import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from tests.vision_core.slides.tiffs import tissue
from vision_core.slides.reading.jpeg_tiles import DamagedTileError, TileGrid, are_jpeg_tables, tile_header

TILE = tissue((64, 64))


def grid(counts: Sequence[int], offsets: Sequence[int] = (0,), *, is_rgb: bool = False) -> TileGrid:
    return TileGrid(
        width=64,
        height=64,
        tile_width=64,
        tile_height=64,
        offsets=offsets,
        counts=counts,
        header=tile_header(b"", is_rgb=is_rgb),
        decode_jpeg=simplejpeg.decode_jpeg,
    )


def decode(path: Path, stream: bytes, *, is_rgb: bool = False) -> np.ndarray:
    path.write_bytes(stream)
    file = os.open(path, os.O_RDONLY)
    try:
        return grid([len(stream)], is_rgb=is_rgb).decode(file, 0, 0)
    finally:
        os.close(file)


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(TILE).save(stream, "JPEG", **{"quality": 85, **options})
    return stream.getvalue()


def test_decode__the_directory_says_which_colours(tmp_path: Path) -> None:
    as_ycbcr, as_rgb = (decode(tmp_path / "a", jpeg(), is_rgb=each) for each in (False, True))
    assert np.abs(as_ycbcr.astype(int) - TILE).mean() < 6
    luma = TILE @ [0.299, 0.587, 0.114]
    assert np.abs(as_rgb[..., 0] - luma).mean() < 3  # the first channel is what the file holds, unconverted


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 2}])
def test_decode__kinds_of_jpeg(tmp_path: Path, options: dict[str, object]) -> None:
    assert np.abs(decode(tmp_path / "a", jpeg(**options)).astype(int) - TILE).mean() < 6


def test_decode__what_follows_the_end_does_not_matter(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode(tmp_path / "a", jpeg() + b"\0"), decode(tmp_path / "a", jpeg()))


@pytest.mark.parametrize("start", [0.25, 0.5, 0.75, 0.97])
@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\x55"])
def test_decode__filled_from_some_place_on(tmp_path: Path, start: float, filling: bytes) -> None:
    stream = jpeg()
    kept = int(len(stream) * start)
    with pytest.raises(DamagedTileError):
        decode(tmp_path / "a", stream[:kept] + filling * (len(stream) - kept))


@pytest.mark.parametrize("count", [32, 100])
def test_decode__zeros_inside_are_found_even_where_a_decoder_finds_pixels(tmp_path: Path, count: int) -> None:
    stream = jpeg()
    for start in range(len(stream) // 2, len(stream) - count - 2, 97):
        with pytest.raises(DamagedTileError) as caught:
            decode(tmp_path / "a", stream[:start] + bytes(count) + stream[start + count :])
        assert caught.value.is_zeroed


@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}])
def test_decode__zeros_that_are_an_even_area_are_none(tmp_path: Path, options: dict[str, object]) -> None:
    stream = io.BytesIO()
    even = np.full((512, 512, 3), 128, np.uint8)
    even[:8, :8] = TILE[:8, :8]
    Image.fromarray(even).save(stream, "JPEG", **options)
    wide = TileGrid(
        width=512,
        height=512,
        tile_width=512,
        tile_height=512,
        offsets=[0],
        counts=[len(stream.getvalue())],
        header=tile_header(b"", is_rgb=False),
        decode_jpeg=simplejpeg.decode_jpeg,
    )
    (tmp_path / "a").write_bytes(stream.getvalue())
    with (tmp_path / "a").open("rb") as file:
        assert np.abs(wide.decode(file.fileno(), 0, 0)[32:].astype(int) - 128).max() <= 1


def test_decode__a_size_that_would_take_gigabytes_is_refused_before_decoding(tmp_path: Path) -> None:
    stream = bytearray(jpeg())
    place = stream.index(b"\xff\xc0") + 5
    stream[place : place + 4] = b"\xff\x00\xff\x00"
    with pytest.raises(DamagedTileError, match="it has 65280 x 65280 pixels"):
        decode(tmp_path / "a", bytes(stream))


@pytest.mark.parametrize("before", [b"\xff\x01", b"\xff\xd0", b"\xff\xff", b"\x00", b"\xff\xd8"])
def test_decode__a_header_that_could_be_read_in_two_ways_is_refused(tmp_path: Path, before: bytes) -> None:
    """A decoder that skips what has no length would see another frame, and write beyond the buffer."""
    stream = jpeg()
    with pytest.raises(DamagedTileError, match="its header is damaged"):
        decode(tmp_path / "a", stream[:2] + before + stream[2:])


def test_are_jpeg_tables__nothing_but_tables() -> None:
    stream = jpeg()
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    quantisation, huffman = stream[stream.index(b"\xff\xdb") : frame], stream[stream.index(b"\xff\xc4") : scan]
    assert are_jpeg_tables(b"") and are_jpeg_tables(b"\xff\xd8" + quantisation + huffman + b"\xff\xd9")
    for tables in (stream[frame:scan], quantisation[:-1], quantisation + b"\xff\xff", huffman + b"\0"):
        assert not are_jpeg_tables(b"\xff\xd8" + tables + b"\xff\xd9")
    assert not are_jpeg_tables(quantisation) and not are_jpeg_tables(b"\xff\xd8")


def test_decode__a_length_that_cannot_be_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(jpeg())
    with (tmp_path / "a").open("rb") as file, pytest.raises(DamagedTileError, match="given as 4000000000 bytes"):
        grid([4_000_000_000]).decode(file.fileno(), 0, 0)


def test_is_missing__neither_place_nor_bytes() -> None:
    assert grid([0], [8]).is_missing(0, 0) and grid([8], [0]).is_missing(0, 0)
    assert not grid([8], [8]).is_missing(0, 0)
