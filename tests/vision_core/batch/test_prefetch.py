import time
from pathlib import Path
from threading import Event

import pytest

from vision_core.batch.prefetch import Prefetcher
from vision_core.errors import InputError


class _Maker:
    """Reads files, and remembers what it read and what it was told to close."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.closed: list[str] = []
        self.begun = Event()

    def __call__(self, path: Path) -> str:
        self.begun.set()
        content = path.read_text()
        self.made.append(content)
        if content == "bad":
            raise InputError("bad")
        return content

    def ahead(self) -> Prefetcher[str]:
        return Prefetcher(self, self.closed.append)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for content in ("one", "bad", "three"):
        (tmp_path / content).write_text(content)
    return [tmp_path / content for content in ("one", "bad", "three")]


def test_take__was_begun_when_expected_and_is_made_once(files: list[Path]) -> None:
    maker = _Maker()
    ahead = maker.ahead()
    ahead.expect(files[:2])
    assert ahead.take(files[0]) == "one"
    ahead.expect(files[1:])
    with pytest.raises(InputError, match="bad"):
        ahead.take(files[1])
    assert ahead.take(files[2]) == "three"
    assert maker.made == ["one", "bad", "three"] and maker.closed == []


def test_take__of_what_nobody_expected_is_made_now(files: list[Path]) -> None:
    maker = _Maker()
    assert maker.ahead().take(files[0]) == "one" and not maker.closed


def test_take__of_a_file_that_changed_since_is_made_again(files: list[Path]) -> None:
    maker = _Maker()
    ahead = maker.ahead()
    ahead.expect(files[:1])
    assert maker.begun.wait(10)
    while not maker.made:
        time.sleep(0.001)
    files[0].write_text("another")
    assert ahead.take(files[0]) == "another"
    assert maker.closed == ["one"]


def test_expect__closes_what_is_no_longer_expected(files: list[Path]) -> None:
    maker = _Maker()
    ahead = maker.ahead()
    ahead.expect(files)
    assert ahead.take(files[0]) == "one"
    while len(maker.made) < 3:
        time.sleep(0.001)
    ahead.expect([])
    while not maker.closed:
        time.sleep(0.001)
    assert maker.closed == ["three"]
    assert ahead.take(files[2]) == "three" and len(maker.made) == 4  # anew
