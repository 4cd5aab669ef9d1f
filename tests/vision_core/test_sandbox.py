import logging
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_core.errors import InputError
from vision_core.images.reading import read_image
from vision_core.sandbox import Decoder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that never says anything: reading it blocks."""
    os.mkfifo(tmp_path / "endless.png")
    return tmp_path / "endless.png"


def test_read_image__same_pixels_as_in_this_process(picture: Path) -> None:
    with Decoder() as decoder:
        pixels = decoder.read_image(picture)
    np.testing.assert_array_equal(pixels, read_image(picture))
    assert pixels.flags.writeable


def test_read_image__refusals_are_those_of_the_reader(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.png").write_bytes(picture.read_bytes()[:200])
    monkeypatch.chdir(tmp_path)
    with Decoder(max_megapixels=0.001) as decoder:
        for path in (Path("half.png"), Path("gone.png"), Path("a.png")):
            with pytest.raises(InputError) as here:
                read_image(path, max_megapixels=0.001)
            with pytest.raises(InputError) as there:
                decoder.read_image(path)
            assert there.value.problems == here.value.problems


def test_read_image__warnings_reach_the_parent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    with Decoder() as decoder, caplog.at_level(logging.WARNING, "domainsight"):
        decoder.read_image(tmp_path / "two.gif")
    assert "two.gif' holds 2 frames" in caplog.text


def test_read_image__that_hangs_is_ended_and_the_next_is_read(endless: Path, picture: Path) -> None:
    with Decoder(seconds=0.5) as decoder:
        with pytest.raises(InputError, match=r"endless\.png' took longer than 0\.5 s"):
            decoder.read_image(endless)
        assert decoder.read_image(picture).shape == (40, 60, 3)


def test_read_image__that_crashes_the_decoder_is_named_and_the_next_is_read(endless: Path, picture: Path) -> None:
    with Decoder() as decoder:
        decoder.read_image(picture)
        assert decoder._child is not None
        child = decoder._child._process.pid
        threading.Timer(0.3, os.kill, (child, signal.SIGSEGV)).start()
        with pytest.raises(InputError, match=r"endless\.png' made the decoder crash \(SIGSEGV\)"):
            decoder.read_image(endless)
        assert decoder.read_image(picture).shape == (40, 60, 3)


def test_read_image__that_needs_too_much_memory_is_refused_and_the_next_is_read(tmp_path: Path, picture: Path) -> None:
    Image.new("RGB", (6000, 5000)).save(tmp_path / "large.png")
    with Decoder(memory_mib=32) as decoder:
        with pytest.raises(InputError, match=r"large\.png' needs more than 32 MiB"):
            decoder.read_image(tmp_path / "large.png")
        assert decoder.read_image(picture).shape == (40, 60, 3)


def test_close__ends_the_child(picture: Path) -> None:
    decoder = Decoder()
    decoder.read_image(picture)
    assert decoder._child is not None
    process = decoder._child._process
    decoder.close()
    assert process.poll() is not None


def test_decoder__that_is_forgotten_leaves_no_child(picture: Path) -> None:
    decoder = Decoder()
    decoder.read_image(picture)
    assert decoder._child is not None
    process = decoder._child._process
    del decoder
    for _ in range(50):
        if process.poll() is not None:
            return
        time.sleep(0.02)
    pytest.fail("the child lives on")


def test_read_image__threads_get_their_own_images(tmp_path: Path) -> None:
    paths = [tmp_path / f"{level}.png" for level in range(8)]
    for level, path in enumerate(paths):
        Image.new("RGB", (16, 16), (level, level, level)).save(path)
    seen: dict[int, int] = {}
    with Decoder() as decoder:

        def read(level: int) -> None:
            seen[level] = int(decoder.read_image(paths[level]).max())

        threads = [threading.Thread(target=read, args=(level,)) for level in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == {level: level for level in range(8)}
