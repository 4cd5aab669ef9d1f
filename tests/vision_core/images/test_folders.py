"""What a folder holds besides its images, and files that are not what their suffix says."""

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from vision_core.images.folders import left_out_note, other_format, suffix_note
from vision_core.images.reading import list_images


def _images(folder: Path, *names: str) -> Path:
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def test_notes__a_folder_of_images_alone_has_none(tmp_path: Path) -> None:
    folder = _images(tmp_path, "a.png", "b.jpg", "c.TIF", "d.gif", "e.webp", "f.bmp", "g.ppm")
    (folder / ".DS_Store").touch()
    assert left_out_note(folder, list_images(folder)) == suffix_note(list_images(folder)) == []


def test_left_out_note__everything_left_out_is_counted_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
    folder = _images(tmp_path, "a.png")
    for number in range(5):
        (folder / f"{number}.HEIC").touch()
    (folder / "README").touch()
    (folder / "sub").mkdir()
    (folder / "gone.png").symlink_to("nothing.png")
    os.mkfifo(folder / "p.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.png")
        (told,) = left_out_note(folder, list_images(folder))
    assert "5 .heic ('0.HEIC', '1.HEIC', '2.HEIC', …)" in told
    for kind in ("1 folder ('sub')", "1 link ('gone.png')", "1 pipe ('p.png')", "1 socket ('s.png')"):
        assert kind in told
    assert "1 without suffix ('README')" in told and "a.png" not in told


@pytest.mark.parametrize(
    ("suffix", "kind", "told"),
    [
        (".png", "TIFF", "TIFF"),
        (".jpg", "PNG", "PNG"),
        (".tif", "JPEG", "JPEG"),
        (".png", "WEBP", "WebP"),
        (".png", "GIF", "GIF"),
        (".jpeg", "BMP", "BMP"),
        (".png", "PPM", "PNM"),
        (".JPG", "JPEG", ""),
        (".pgm", "PPM", ""),
    ],
)
def test_other_format__by_the_first_bytes(tmp_path: Path, suffix: str, kind: str, told: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (4, 4)).save(path, format=kind)
    assert other_format(path) == told


def test_other_format__nothing_is_said_of_what_is_unknown_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image at all")
    (tmp_path / "a.svs").write_bytes(b"II*\0")
    os.mkfifo(tmp_path / "p.png")
    for name in ("a.png", "a.svs", "p.png", "absent.png"):
        assert other_format(tmp_path / name) == ""


def test_suffix_note__many_lying_files_are_counted(tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png", format="TIFF")
    (told,) = suffix_note(list_images(tmp_path))
    assert "'0.png' holds TIFF, '1.png' holds TIFF, '2.png' holds TIFF and 2 more. Rename them" in told
