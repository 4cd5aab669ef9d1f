import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from tests.vision_core.slides.tiffs import APERIO, Kind, overwrite, pyramid, tile_place, tissue, write_tiff
from vision_core.assets import aperio_slide
from vision_core.errors import InputError
from vision_core.slides.reading.listing import SLIDE_SUFFIXES, list_slides
from vision_core.slides.reading.slide import TileError, open_slide
from vision_core.slides.settings import ReadSettings

SIZE = (250, 330)
SLOW = ReadSettings(fast=False)


def made(path: Path, kind: Kind | None = None) -> Path:
    return write_tiff(path, pyramid(tissue(SIZE)), kind)


def test_open_slide__the_real_aperio_file() -> None:
    with open_slide(aperio_slide()) as slide:
        assert slide.size == (2967, 2220)
        assert slide.mpp == 0.499 and slide.objective == 20 and slide.notes == ()
        assert slide.is_fast


def test_open_slide__levels_with_their_downsample(tmp_path: Path) -> None:
    with open_slide(made(tmp_path / "a.tif")) as slide:
        assert [(level.width, level.height) for level in slide.levels] == [(330, 250), (165, 125), (83, 63)]
        assert [level.downsample for level in slide.levels] == pytest.approx([1, 2, (330 / 83 + 250 / 63) / 2])


def test_open_slide__pixels_are_those_written(tmp_path: Path) -> None:
    pixels = tissue(SIZE)
    path = tmp_path / "a.tif"
    options = {"tile": True, "tile_width": 64, "tile_height": 64, "xres": 2000.0, "yres": 2000.0}
    pyvips.Image.new_from_array(pixels).tiffsave(str(path), compression="lzw", **options)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 17, 40, 100, 90), pixels[40:130, 17:117])


def test_open_slide__resolution_of_the_list_then_of_the_settings_then_of_the_file(tmp_path: Path) -> None:
    path = made(tmp_path / "a.tif", Kind(resolution=None))
    with pytest.raises(InputError, match="does not give microns per pixel"):
        open_slide(path)
    assert open_slide(path, ReadSettings(mpp=0.4), 0.3).mpp == 0.3
    assert open_slide(path, ReadSettings(mpp=0.4)).mpp == 0.4
    stated = open_slide(made(tmp_path / "b.tif"), mpp=0.3)
    assert stated.mpp == 0.3 and stated.mpp_source == "the list of slides"
    assert stated.notes[0].startswith("The file gives 0.5 microns per pixel and the list of slides 0.3;")


def test_open_slide__absurd_resolution_is_refused_and_oblong_pixels_are_noted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"outside 0\.05 to 20"):
        open_slide(made(tmp_path / "a.tif", Kind(resolution=(10, 10))))
    slide = open_slide(made(tmp_path / "b.tif", Kind(resolution=(20_000, 10_000))))
    assert slide.mpp == 0.75 and "not square" in slide.notes[0]


def test_open_slide__ome_description(tmp_path: Path) -> None:
    ome = '<OME xmlns="x"><Pixels PhysicalSizeX="0.25" PhysicalSizeY="0.25"/></OME>'
    assert open_slide(made(tmp_path / "a.tif", Kind(resolution=None, description=ome))).mpp == 0.25


def junk(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(50_000))


def page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><title>Sign in</title>")


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def cut(path: Path) -> None:
    data = made(path).read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])


def cut_early(path: Path) -> None:
    path.write_bytes(made(path).read_bytes()[:6])


def cut_aperio(path: Path) -> None:
    path.write_bytes(aperio_slide().read_bytes()[:1_000_000])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (junk, "is of no slide format known here"),
        (zeros, "begins with zeros"),
        (page, "looks like HTML"),
        (pointer, "Git LFS pointer"),
        (cut, "damaged or cut short"),
        (cut_early, "damaged or cut short"),
        (cut_aperio, "damaged"),
        (Path.touch, r"is empty \(0 bytes\)"),
        (Path.mkdir, "cannot be opened: is a directory"),
        (lambda path: None, "cannot be opened: no such file or directory"),
    ],
)
@pytest.mark.parametrize("suffix", [".svs", ".tif"])
def test_open_slide__unsupported_damaged_empty_and_missing_are_told_apart(
    tmp_path: Path, write: Callable[[Path], object], reason: str, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"a{suffix}"
    write(path)
    with pytest.raises(InputError, match=rf"^'{path}'.*{reason}"):
        open_slide(path, ReadSettings(mpp=0.5))
    assert not caplog.text


def test_open_slide__mirax_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"something")
    with pytest.raises(InputError, match="its folder 'a' is not beside it"):
        open_slide(tmp_path / "a.mrxs")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.svs"])
def test_open_slide__plain_image_is_refused_unless_its_pixel_size_is_stated(tmp_path: Path, name: str) -> None:
    path, pixels = tmp_path / name, tissue((60, 80))
    kind = {".svs": "PNG", ".jpg": "JPEG"}.get(path.suffix, path.suffix[1:].upper())
    Image.fromarray(pixels).save(path, kind, dpi=(50_800, 50_800))
    with pytest.raises(InputError, match=rf"is a plain image \({kind}\), not a slide"):
        open_slide(path)
    for slide in (open_slide(path, ReadSettings(mpp=0.5)), open_slide(path, mpp=0.5)):
        assert slide.size == (60, 80) and slide.mpp == 0.5 and not slide.is_fast
        region = slide.read(0, 70, 50, 20, 20)
        assert (region[10:] == 255).all() and (region[:, 10:] == 255).all()
        if kind != "JPEG":
            np.testing.assert_array_equal(region[:10, :10], pixels[50:, 70:])


