"""The public names: each is there, typed as its module has it, and imported only when it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import domainsight

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", domainsight.__all__)
def test_name__is_that_of_its_module(name: str) -> None:
    value = getattr(domainsight, name)
    assert value.__name__ == name
    assert value.__module__ == domainsight._MODULES[name]
    assert value.__doc__


def test_names__types_and_modules_are_the_same_list() -> None:
    tree = ast.parse((ROOT / "domainsight.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == domainsight._MODULES
    assert sorted(typed) == sorted(domainsight.__all__)
    assert set(domainsight.__all__) <= set(dir(domainsight))


def test_import__loads_no_torch() -> None:
    code = "import sys, domainsight; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_name__that_is_none_is_told() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'ABMILL'"):
        _ = domainsight.ABMILL
