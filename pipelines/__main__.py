"""The command ``domainsight``: ``domainsight sfod train …`` is ``python -m pipelines.sfod train …``."""

import ast
import difflib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from vision_core.errors import UsageError

_FOLDER = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a task's own command line, or list the tasks.

    Args:
        arguments: The task and what it is given; what the process was started with when None.

    Returns:
        The exit code. A task that ran has left through ``SystemExit`` with its own.
    """
    task, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if task in {"-h", "--help"}:
        sys.stdout.write(overview(_FOLDER))
        return 0
    if task not in tasks(_FOLDER):
        sys.stderr.write(_unknown(task).lines() + "\n")
        return UsageError.exit_code
    sys.argv[1:] = rest
    runpy.run_module(f"pipelines.{task}", run_name="__main__", alter_sys=True)
    return 0


def overview(folder: Path) -> str:
    """Say how to call the command, with a line for each task in ``folder``."""
    found = tasks(folder)
    width = max(map(len, found), default=0)
    listed = "".join(f"  {name:<{width}}  {summary}\n" for name, summary in found.items())
    return f"usage: domainsight TASK VERB [options]\n\n{listed}\n'domainsight TASK --help' lists the verbs of a task.\n"


def tasks(folder: Path) -> dict[str, str]:
    """Name and first line of the docstring of every task, read without importing it."""
    found = sorted(path.parent for path in folder.glob("*/__main__.py"))
    return {task.name: _first_line(task / "__init__.py") for task in found}


def _first_line(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) if module.is_file() else None
    return (docstring or "").partition("\n")[0]


def _unknown(task: str) -> UsageError:
    known = tasks(_FOLDER)
    near = difflib.get_close_matches(task, known, n=1)
    remedy = f"Did you mean '{near[0]}'?" if near else f"Tasks: {', '.join(known)}."
    return UsageError(f"There is no task '{task}'. {remedy}")


if __name__ == "__main__":
    sys.exit(main())
