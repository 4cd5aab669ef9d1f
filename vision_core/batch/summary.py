"""Page ``summary.html`` of a batch: a row for each input, to be sorted and searched, with small pictures beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from jinja2 import Environment, FileSystemLoader, select_autoescape

from vision_core.batch.ledger import Record
from vision_core.csv_tables import Cell
from vision_core.files import write_atomic
from vision_core.results import DECLINED, RESEARCH_NOTICE

THUMBNAIL = ".jpg"  # ending of the output that the page shows of a result

_TEMPLATES = Path(__file__).parent / "templates"
_PROBABILITY = "p_"
_WORDS = ("category", "verdict", "notice", "notes", "model")
_SHOWN_PROBABILITIES = 3


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """Row of the page.

    Attributes:
        name: File name of the input.
        folder: Folder of the input.
        category: What the rows are filtered by; empty where the task has none.
        verdict: The category in words.
        is_declined: Whether the model calls no class.
        notice: Cautions, flags and notes.
        probabilities: The highest ones with their classes, highest first.
        numbers: All other values.
        thumbnail: File of the small picture; empty without one.
        opens: File that the small picture leads to.
        files: Files by what stands behind the common name.
    """

    name: str
    folder: str
    category: str
    verdict: str
    is_declined: bool
    notice: str
    probabilities: Sequence[tuple[str, float]]
    numbers: Mapping[str, Cell]
    thumbnail: str
    opens: str
    files: Mapping[str, str]


def write_summary(
    path: Path, records: Sequence[Record], num_inputs: int, notes: Sequence[str], titles: Mapping[str, str]
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: File to write.
        records: Inputs that are done or have failed, in order.
        num_inputs: Number of all inputs, those that were not tried included.
        notes: Sentences on the inputs.
        titles: Words for people, by class.

    Raises:
        EnvironmentFault: It cannot be written.
    """
    done = [record for record in records if record.status == "done"]
    failed = [record for record in records if record.status == "failed"]
    rows = [_row(record, titles) for record in done]
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=select_autoescape(["html", "j2"]))
    page = environment.get_template("batch_summary.html.j2").render(
        rows=rows,
        failed=failed,
        total=num_inputs,
        notes=notes,
        notice=RESEARCH_NOTICE,
        name=path.parent.resolve().name,
        models=sorted({str(record.values["model"]) for record in done if record.values.get("model")}),
        categories=Counter(row.category for row in rows if row.category).most_common(),
        has_pictures=any(row.thumbnail for row in rows),
        has_probabilities=any(row.probabilities for row in rows),
        sortable=_sortable(done),
        keys=[_keys(record) for record in done],
    )
    write_atomic(path, page)


def _row(record: Record, titles: Mapping[str, str]) -> SummaryRow:
    values, path = record.values, PurePosixPath(record.input)
    category = str(values.get("category") or "")
    files = {made.file.removeprefix(f"outputs/{record.name}").lstrip("."): made.file for made in record.outputs}
    thumbnail = files.pop(THUMBNAIL.lstrip("."), "")
    pictures = [file for file in files.values() if file.endswith(".png")]
    probabilities = [
        (titles.get(name.removeprefix(_PROBABILITY), name.removeprefix(_PROBABILITY)), float(value))
        for name, value in values.items()
        if category and name.startswith(_PROBABILITY) and isinstance(value, int | float)
    ]
    return SummaryRow(
        name=path.name,
        folder="" if path.parent == PurePosixPath() else str(path.parent),
        category=category,
        verdict=str(values.get("verdict") or category),
        is_declined=category in DECLINED,
        notice=str(values.get("notice") or values.get("notes") or ""),
        probabilities=sorted(probabilities, key=lambda pair: -pair[1])[:_SHOWN_PROBABILITIES],
        numbers=_numbers(values),
        thumbnail=thumbnail,
        opens=next(iter(pictures), thumbnail),
        files=files,
    )


def _numbers(values: Mapping[str, Cell]) -> dict[str, Cell]:
    """Collect what has no column of its own, and the probabilities, by names for people."""
    shown = {name: value for name, value in values.items() if name not in _WORDS and value not in (None, "")}
    return {name.replace("_", " "): value for name, value in shown.items()}


def _sortable(done: Sequence[Record]) -> list[str]:
    """List the columns of numbers, in order."""
    names = dict.fromkeys(name for record in done for name in record.values)
    return [name for name in names if any(isinstance(each.values.get(name), int | float) for each in done)]


def _keys(record: Record) -> dict[str, int | float]:
    return {name: value for name, value in record.values.items() if isinstance(value, int | float)}
