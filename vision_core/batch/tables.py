"""Tables of a batch: ``results.csv``, ``failures.csv`` and ``summary.html``.

Both CSVs grow by a line with each input, so that a kill leaves what is done; at the end they are written anew, in the
order of the inputs. They hold no times, so that a batch which was killed and continued ends with the same bytes as one
that was not.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vision_core.batch.ledger import Record, read_ledgers
from vision_core.batch.summary import write_summary
from vision_core.csv_tables import Cell, to_csv
from vision_core.files import write_atomic, writing
from vision_core.results import decide_category

RESULTS, FAILURES, SUMMARY = "results.csv", "failures.csv", "summary.html"
_FAILED_HEADER = ("input", "reason")
_OF_BEFORE = "Made by an earlier version, whose pictures and records name a class also where the model declines."


def write_tables(
    out: Path,
    records: Sequence[Record],
    num_inputs: int,
    notes: Sequence[str] = (),
    titles: Mapping[str, str] | None = None,
) -> None:
    """Write the three tables of ``records``, in their order, each whole or not at all.

    Args:
        out: Folder of the batch.
        records: Inputs that are done or have failed.
        num_inputs: Number of all inputs.
        notes: Sentences on the inputs, for the summary.
        titles: Words for people, by class, for the summary.

    Raises:
        EnvironmentFault: They cannot be written.
    """
    renewed = [_renewed(record) for record in records]
    _write_csvs(out, renewed)
    write_summary(out / SUMMARY, renewed, num_inputs, notes, titles or {})


def count_categories(records: Sequence[Record]) -> dict[str, int]:
    """Count the categories of the inputs that are done, the most frequent first; tasks without any have none."""
    found = (_renewed(record).values.get("category") for record in records if record.status == "done")
    return dict(Counter(str(category) for category in found if category).most_common())


class GrowingTables:
    """Both CSVs while the batch goes on, several processes with one folder included.

    Args:
        out: Folder of the batch.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._columns: tuple[str, ...] = ()
        self._pending: set[str] = set()

    def begin(self, pending: Iterable[str]) -> None:
        """Write what is done already, without the inputs that are to be processed now.

        Raises:
            EnvironmentFault: The tables cannot be written.
        """
        self._pending = set(pending)
        self._write_anew()

    def add(self, record: Record) -> None:
        """Add the line of an input, flushed to disk; a record with new columns has the table written anew.

        Raises:
            EnvironmentFault: The table cannot be written.
        """
        self._pending.discard(record.input)
        record = _renewed(record)
        if record.status == "failed":
            self._append(FAILURES, _FAILED_HEADER, _failed_row(record))
        elif set(record.values) <= set(self._columns):
            self._append(RESULTS, _header(self._columns), _done_row(record, self._columns))
        else:
            self._write_anew()

    def _write_anew(self) -> None:
        known = read_ledgers(self._out / "ledger").values()
        self._columns = _write_csvs(self._out, [_renewed(each) for each in known if each.input not in self._pending])

    def _append(self, name: str, header: Sequence[str], row: Sequence[Cell]) -> None:
        path, first = self._out / name, to_csv(header, [])
        if not _begins_with(path, first):  # it was deleted, or another process has written other columns
            self._write_anew()
            return
        line = to_csv(header, [row]).removeprefix(first).encode(errors="backslashreplace")
        with writing(path), path.open("ab") as file:
            size = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # no half a line stays
                    os.truncate(path, size)
                raise


def _write_csvs(out: Path, records: Sequence[Record]) -> tuple[str, ...]:
    """Write both CSVs; returns the columns of the results."""
    done = [record for record in records if record.status == "done"]
    failed = [record for record in records if record.status == "failed"]
    columns = tuple(dict.fromkeys(name for record in done for name in record.values))
    write_atomic(out / RESULTS, to_csv(_header(columns), [_done_row(record, columns) for record in done]))
    write_atomic(out / FAILURES, to_csv(_FAILED_HEADER, [_failed_row(record) for record in failed]))
    return columns


def _header(columns: Sequence[str]) -> tuple[str, ...]:
    return "input", *columns, "outputs"


def _done_row(record: Record, columns: Sequence[str]) -> list[Cell]:
    files = " ".join(made.file for made in record.outputs)
    return [record.input, *(record.values.get(name) for name in columns), files]


def _failed_row(record: Record) -> list[Cell]:
    return [record.input, record.reason]


def _begins_with(path: Path, header: str) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(header.encode())) == header.encode()
    except OSError:
        return False


def _renewed(record: Record) -> Record:
    """Give the values of an earlier version the columns of this one, its category decided as now."""
    values = dict(record.values)
    called = values.pop("called", values.get("category"))
    if record.status != "done" or "notice" in record.values or not isinstance(called, str):
        return record
    category = _decided(values, called)
    notes = str(values.pop("notes", "") or "")
    told = [notes, _OF_BEFORE] if category != called else [notes]
    words = {"category": category, "verdict": category, "notice": " ".join(filter(None, told))}
    return record.model_copy(
        update={"values": words | {name: each for name, each in values.items() if name not in words}}
    )


def _decided(values: Mapping[str, Cell], called: str) -> str:
    if values.get("tiles") == 0:
        return called
    is_outside, is_undecided = (bool(values.get(name)) for name in ("outside", "abstains"))
    return decide_category((called,) if called else (), is_outside=is_outside, is_undecided=is_undecided)
