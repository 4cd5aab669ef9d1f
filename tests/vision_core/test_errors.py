"""Names in messages: nothing that steers a terminal or breaks a line."""

import os

import pytest

from vision_core.errors import ConfigError, InputError, UserError, one_line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("größe 木 😀 a b", "größe 木 😀 a b"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x07\x7f", r"\x1b[2J\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202egnp.exe\u2066\u2028", r"a\u202egnp.exe\u2066\u2028"),
        (os.fsdecode(b"a\xff.png"), r"a\udcff.png"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_one_line__escapes_what_cannot_be_seen(text: str, told: str) -> None:
    assert one_line(text) == told
    assert one_line(told) == told


@pytest.mark.parametrize("kind", [UserError, InputError])
def test_lines__one_per_problem_whatever_a_name_holds(kind: type[UserError]) -> None:
    error = kind(["'a\nb' is bad.", "'c\x1b[31m' too."])
    assert error.problems == (r"'a\nb' is bad.", r"'c\x1b[31m' too.")
    assert error.lines().count("\n") == 1
    assert "\x1b" not in str(error)


def test_lines__of_a_configuration() -> None:
    assert ConfigError(["a\nb", "c"]).lines().splitlines()[1:] == [r"  a\nb", "  c"]
