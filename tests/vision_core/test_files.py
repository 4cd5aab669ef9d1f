import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vision_core.errors import EnvironmentFault
from vision_core.files import (
    RepeatedKeyError,
    atomic_path,
    hash_digits,
    is_our_readme,
    origin_text,
    parse_json,
    remove_leftovers,
    sha256,
    to_json,
    write_atomic,
    write_readme,
)

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from vision_core.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_write_atomic__makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "below" / "text.txt"
    write_atomic(path, "é")
    assert path.read_bytes() == "é".encode()
    assert list(path.parent.iterdir()) == [path]


def test_atomic_path__keeps_the_suffix_that_writers_go_by(tmp_path: Path) -> None:
    with atomic_path(tmp_path / ("n" * 250 + ".png")) as partial:
        assert partial.suffix == ".png"
        partial.touch()


def test_atomic_path__failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_path(path) as partial:
        partial.write_text("new")
        raise ValueError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path__kill_keeps_the_old_file_and_the_rest_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_text("old")
    child = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(remove_leftovers(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_remove_leftovers__files_of_running_processes_stay(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "mine") as partial:
        partial.touch()
        running = tmp_path / partial.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
        foreign = tmp_path / ".partial-1-00000000-00000000"
        unrelated = tmp_path / ".partial-notes"
        for path in (running, foreign, unrelated):
            path.touch()
        assert remove_leftovers(tmp_path) == [partial]
        partial.touch()
    assert {running, foreign, unrelated} < set(tmp_path.iterdir())


def test_write_atomic__file_too_large_names_path_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    with _largest_file(1000), pytest.raises(EnvironmentFault, match=r"big\.bin': file too large, after 1000 bytes"):
        write_atomic(path, b"x" * 5000)
    assert list(tmp_path.iterdir()) == []


def test_write_atomic__file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(EnvironmentFault, match="A file stands where a folder is needed"):
        write_atomic(tmp_path / "run" / "config.yaml", "")


def test_sha256__known_value(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@contextmanager
def _largest_file(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_write_readme__ours_is_written_anew_and_a_persons_stays(tmp_path: Path) -> None:
    for purpose in ("old", "numbers " * 40):
        write_readme(tmp_path, "Results.", {"a.csv": purpose, "outputs/<name>.json": "one input"})
    lines = (tmp_path / "README.txt").read_text().splitlines()
    assert lines[0].endswith("For research use. Not for diagnosis.") and lines[1:3] == ["Results.", ""]
    assert lines[3].startswith("a.csv                numbers") and lines[4].startswith("                     numbers")
    assert max(map(len, lines)) <= 110 and is_our_readme(tmp_path / "README.txt")
    (tmp_path / "README.txt").write_bytes(b"\xffmine")
    write_readme(tmp_path, "Results.", {})
    assert (tmp_path / "README.txt").read_bytes() == b"\xffmine"
    (tmp_path / "README.txt").unlink()
    (tmp_path / "README.txt").symlink_to(tmp_path / "elsewhere.txt")
    write_readme(tmp_path, "Results.", {})
    assert not (tmp_path / "elsewhere.txt").exists()


@pytest.mark.parametrize("text", ["[]", "3", '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}', b'\xef\xbb\xbf{"a": 1}'])
def test_parse_json__as_pythons_own(text: str | bytes) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(("text", "key"), [('{"a": 1, "b": 2, "a": 1}', "a"), ('[{"x": {"ä": 1, "\\u00e4": 2}}]', "ä")])
def test_parse_json__a_key_that_is_named_twice_is_refused_by_name(text: str, key: str) -> None:
    with pytest.raises(RepeatedKeyError, match=f"names the key '{key}' twice"):
        parse_json(text)


def test_to_json__what_json_does_not_have_is_null() -> None:
    content = {"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": np.float64("-inf")}, "d": Path("x"), "ä": True}
    text = to_json(content, default=str)
    with pytest.raises(TypeError):
        to_json({"a": np.float32(1)})  # no number becomes text in silence
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, [None, 1.5]], "b": {"c": None}, "d": "x", "ä": True
    }  # fmt: skip
    assert "ä" in text


def test_parse_json__constants_as_the_caller_takes_them() -> None:
    assert parse_json("[NaN]", parse_constant=str) == ["NaN"]


def test_origin_text__input_part_model_and_version(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_digits(tmp_path / "a") == "ba7816bf"
    assert re.fullmatch(r"Input ba7816bf, frame 1\. Model a/b/12\. DomainSight \d+\.\d+\.\d+\.",
                        origin_text("a/b/12", "ba7816bf", "frame 1"))  # fmt: skip
    assert origin_text("a/b/12", part="level 0").startswith("Level 0. Model a/b/12. ")
    assert origin_text("a/b/12").startswith("Model a/b/12. ")
