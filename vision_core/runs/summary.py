"""What a task has to say about a finished run: the first section of its report."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from vision_core.files import to_json, write_atomic

SUMMARY_FILE = "summary.json"
Colour = Annotated[str, Field(pattern=r"^rgb\(\d{1,3}, \d{1,3}, \d{1,3}\)$")]  # it goes into a style


class Table(BaseModel):
    """Table of texts; the first cell of a row names it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: str
    about: str = ""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Summary(BaseModel):
    """Summary of a run, in words.

    Attributes:
        headline: The run in a sentence.
        lines: What it was found from, a sentence each.
        legend: What colours in the pictures mean: words and a colour of CSS.
        tables: Numbers.
        next_steps: What to do next: why, and the command, which runs as it stands.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    headline: str
    lines: tuple[str, ...] = ()
    legend: tuple[tuple[str, Colour], ...] = ()
    tables: tuple[Table, ...] = ()
    next_steps: tuple[tuple[str, str], ...] = ()


def write_summary(folder: Path, summary: Summary) -> None:
    """Write the summary into the folder of its run."""
    write_atomic(folder / SUMMARY_FILE, to_json(summary.model_dump(mode="json")))


def read_summary(folder: Path) -> Summary | None:
    """Read the summary of a run; None where there is none.

    Raises:
        ValueError: It is damaged.
    """
    path = folder / SUMMARY_FILE
    return Summary.model_validate_json(path.read_bytes()) if path.is_file() else None