def test_open_slide__damaged_plain_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(tissue((60, 80))).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be decoded"):
        open_slide(path, mpp=0.5)


@pytest.mark.parametrize("kind", [Kind(), Kind(description=APERIO, is_jpeg2000=True)], ids=["jpeg", "jpeg2000"])
def test_read__through_openslide_goes_on_after_a_damaged_tile(tmp_path: Path, kind: Kind) -> None:
    path = made(tmp_path / "a.svs", kind)
    with open_slide(path, SLOW) as slide:
        known = slide.read(0, 0, 0, 128, 64)
    offset, count = tile_place(path, 8)
    overwrite(path, offset, bytes(count))
    with open_slide(path, SLOW) as slide:
        for _ in range(3):
            with pytest.raises(
                TileError, match=r"a\.svs': level 0 cannot be read at x 128, y 64: .*read\.max_bad_tiles"
            ):
                slide.read(0, 128, 64, 64, 64)
            np.testing.assert_array_equal(slide.read(0, 0, 0, 128, 64), known)


def test_read__errors_of_one_thread_do_not_reach_the_others(tmp_path: Path) -> None:
    path = made(tmp_path / "a.tif")
    offset, count = tile_place(path, 8)
    overwrite(path, offset, bytes(count))

    def attempt(x: int) -> bool:
        try:
            return bool(slide.read(0, x, 64, 64, 64).any())
        except TileError:
            return False

    with open_slide(path, SLOW) as slide, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(attempt, [0, 128, 64, 192] * 20)) == [True, False, True, True] * 20


def test_read__a_share_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    path = made(tmp_path / "a.tif")
    offset, count = tile_place(path, 8)
    overwrite(path, offset, bytes(count))
    with open_slide(path, SLOW) as slide:
        path.rename(tmp_path / "b.tif")
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                slide.read(0, 128, 64, 64, 64)
        (tmp_path / "b.tif").rename(path)
        assert slide.read(0, 0, 64, 64, 64).any()


@pytest.mark.parametrize("settings", [SLOW, ReadSettings()], ids=["openslide", "fast"])
def test_read__no_such_level_or_size(tmp_path: Path, settings: ReadSettings) -> None:
    with open_slide(made(tmp_path / "a.tif"), settings) as slide:
        for level, width, height in ((3, 10, 10), (-1, 10, 10), (0, 0, 10), (0, 10, -1)):
            with pytest.raises(ValueError, match="no region"):
                slide.read(level, 0, 0, width, height)


def test_close__handles_and_descriptors_go(tmp_path: Path) -> None:
    path = made(tmp_path / "a.tif")

    def descriptors() -> int:
        links = list(Path("/proc/self/fd").iterdir())
        return sum(link.is_symlink() and str(link.readlink()) == str(path) for link in links)

    slide = open_slide(path)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda x: slide.read(0, x, 1, 64, 64), range(40)))
    assert descriptors() > 0
    slide.close()
    assert descriptors() == 0
    with pytest.raises(InputError):
        open_slide(made(path, Kind(resolution=None)))
    assert descriptors() == 0


def test_open_slide__label_and_macro_image_are_never_read(tmp_path: Path) -> None:
    """Both are filled with junk: whoever decodes them meets an error."""
    path = tmp_path / "a.svs"
    path.write_bytes(aperio_slide().read_bytes())
    with tifffile.TiffFile(path) as file:
        places = [
            (offset, count)
            for page in file.pages
            if not page.is_tiled  # type: ignore[union-attr]
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    for offset, count in places:
        overwrite(path, offset, np.random.default_rng(0).bytes(count))
    with open_slide(path) as slide, open_slide(aperio_slide()) as known:
        assert len(places) > 3 and len(slide.levels) == 1
        np.testing.assert_array_equal(slide.read(0, 700, 900, 500, 400), known.read(0, 700, 900, 500, 400))


def test_list_slides__sorted_with_those_in_folders_and_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.SVS", "a.tiff", "c/d.ndpi", ".hidden.svs", ".cache/e.svs", "f.jpg", "g.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in list_slides(tmp_path)] == ["a.tiff", "b.SVS", "c/d.ndpi"]
    assert list_slides(tmp_path / "c") == [tmp_path / "c" / "d.ndpi"]
    assert {".svs", ".tiff", ".ndpi", ".mrxs", ".dcm"} <= SLIDE_SUFFIXES and ".jpg" not in SLIDE_SUFFIXES


def test_list_slides__links_in_a_circle_and_out_of_the_folder_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    (tmp_path / "out.svs").touch()
    (folder / "a.svs").touch()
    (folder / "b.svs").symlink_to(folder / "a.svs")
    (folder / "c.svs").symlink_to(tmp_path / "out.svs")
    (folder / "d.svs").symlink_to(folder / "d.svs")
    assert [path.name for path in list_slides(folder)] == ["a.svs", "b.svs"]
    assert "c.svs' is left out" in caplog.text and "d.svs' is left out" in caplog.text


def test_list_slides__no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        list_slides(tmp_path / "none")


def test_list_slides__what_a_batch_has_written_below_is_no_slide(tmp_path: Path) -> None:
    for name in ("a.tif", "found/job.json", "found/outputs/a.heatmap.tif", "other/b.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_slides(tmp_path)] == ["a.tif", "b.tif"]


def test_list_slides__folders_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who runs tests as root may read all: the refusal is raised where the system would raise it."""
    whole = os.scandir

    def refusing(path: Path | str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return whole(path)

    (tmp_path / "closed").mkdir()
    (tmp_path / "a.svs").touch()
    monkeypatch.setattr(os, "scandir", refusing)
    assert [path.name for path in list_slides(tmp_path)] == ["a.svs"]
    assert "closed' is left out: permission denied" in caplog.text
