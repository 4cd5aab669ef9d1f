"""Notes on a folder of images: what is left out of it, and files whose suffix names another format."""

import os
import stat
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

_SHOWN = 3
_HEAD_BYTES = 16
_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
    ".gif": "GIF",
    ".ppm": "PNM",
    ".pgm": "PNM",
}
_MARKS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    *((b"P%d" % number, "PNM") for number in range(1, 7)),
)
_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISLNK, "link"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def left_out_note(folder: Path, inputs: Sequence[Path]) -> list[str]:
    """Name and count what lies in a folder besides its inputs; no note where there is nothing."""
    left = _left_out(folder, {path.name for path in inputs})
    told = "; ".join(f"{len(names)} {kind} ({_some(names)})" for kind, names in sorted(left.items()))
    reads = "Read are image files of the folder itself, known by their suffix."
    return [f"Left out of '{folder}': {told}. {reads}"] if left else []


def suffix_note(inputs: Sequence[Path]) -> list[str]:
    """Name inputs whose suffix does not fit their content; no note where all do."""
    lying = [f"'{path.name}' holds {found}" for path in inputs if (found := other_format(path))]
    more = f" and {len(lying) - _SHOWN} more" if len(lying) > _SHOWN else ""
    told = f"Not what the suffix says, read by their content: {', '.join(lying[:_SHOWN])}{more}."
    return [f"{told} Rename them: other programs go by the suffix."] if lying else []


def suffix_notes(path: Path) -> tuple[str, ...]:
    """Note on a file whose suffix names another format, which begins with its name; empty when it does not."""
    found = other_format(path)
    return (f"holds {found}, not what its suffix says",) if found else ()


def other_format(path: Path) -> str:
    """Name the format of a file whose suffix says another; empty when they agree or it is unknown."""
    said = _FORMATS.get(path.suffix.lower())
    try:
        if said is None or not stat.S_ISREG(path.stat().st_mode):
            return ""
        with path.open("rb") as file:
            found = _format(file.read(_HEAD_BYTES))
    except OSError:  # told when the file is read
        return ""
    return "" if found in {said, ""} else found


def _format(head: bytes) -> str:
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for mark, name in _MARKS if head.startswith(mark)), "")


def _left_out(folder: Path, taken: set[str]) -> dict[str, list[str]]:
    """Sort the names of other visible entries by kind: suffix, folder, link, pipe."""
    left: dict[str, list[str]] = defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name not in taken and not entry.name.startswith("."):
                left[_kind(entry)].append(entry.name)
    return left


def _kind(entry: "os.DirEntry[str]") -> str:
    mode = entry.stat(follow_symlinks=False).st_mode
    return next(
        (name for is_kind, name in _KINDS if is_kind(mode)), Path(entry.name).suffix.lower() or "without suffix"
    )


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more
