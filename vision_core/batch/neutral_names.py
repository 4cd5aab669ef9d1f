"""Neutral names of inputs: ``case-0001`` and so on, by a map that is kept apart from the results.

Names of files end up in names of outputs, in their contents, in tables and in messages. A batch that is given links
with neutral names knows no others.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vision_core.csv_tables import to_csv
from vision_core.errors import UsageError
from vision_core.files import atomic_path, text_of, writing

_HEADER = ["case", "input"]
_CASE = re.compile(r"case-(\d{4,})")
_DICOM_AT, _DICOM = 128, b"DICM"
_LONG_ENDINGS = (".nii.gz", ".adopted.json")


@contextmanager
def neutral_inputs(inputs: Sequence[Path], file: Path, out: Path) -> Iterator[list[Path]]:
    """Provide links to the inputs under neutral names, until the block ends.

    An input that the map holds keeps its name, new ones get the next numbers in order; no line is ever changed. What
    lies beside an input, as the files of a series do, lies beside its link.

    Args:
        inputs: Files.
        file: The map, a CSV that only its owner may read; it is written if there is none.
        out: Folder of the batch, in which the map may not lie.

    Raises:
        UsageError: The map lies in ``out``, is a file of another kind, or is in use.
        EnvironmentFault: It cannot be written, or links cannot be made.
    """
    if file.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"--id-map '{file}' lies in the folder of the results. Give a file that you keep apart.")
    links = file.with_name(f".{file.name}.links")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        with writing(file):
            lock.acquire(blocking=False)
    except Timeout as error:
        raise UsageError(f"Another process works with --id-map '{file}'. Wait for it, or give another file.") from error
    try:
        cases = _numbered(inputs, file)
        _remove(links)  # of a process that was killed
        with writing(links):
            linked = _linked(cases, links)
        yield linked
    finally:
        _remove(links)
        lock.release()


def _numbered(inputs: Sequence[Path], file: Path) -> dict[Path, str]:
    """Look up the case of each input, and add to the map those that it lacks."""
    known = _read(file) if file.exists() else {}
    last = max((int(case.removeprefix("case-")) for case in known.values()), default=0)
    cases = {}
    for path in dict.fromkeys(inputs):
        name = text_of(path.absolute())
        if name not in known:
            last += 1
            known[name] = f"case-{last:04d}"
        cases[path] = known[name]
    with atomic_path(file) as partial:
        partial.touch(mode=0o600)
        partial.write_text(to_csv(_HEADER, [[case, name] for name, case in known.items()]), encoding="utf-8")
    return cases


def _read(file: Path) -> dict[str, str]:
    try:
        with file.open(encoding="utf-8", newline="") as text:
            header, *rows = csv.reader(text)
        known = {name: case for case, name in rows}
    except (OSError, ValueError, csv.Error):
        header, rows, known = [], [], {}
    is_map = header == _HEADER and all(_CASE.fullmatch(case) for case in known.values())
    if not is_map or len(set(known.values())) < len(rows):
        raise UsageError(f"--id-map '{file}' is there and is no such map; it is not replaced. Give a new file.")
    return known


def _linked(cases: Mapping[Path, str], links: Path) -> list[Path]:
    """Make a folder of links for each folder of inputs."""
    links.mkdir(mode=0o700, exist_ok=True)
    folders: dict[Path, dict[str, str]] = defaultdict(dict)
    for path, case in cases.items():
        folders[path.parent][path.name] = case
    places = {}
    for number, (folder, named) in enumerate(folders.items(), start=1):
        places[folder] = links / str(number)
        places[folder].mkdir(mode=0o700, exist_ok=True)
        # A slide's pictures may lie in a folder named after it.
        beside = {Path(name).stem: case for name, case in named.items()}
        beside |= {f"_{stem}_": f"_{case}_" for stem, case in beside.items()}
        for entry in folder.iterdir():
            name = f"{named[entry.name]}{_ending(entry)}" if entry.name in named else beside.get(entry.name, entry.name)
            (places[folder] / name).symlink_to(entry.absolute())
    return [places[path.parent] / f"{case}{_ending(path)}" for path, case in cases.items()]


def _ending(path: Path) -> str:
    """Return what a reader knows a file by; of DICOM, what follows a dot may be part of a name."""
    with suppress(OSError), path.open("rb") as file:  # a file that cannot be read is told when its turn comes
        if file.read(_DICOM_AT + len(_DICOM))[_DICOM_AT:] == _DICOM:
            return ".dcm"
    return next((each for each in _LONG_ENDINGS if path.name.lower().endswith(each)), path.suffix)


def _remove(links: Path) -> None:
    """Remove links and their folders, nothing else."""
    with suppress(OSError):
        for folder in links.iterdir():
            for link in folder.iterdir():
                if link.is_symlink():
                    link.unlink()
            folder.rmdir()
        links.rmdir()
