import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vision_core.bundles import archives
from vision_core.bundles.archives import extract_zip
from vision_core.errors import CheckpointError

MIB = 2**20


def make(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as content:
        for name, data in entries.items():
            content.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def link(path: Path) -> Path:
    entry = zipfile.ZipInfo("weights")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as content:
        content.writestr(entry, "/etc/passwd")
    return path


def nameless(path: Path) -> Path:
    return make(path, {"./": b"", "a": b"1"})


def twice(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as content, pytest.warns(UserWarning, match="Duplicate"):
        content.writestr("a", "1")
        content.writestr("a", "2")
    return path


def file_and_folder(path: Path) -> Path:
    return make(path, {"a": b"1", "a/b": b"2"})


def flipped(path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    data = bytearray(make(path, {"a": bytes(range(256)) * 8}, compression).read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    return path


def flipped_deflated(path: Path) -> Path:
    return flipped(path, zipfile.ZIP_DEFLATED)


def lying(path: Path) -> Path:
    """An entry of 300 KiB that the directory at the end gives as 10 bytes."""
    data = bytearray(make(path, {"a": b"\0" * 300 * 1024}, zipfile.ZIP_DEFLATED).read_bytes())
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, directory + 24, 10)
    path.write_bytes(data)
    return path


def encrypted(path: Path) -> Path:
    data = bytearray(make(path, {"a": b"secret"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


def unknown_method(path: Path) -> Path:
    data = bytearray(make(path, {"a": b"1"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 97
    path.write_bytes(data)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(make(path, {"a": b"1" * 1000}).read_bytes()[:500])
    return path


def text(path: Path) -> Path:
    path.write_text("<html>please log in</html>")
    return path


REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (lambda path: make(path, {"../a": b""}), r"entry '\.\./a' leaves the folder"),
    (lambda path: make(path, {"b/../../a": b""}), "leaves the folder"),
    (lambda path: make(path, {"..\\a": b""}), "leaves the folder"),
    (lambda path: make(path, {"/etc/a": b""}), "leaves the folder"),
    (lambda path: make(path, {"C:\\a": b""}), "leaves the folder"),
    (nameless, "leaves the folder"),
    (link, "entry 'weights' is a link"),
    (twice, "two files of the same name"),
    (lambda path: make(path, {"a": b"\0" * 4 * MIB}, zipfile.ZIP_DEFLATED), r"inflates \d{3,4}-fold, at most 200"),
    (lambda path: make(path, {"a": b"\0" * 4 * MIB}, zipfile.ZIP_BZIP2), r"inflates \d+-fold, at most 200"),
    (
        lambda path: make(path, {f"{n}": b"\0" * (MIB - 1) for n in range(8)}, zipfile.ZIP_DEFLATED),
        r"inflates \d{3}-fold, at most 200",
    ),
    (lambda path: make(path, {f"{n}": b"" for n in range(10_001)}), "holds 10001 files, at most 10000"),
    (file_and_folder, "is not a whole zip"),
    (flipped, "is not a whole zip: Bad CRC-32"),
    (flipped_deflated, "is not a whole zip"),
    (lying, "is not a whole zip"),
    (encrypted, "is not a whole zip: .*encrypted"),
    (unknown_method, "is not a whole zip"),
    (cut, "is not a whole zip"),
    (text, "is not a whole zip"),
]


@pytest.mark.parametrize(("build", "told"), REFUSED, ids=range(len(REFUSED)))
def test_extract_zip__refused_and_nothing_outside(build: Callable[[Path], Path], told: str, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    archive = build(tmp_path / "a.zip")
    with pytest.raises(CheckpointError, match=told):
        extract_zip(archive, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "a.zip"}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < MIB


def test_extract_zip__one_bad_entry_is_refused_before_the_good_one_is_written(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.zip", {"good": b"1", "../bad": b"2"})
    with pytest.raises(CheckpointError):
        extract_zip(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_extract_zip__size_beyond_the_cap_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    with pytest.raises(CheckpointError, match="inflates to 101 bytes, at most 100"):
        extract_zip(make(tmp_path / "a.zip", {"a": b"1" * 101}), tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_extract_zip__sound_archive_comes_out_as_it_went_in(tmp_path: Path, compression: int) -> None:
    entries = {
        "b/": b"",
        "b/card.json": b"{}",
        "b/c\\d.bin": bytes(range(256)) * 9,
        "empty": b"",
        "zeros": b"\0" * 9999,
    }
    extract_zip(make(tmp_path / "a.zip", entries, compression), tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {"b/card.json": b"{}", "b/c/d.bin": bytes(range(256)) * 9}
    assert (tmp_path / "out" / "zeros").stat().st_size == 9999


def test_extract_zip__permissions_of_the_archive_are_not_taken(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    entry = zipfile.ZipInfo("tool")
    entry.external_attr = 0o104777 << 16
    with zipfile.ZipFile(buffer, "w") as content:
        content.writestr(entry, "#!")
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    extract_zip(tmp_path / "a.zip", tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o6111 == 0
