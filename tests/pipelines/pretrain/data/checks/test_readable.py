import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.pretrain.data.checks.readable import Memory, check_images, checked_by_first, stamp
from pipelines.pretrain.data.index import Images
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data_settings import PretrainData
from tests.bad_inputs import labelled_images as museum
from vision_core.training import distributed


def _images(root: Path) -> Images:
    return read_images(PretrainData(root=root, cache=None), "train")


def _looked_at(images: Images, how: str, cache: Path | None) -> int:
    seen: list[int] = []
    check_images(images, how, cache, on_item=lambda done, _: seen.append(done))  # type: ignore[arg-type]
    return len(seen)


def test_check__sound_files_are_looked_at_once_and_decoding_counts_for_headers(tmp_path: Path) -> None:
    images, cache = _images(museum.folders(tmp_path / "set")), tmp_path / "cache"
    assert _looked_at(images, "header", cache) == 6
    assert _looked_at(images, "header", cache) == 0
    assert _looked_at(images, "decode", cache) == 6
    assert _looked_at(images, "decode", cache) == 0
    (cache / "sound-header.npy").unlink()
    assert _looked_at(images, "header", cache) == 0


def test_check__without_a_cache_all_are_looked_at_again(tmp_path: Path) -> None:
    images = _images(museum.folders(tmp_path / "set"))
    assert _looked_at(images, "header", None) == _looked_at(images, "header", None) == 6


def test_check__a_changed_file_is_looked_at_again_and_corrupt_ones_always(tmp_path: Path) -> None:
    images, cache = _images(museum.folders(tmp_path / "set")), tmp_path / "cache"
    _looked_at(images, "decode", cache)
    path = images[2].path
    os.utime(path, ns=(0, 0))
    assert _looked_at(images, "decode", cache) == 1
    path.write_bytes(b"no image")
    for _ in range(2):
        checked = check_images(images, "decode", cache)
        assert images[2].name in checked.faults[0]
        assert len(checked.sound) == 5
    assert len((cache / "corrupt.jsonl").read_text().splitlines()) == 1


def test_check__order_of_what_is_left_is_that_of_the_list(tmp_path: Path) -> None:
    images = _images(museum.g13_corrupt(tmp_path / "set"))
    checked = check_images(images, "decode", None)
    names = [checked.sound[index].name for index in range(len(checked.sound))]
    bad = {"train/CT__abd__normal/0.png", "train/MR__knee__tear/1.png"}
    assert names == [images[index].name for index in range(6) if images[index].name not in bad]
    assert len(checked.faults) == 2


def test_check__a_mended_file_leaves_the_list_of_corrupt_ones(tmp_path: Path) -> None:
    root, cache = museum.g13_corrupt(tmp_path / "set"), tmp_path / "cache"
    images = _images(root)
    check_images(images, "decode", cache)
    museum.picture(root / "train" / museum.CLASSES[0] / "0.png", ("mended",))
    check_images(images, "decode", cache)
    (line,) = (cache / "corrupt.jsonl").read_text().splitlines()
    assert json.loads(line)["file"].endswith("1.png")
    museum.picture(root / "train" / museum.CLASSES[1] / "1.png", ("mended",))
    check_images(images, "decode", cache)
    assert not (cache / "corrupt.jsonl").read_text()


def test_check__a_share_that_fails_once_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(museum.folders(tmp_path / "set"))
    failures = [OSError(5, "input/output error")] * 2
    header = type(images.pixels).check_header

    def shaky(pixels: object, index: int) -> tuple[tuple[str, ...], bool]:
        if index == 3 and failures:
            raise failures.pop()
        return header(pixels, index)  # type: ignore[arg-type]

    monkeypatch.setattr(type(images.pixels), "check_header", shaky)
    assert check_images(images, "header", None).faults == ()
    failures += [OSError(5, "input/output error")] * 3
    with pytest.raises(OSError, match="input/output"):
        check_images(images, "header", None)


def test_check__what_was_found_before_an_interruption_is_kept(tmp_path: Path) -> None:
    images, cache = _images(museum.folders(tmp_path / "set")), tmp_path / "cache"

    def stop(done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_images(images, "header", cache, on_item=stop)
    assert _looked_at(images, "header", cache) == 2


def test_memory__a_damaged_file_or_a_folder_that_cannot_be_made_costs_time_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = _images(museum.folders(tmp_path / "set"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sound-header.npy").write_bytes(b"\x93NUMPY junk")
    assert _looked_at(images, "header", tmp_path / "cache") == 6
    (tmp_path / "file").touch()
    assert _looked_at(images, "header", tmp_path / "file") == 6
    assert "Checked files are not remembered" in caplog.text


def test_memory__sound_means_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    museum.picture(path, ())
    memory = Memory(tmp_path)
    memory.add(stamp(path), "header")
    memory.write({})
    assert Memory(tmp_path).is_sound(stamp(path), "header")
    assert not Memory(tmp_path).is_sound(stamp(path), "decode")
    assert not Memory(tmp_path).is_sound(stamp(tmp_path / "absent.png"), "header")
    assert np.load(tmp_path / "sound-header.npy").tolist() == [stamp(path)]


@pytest.mark.parametrize("rank", [0, 1])
def test_checked_by_first__the_others_take_its_findings(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = _images(museum.folders(tmp_path / "set"))
    sent: list[object] = []

    def broadcast(value: object) -> object:
        sent.append(value)
        return {2: "is bad."}, "", ("a note",)

    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "broadcast_from_first", broadcast)
    seen: list[int] = []
    with checked_by_first():
        checked = check_images(images, "header", None, on_item=lambda done, _: seen.append(done))
    assert len(seen) == (6 if rank == 0 else 0)
    assert (sent, checked.faults, len(checked.sound)) == ([({}, "", ())], ("is bad.",), 5)
    assert "a note" in checked.sound.notes
    check_images(images, "header", None)
    assert len(sent) == 1  # outside, as where the first process alone evaluates, nobody is waited for
