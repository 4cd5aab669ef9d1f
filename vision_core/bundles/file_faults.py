"""Causes for which a file of weights cannot be one: a web page, a pointer, half a file, a flipped bit."""

import json
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path

_HEAD_BYTES = 1024
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head")
_POINTER = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"
_LOCAL = struct.Struct("<4s5H3I2H")  # a local header of a zip
_LONGEST_HEADER = 100 * 2**20  # what safetensors accepts
_LONGEST_RECORD = 16 * 2**20
_MEGABYTE = 1e6
_BYTES = {"Double": 8, "Long": 8, "ComplexFloat": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2}


def find_fault(path: Path) -> str | None:
    """Explain why a file holds no weights, as the end of a sentence on it; None if nothing is seen.

    Raises:
        OSError: The disk or share failed.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGES):
        return "is a web page, not weights: the download was answered by a site. Download the file itself."
    if head.startswith(_POINTER):
        size = next((line.split()[1] for line in head.splitlines() if line.startswith(b"size ")), b"")
        told = f" of '{_megabytes(int(size))} MB'" if size.isdigit() else ""
        return f"is a Git LFS pointer, not the weights{told}. Fetch them with: git lfs pull."
    if path.suffix == ".safetensors":
        return _short(path, _safetensors_size(path, head))
    return _zip_fault(path) if head.startswith(_ZIP) else None


def _short(path: Path, whole: int | None) -> str | None:
    size = path.stat().st_size
    if whole is None or size >= whole:
        return None
    return f"breaks off: '{_megabytes(size)}' of '{_megabytes(whole)}' MB are there. Download it again."


def _safetensors_size(path: Path, head: bytes) -> int | None:
    """Return the size that the header of a safetensors file asks for, None if it is no header."""
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > _LONGEST_HEADER:
        return None
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(length)
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        return 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        return 8 + length if len(header) < length and header.startswith(b"{") else None


def _zip_fault(path: Path) -> str | None:
    """Find what is wrong with a zip of torch, by its directory and its own sums."""
    try:
        with zipfile.ZipFile(path) as content:
            spoilt = content.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error, NotImplementedError, RuntimeError):
        if _has_directory(path):
            return None  # torch names the fault
        whole = _torch_size(path)
        if fault := _short(path, whole):
            return fault
        size = _megabytes(path.stat().st_size)
        return f"breaks off after '{size}' MB: the directory at the end of a zip is missing. Download it again."
    if spoilt is None:
        return None
    return f"is damaged: record '{spoilt}' does not have the sum (CRC-32) that the file states. Download it again."


def _has_directory(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16))
        return b"PK\x05\x06" in file.read()


def _torch_size(path: Path) -> int | None:
    """Add up the storages that the first record of a zip of torch lists, None where it cannot be read."""
    with path.open("rb") as file:
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size:
            return None
        *_, name_length, extra_length = _LOCAL.unpack(header)
        name = file.read(name_length)
        file.seek(extra_length, 1)
        record = file.read(_LONGEST_RECORD)  # its own size follows behind it; the pickle ends where it ends
    if not name.endswith(b"data.pkl"):
        return None
    try:
        return _storage_bytes(record)
    except (ValueError, LookupError, TypeError):
        return None


def _storage_bytes(record: bytes) -> int:
    """Sum the sizes of all storages that a pickle of torch names, without running it."""
    sizes: dict[str, int] = {}
    memo: dict[object, object] = {}
    seen: list[object] = []
    for code, argument, _ in pickletools.genops(record):
        if code.name in {"BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            memo[len(memo) if code.name == "MEMOIZE" else argument] = seen[-1]
        elif code.name in {"BINGET", "LONG_BINGET"}:
            seen.append(memo.get(argument))
        elif code.name == "BINPERSID":  # ('storage', class, key, device, count) is complete
            kind, key, _, count = [each for each in seen if each is not None][-4:]
            item = str(kind).removeprefix("torch ").removesuffix("Storage")
            sizes[str(key)] = _BYTES.get(item, 1) * int(str(count))
        elif code.name == "STOP":
            break
        else:
            seen.append(argument)
    return sum(sizes.values())


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.1f}" if size >= _MEGABYTE / 10 else f"{size / _MEGABYTE:.4f}"
