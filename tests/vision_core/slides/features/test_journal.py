import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.forked import Forked
from tests.vision_core.slides.features.extraction import damaged, encoder, grid, slide_in
from vision_core.errors import EnvironmentFault, UsageError
from vision_core.slides.features.extraction import ExtractionSettings, extract_features, summarise_times
from vision_core.slides.features.files import Features
from vision_core.slides.features.journal import RowJournal
from vision_core.slides.reading.slide import open_slide


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return slide_in(tmp_path)


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.vision_core.slides.features.extraction import *
from vision_core.slides.features.extraction import ExtractionSettings, extract_features
from vision_core.slides.reading.slide import open_slide
def tell(done, total):
    if done >= 40:
        os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[1])
with open_slide(path) as slide:
    settings = ExtractionSettings(path=path.with_suffix(".h5"), batch_size=8, on_tiles=tell)
    extract_features(slide, grid(), encoder(), settings)
"""


def undisturbed(path: Path) -> bytes:
    return extracted(path).features.path.read_bytes()  # type: ignore[attr-defined, no-any-return]


def extracted(path: Path, name: str = "whole.h5", **other: Any) -> Features:  # noqa: ANN401
    settings = ExtractionSettings(path=path.with_name(name), batch_size=8, **other)
    with open_slide(path) as slide:
        return extract_features(slide, grid(), encoder(), settings)


def interrupted(path: Path, after: int = 40) -> None:
    def stop(done: int, _: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extracted(path, "a.h5", on_tiles=stop)


def test_killed__goes_on_to_the_same_bytes(path: Path) -> None:
    killed = Forked(["-c", _KILLED, str(path)])
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(each.name for each in path.parent.iterdir()) == [".a.h5.index", ".a.h5.rows", "a.tif"]
    found = extracted(path, "a.h5")
    assert found.facts["taken_over"] == 40 and found.facts["tiles"] == 40
    assert found.notes == ()  # a result that was interrupted is the same result
    assert summarise_times(found.facts).endswith("40 more were taken over from an interrupted run.")
    assert path.with_name("a.h5").read_bytes() == undisturbed(path)
    assert not list(path.parent.glob(".*"))


def test_interrupted__bad_tiles_before_still_count(path: Path) -> None:
    damaged(path, 13)
    with pytest.raises(KeyboardInterrupt):
        extracted(path, "a.h5", max_bad_tiles=1, on_tiles=_stop)
    found = extracted(path, "a.h5", max_bad_tiles=1)
    assert found.facts["taken_over"] == 40 and found.attributes["left_out"] == [[192, 64]] and len(found) == 79


def _stop(done: int, _: int) -> None:
    if done >= 40:
        raise KeyboardInterrupt


@pytest.mark.parametrize("file", [".a.h5.rows", ".a.h5.index"])
@pytest.mark.parametrize("change", ["cut", "flipped", "empty", "longer"])
def test_interrupted__only_what_is_whole_is_taken_over(path: Path, file: str, change: str) -> None:
    interrupted(path)
    side = path.with_name(file)
    data = bytearray(side.read_bytes())
    if change == "flipped":
        data[len(data) // 2] ^= 1
    changed = {"cut": data[:-3], "flipped": data, "empty": b"", "longer": data + b"torn"}[change]
    side.write_bytes(bytes(changed))
    found = extracted(path, "a.h5")
    assert found.facts["taken_over"] == 40 if change == "longer" else found.facts["taken_over"] < 40
    assert path.with_name("a.h5").read_bytes() == undisturbed(path)


def test_interrupted__other_settings_begin_anew(path: Path) -> None:
    interrupted(path)
    found = extracted(path, "a.h5", fingerprint="other")
    assert found.facts["taken_over"] == 0 and len(found) == 80


def test_journal__belongs_to_one_process(path: Path) -> None:
    with (
        RowJournal(path, "k", 12, np.dtype("f2")),
        pytest.raises(UsageError, match="Another process is writing"),
        RowJournal(path, "k", 12, np.dtype("f2")),
    ):
        pass


def test_disk_full__told_and_gone_on_with_later(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
    try:
        with pytest.raises(EnvironmentFault, match=r"Cannot write '.*\.a\.h5\.rows': file too large.* 768 bytes"):
            extracted(path, "a.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not path.with_name("a.h5").exists()
    assert extracted(path, "a.h5").facts["taken_over"] == 32
    assert path.with_name("a.h5").read_bytes() == undisturbed(path)
