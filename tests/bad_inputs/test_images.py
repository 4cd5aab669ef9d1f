import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.sfod.__main__ import main
from tests.bad_inputs import museum
from tests.bad_inputs.bundles import make_bundle
from tests.bad_inputs.seen import Seen
from vision_core.errors import DataError, InputError
from vision_core.images.reading import list_images, read_image

REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (museum.b01_zero_bytes, r"'.*zero\.jpg' is empty \(0 bytes\)"),
    (museum.b02_truncated_jpeg, r"'.*half\.jpg' cannot be decoded: it is damaged .*truncated"),
    (museum.b03_html_as_jpg, r"page\.jpg' cannot be decoded: it looks like HTML"),
    (museum.b03_pointer_as_png, r"pointer\.png' cannot be decoded: it is a Git LFS pointer"),
    (museum.b05_bomb, r"bomb\.png' is refused as a decompression bomb: .*900000000"),
    (museum.b05_large, r"large\.png' declares 11000 x 11000 pixels, '121.0' megapixels; 100 are allowed"),
    (museum.b08_float, r"heights\.tif' holds values from '-3' to '1e\+06'"),
]
RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_read_image__refused(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert len(caught.value.problems) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "colour"),
    [
        (museum.b09_cmyk, RED),
        (museum.b09_palette, RED),
        (museum.b09_alpha, WHITE),
        (museum.b09_one_bit, WHITE),
        (museum.b06_animated_gif, RED),
        (museum.b06_multipage_tiff, RED),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_read_image__converted(make: Callable[[Path], Path], colour: tuple[int, int, int], tmp_path: Path) -> None:
    image = read_image(make(tmp_path))
    assert image.dtype == np.uint8
    assert image.shape == (16, 16, 3)
    assert np.abs(image.astype(int) - colour).max() <= 2  # JPEG


@pytest.mark.parametrize("make", [museum.b06_animated_gif, museum.b06_multipage_tiff])
def test_read_image__many_frames_are_told(
    make: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="domainsight"):
        read_image(make(tmp_path))
    assert "holds 3 frames; the first is used" in caplog.text


def test_read_image__sixteen_bit_ramp_keeps_every_grey(tmp_path: Path) -> None:
    image = read_image(museum.b08_sixteen_bit(tmp_path))
    expected = np.rint(np.arange(65536) / 257).reshape(256, 256)
    np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=2))


def test_list_images__says_what_is_there_instead(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds 0 images; 14 \.txt; 1 folders"):
        list_images(museum.a09_other_files_only(tmp_path / "notes"))


def test_list_images__links_out_and_in_a_circle_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="domainsight"):
        found = list_images(museum.a11_links(tmp_path / "links"))
    assert [path.name for path in found] == ["inside.png"]
    assert all(name in caplog.text for name in ("out.png", "circle.png", "nothing.png"))


def test_predict__names_what_it_leaves_out_and_files_whose_suffix_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = museum.folder_of_a_phone(tmp_path / "in")
    bundle = make_bundle(tmp_path / "model")
    out, _ = Seen(main, capsys).ended(
        ["predict", "--checkpoint", str(bundle), "--input", str(folder), "--out", str(tmp_path / "found")], 4
    )
    assert "2 of 3 inputs done" in out
    assert "Left out of" in out and "2 .heic ('a.heic', 'b.HEIC'); 1 folder ('below'); 1 pipe ('pipe.png')" in out
    assert "'scan.png' holds TIFF" in out
    page = (tmp_path / "found" / "summary.html").read_text(encoding="utf-8")
    assert "2 .heic" in page and "holds TIFF" in page
    assert "it is HEIC, AVIF or a video; save it as PNG or JPEG" in (tmp_path / "found" / "failures.csv").read_text()


def test_predict__a_single_file_whose_suffix_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = museum.folder_of_a_phone(tmp_path / "in") / "scan.png"
    argv = ["predict", "--checkpoint", str(make_bundle(tmp_path / "model")), "--input", str(path)]
    out = Seen(main, capsys).done([*argv, "--out", str(tmp_path / "found")])
    assert "'scan.png' holds TIFF" in out and "Left out" not in out
