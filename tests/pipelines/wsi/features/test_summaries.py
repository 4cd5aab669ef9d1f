import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.features.summaries import FileSummary, summarise, summarise_all
from tests.pipelines.wsi.lists import write_tiles
from vision_core.slides.features.adopted import write_adopted

_MIDDLE = 100_000  # beyond what a stamp reads at each end of a file


def _record(path: Path, slide: str = "a") -> SlideRecord:
    return SlideRecord(slide=slide, patient=slide, label=0, path=path, mpp=None, place=0)


def _summarise(path: Path) -> FileSummary:
    return summarise(_record(path))


def _write(path: Path) -> Path:
    np.save(path, np.ones((200, 256), np.float32))
    return path


def _change_the_middle(path: Path, *, keeps_time: bool) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(_MIDDLE)
        file.write(np.full(8, 2, np.float32).tobytes())
    later = before.st_mtime_ns + (0 if keeps_time else 10**9)
    os.utime(path, ns=(before.st_atime_ns, later))


@pytest.mark.parametrize("is_adopted", [False, True])
def test_summarise__file_of_the_same_stamp_is_not_read_again(is_adopted: bool, tmp_path: Path) -> None:
    original = _write(tmp_path / "a.npy")
    path = write_adopted(tmp_path, "a", original, None, {"mpp": 0.5}) if is_adopted else original
    before = _summarise(path)
    _change_the_middle(original, keeps_time=True)
    assert _summarise(path) == before
    _change_the_middle(original, keeps_time=False)
    assert _summarise(path).content != before.content


def test_summarise__record_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    path = write_tiles(tmp_path / "a.h5", 2)
    _summarise(path)
    assert summarise(_record(path, "again")).record.slide == "again"


def test_summarise_all__file_that_was_repaired_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"")
    assert summarise_all([_record(path)])[1].keys() == {"a"}
    write_tiles(path, 3)
    found, bad = summarise_all([_record(path)])
    assert ([each.num_tiles for each in found], bad) == ([3], {})
    path.unlink()
    assert "is not a file" in summarise_all([_record(path)])[1]["a"]
