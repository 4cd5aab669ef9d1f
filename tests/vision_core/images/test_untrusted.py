"""Images and DICOM files of unknown origin, read in a child process."""

import logging
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.bad_inputs import dicoms
from vision_core.dicom.reader import read_dicom_image
from vision_core.errors import InputError
from vision_core.images.reading import read_image
from vision_core.images.untrusted import UntrustedImages


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_read_image__same_pixels_as_in_this_process(picture: Path) -> None:
    with UntrustedImages() as images:
        pixels = images.read_image(picture)
    np.testing.assert_array_equal(pixels, read_image(picture))
    assert pixels.flags.writeable


def test_read_image__refusals_are_those_of_the_reader(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.png").write_bytes(picture.read_bytes()[:200])
    monkeypatch.chdir(tmp_path)
    with UntrustedImages(max_megapixels=0.001) as images:
        for path in (Path("half.png"), Path("gone.png"), Path("a.png")):
            with pytest.raises(InputError) as here:
                read_image(path, max_megapixels=0.001)
            with pytest.raises(InputError) as there:
                images.read_image(path)
            assert there.value.problems == here.value.problems


def test_read_image__warnings_reach_the_parent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    with UntrustedImages() as images, caplog.at_level(logging.WARNING, "domainsight"):
        images.read_image(tmp_path / "two.gif")
    assert "two.gif' holds 2 frames" in caplog.text


def test_read_image__that_needs_too_much_memory_is_refused_and_the_next_is_read(tmp_path: Path, picture: Path) -> None:
    Image.new("RGB", (6000, 5000)).save(tmp_path / "large.png")
    with UntrustedImages(memory_mib=32) as images:
        with pytest.raises(InputError, match=r"large\.png' needs more than 32 MiB"):
            images.read_image(tmp_path / "large.png")
        assert images.read_image(picture).shape == (40, 60, 3)


def test_read_image__sound_one_after_a_killed_child_is_read(picture: Path) -> None:
    with UntrustedImages() as images:
        images.read_image(picture)
        child = images.sandbox._child
        assert child is not None
        os.kill(child._process.pid, signal.SIGKILL)
        assert images.read_image(picture).shape == (40, 60, 3)


def test_read_dicom__what_ends_the_decoder_is_an_error_and_the_next_image_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound, report = dicoms.still(tmp_path / "a.dcm"), dicoms.f04_report(tmp_path)
    with UntrustedImages() as images:
        for _ in range(2):
            with pytest.raises(InputError, match=r"crashing\.dcm' (made the decoder crash|has pixels that cannot)"):
                images.read_dicom(dicoms.f06_crashing(tmp_path))
            np.testing.assert_array_equal(images.read_dicom(sound), read_dicom_image(sound))
        with pytest.raises(InputError, match=r"report\.dcm': no image in this object \(SR\)"):
            images.read_dicom(report)
        with pytest.raises(InputError, match="holds '1' frames"):
            images.read_dicom(sound, frame=3)
    assert not capfd.readouterr().err


def test_read_dicom__what_takes_too_long_is_an_error(tmp_path: Path) -> None:
    sound = dicoms.still(tmp_path / "a.dcm")
    with UntrustedImages(seconds=1e-9) as images, pytest.raises(InputError, match=r"took longer than 1e-09 s"):
        images.read_dicom(sound)


def test_read__upload_is_told_by_its_mark_not_its_name(tmp_path: Path, picture: Path) -> None:
    nameless = dicoms.still(tmp_path / "a.dcm").rename(tmp_path / "nameless")
    with UntrustedImages() as images:
        np.testing.assert_array_equal(images.read(nameless)[0], read_dicom_image(nameless, 0))
        np.testing.assert_array_equal(images.read(picture)[0], read_image(picture))


def test_read_image__threads_get_their_own_images(tmp_path: Path) -> None:
    paths = [tmp_path / f"{level}.png" for level in range(8)]
    for level, path in enumerate(paths):
        Image.new("RGB", (16, 16), (level, level, level)).save(path)
    seen: dict[int, int] = {}
    with UntrustedImages() as images:

        def read(level: int) -> None:
            seen[level] = int(images.read_image(paths[level]).max())

        threads = [threading.Thread(target=read, args=(level,)) for level in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == {level: level for level in range(8)}


@pytest.mark.parametrize(("bits", "name"), [(12, "a.png"), (16, "a.png"), (12, "a.tif")])
def test_view__grey_of_more_than_8_bits_has_its_values_and_windows(bits: int, name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(300, 2**bits, (20, 30)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    Image.fromarray(values).save(tmp_path / name)
    with UntrustedImages() as reader:
        view, _ = reader.view(tmp_path / name)
    grey = view.values
    assert grey is not None and grey.is_image.all() and not grey.is_inverted
    np.testing.assert_array_equal(grey.lowest + grey.step * grey.codes, values)
    first, whole = grey.presets
    assert (first.name, whole.name) == ("Range of the bits", "Whole range")
    ends = {
        each.name: (each.centre - 0.5 - (each.width - 1) / 2, each.centre - 0.5 + (each.width - 1) / 2)
        for each in grey.presets
    }
    assert ends == {first.name: (0, 2**bits - 1), whole.name: (values.min(), 2**bits - 1)}
    shown = np.rint(255 * values.astype(float) / (2**bits - 1))  # what the first one shows
    np.testing.assert_array_equal(view.pixels, np.repeat(shown[..., None], 3, axis=2))


def test_view__white_is_zero_is_told_and_8_bits_have_no_windows(tmp_path: Path) -> None:
    values = np.array([[0, 65535, 1000]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "b.png")
    with UntrustedImages() as reader:
        inverted, plain = reader.view(tmp_path / "a.tif")[0], reader.view(tmp_path / "b.png")[0]
    assert inverted.values is not None and inverted.values.is_inverted
    np.testing.assert_array_equal(inverted.values.codes, values)
    assert inverted.pixels[0, :2, 0].tolist() == [255, 0]
    assert plain.values is None
