"""What a person sees of a command: its exit code and its lines."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest


class Seen:
    """Runs a command in this process and looks at what it prints."""

    def __init__(self, main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
        self._main, self._capsys = main, capsys

    def refused(self, argv: list[str], code: int | tuple[int, ...], *told: str) -> str:
        """It ends with ``code`` (or one of several), tells every text of ``told``, and shows no traceback; the text."""
        found = self._main(argv)
        text = self._capsys.readouterr().err
        assert found in (code if isinstance(code, tuple) else (code,)), text
        assert _after_progress(text).startswith("error["), text
        assert "Traceback" not in text
        for each in told:
            assert each in text
        return text

    def ended(self, argv: list[str], code: int) -> tuple[str, str]:
        """It ends with ``code``; returns what it printed on both streams."""
        found, (out, err) = self._main(argv), self._capsys.readouterr()
        assert found == code, err
        return out, err

    def done(self, argv: list[str]) -> str:
        """It ends well; returns what it printed."""
        assert self._main(argv) == 0, self._capsys.readouterr().err
        return self._capsys.readouterr().out


def _after_progress(text: str) -> str:
    """Leave out the lines of progress that come before."""
    return "\n".join(line for line in text.splitlines() if not re.search(r" \w+/s, ", line))


def tree(folder: Path) -> set[str]:
    """All files below ``folder``, by their path in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
