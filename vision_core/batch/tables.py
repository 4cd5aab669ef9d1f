"""Tables of a batch: ``results.csv``, ``failures.csv`` and ``summary.html``.

They hold no times, so that a batch which was killed and continued ends with the same bytes as one that was not.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape

from vision_core.batch.ledger import Record
from vision_core.csv_tables import to_csv
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE

_TEMPLATES = Path(__file__).parent / "templates"


def write_tables(out: Path, records: Sequence[Record], num_inputs: int, notes: Sequence[str] = ()) -> None:
    """Write the three tables of ``records``, each whole or not at all.

    Raises:
        EnvironmentFault: They cannot be written.
    """
    done = [record for record in records if record.status == "done"]
    failed = [record for record in records if record.status == "failed"]
    columns = list(dict.fromkeys(name for record in done for name in record.values))
    rows = [[record.input, *(record.values.get(name) for name in columns), _files(record)] for record in done]
    write_atomic(out / "results.csv", to_csv(["input", *columns, "outputs"], rows))
    write_atomic(out / "failures.csv", to_csv(["input", "reason"], [[each.input, each.reason] for each in failed]))
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=select_autoescape(["html", "j2"]))
    page = environment.get_template("batch_summary.html.j2").render(
        columns=columns,
        done=done,
        failed=failed,
        total=num_inputs,
        notes=notes,
        notice=RESEARCH_NOTICE,
        name=out.resolve().name,
    )
    write_atomic(out / "summary.html", page)


def _files(record: Record) -> str:
    return " ".join(made.file for made in record.outputs)
