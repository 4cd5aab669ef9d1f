"""Every case of CASES.md names tests, and they exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECTIONS = 14
_ROW = re.compile(r"^\| (?P<case>.+) \| (?P<tests>`.+`) \|$")
_TEST = re.compile(r"(?P<module>[^:]+)(?:::(?P<name>\w+)(?:\[(?P<part>.+)\])?)?")


def _cases() -> list[tuple[str, str, str]]:
    """Section, case, and the tests as they are written."""
    found, section = [], ""
    for line in (HERE / "CASES.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.split(".")[0].removeprefix("## ")
        elif row := _ROW.match(line):
            found.append((section, row["case"], row["tests"]))
        elif line.startswith("| ") and line != "| case | tests |":
            pytest.fail(f"a row without tests: {line}")
    return found


@cache
def _module(name: str) -> tuple[str, frozenset[str]]:
    """Text of a test module, and the names of its functions."""
    text = (HERE.parent / name if "/" in name else HERE / f"test_{name}.py").read_text(encoding="utf-8")
    return text, frozenset(node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))


def test_cases__every_section_is_there() -> None:
    found = _cases()
    assert {section for section, _, _ in found} == {str(number) for number in range(1, SECTIONS + 1)}
    assert len(found) > 90 and len({(section, case) for section, case, _ in found}) == len(found)


@pytest.mark.parametrize(("section", "case", "tests"), _cases())
def test_cases__every_named_test_exists(section: str, case: str, tests: str) -> None:
    for each in re.findall(r"`([^`]+)`", tests):
        parts = _TEST.fullmatch(each)
        assert parts, each
        text, names = _module(parts["module"])
        if parts["name"]:
            assert f"test_{parts['name']}" in names, f"{section}, {case}: no test '{each}'"
        if parts["part"]:
            assert parts["part"] in text, f"{section}, {case}: no case '{each}'"
