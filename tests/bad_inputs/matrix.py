"""What the matrix is made of: entries of the museum, the verbs that meet them, and what must hold for each."""

import atexit
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.weights.bundles import describe_classifier, save_classifier
from tests.pipelines.pretrain import tiny as tiny_pretrain
from vision_core.backbones.networks import build_backbone
from vision_core.bundles.card import Card, TrainedOn

Main = Callable[[list[str]], int]
Words = list[str]
_PROGRESS = re.compile(r" (?:item|image|slide|it|file|input)s?(?:/s)?, .*left|^\s*$")
_OURS = re.compile(r"^(?:error\[|  |'.*' is left out: )")


@dataclass(frozen=True)
class Entry:
    """An input that the museum makes: its function, the finding (a pattern), and further words of the command."""

    make: Callable[[Path], Path]
    finding: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verb:
    """A verb that meets a kind of input: the command for an input in a working folder, and its exit codes."""

    name: str
    main: Main
    argv: Callable[[Path, Path], Words]
    code: int | tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of input with its entries and verbs, the quickest verb first.

    Attributes:
        place: Where below the working folder an entry is made.
        makes_folder: Whether the museum makes that folder itself.
        is_slow: Whether no verb of it runs in ``make test``.
    """

    name: str
    entries: Sequence[Entry]
    verbs: Sequence[Verb]
    place: str = "in"
    makes_folder: bool = False
    is_slow: bool = False


def cases(kinds: Sequence[Kind]) -> list[Any]:
    """One verb of each kind runs in ``make test``, all in ``make test-slow``."""
    return [
        pytest.param(kind, verb, entry, id=f"{kind.name}-{verb.name}-{entry.make.__name__}",
                     marks=[pytest.mark.slow] if place or kind.is_slow else [])
        for kind in kinds
        for place, verb in enumerate(kind.verbs)
        for entry in kind.entries
    ]  # fmt: skip


def assert_told(kind: Kind, verb: Verb, entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The verb gives its code and the finding, in lines of ours alone, and changes nothing that was there."""
    (tmp_path / "work").mkdir()
    folder = tmp_path / kind.place
    if not kind.makes_folder:
        folder.mkdir(parents=True)
    made = entry.make(folder)
    before = _contents(folder)
    capfd.readouterr()
    code = verb.main([*verb.argv(made, tmp_path / "work"), *entry.words])
    out, err = capfd.readouterr()
    reasons = [path.read_text(encoding="utf-8") for path in tmp_path.glob("work/out/failures.csv")]
    told = "\n".join([out, err, *reasons])
    assert code in (verb.code if isinstance(verb.code, tuple) else (verb.code,)), told
    assert re.search(entry.finding, told), told
    assert "Traceback" not in told
    assert [line for line in err.splitlines() if not (_OURS.search(line) or _PROGRESS.search(line))] == []
    assert _contents(folder) == before
    assert not list(tmp_path.glob("work/**/*.pt"))


def _contents(folder: Path) -> dict[str, str]:
    """The sum of every file; of a sparse giant, its size."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.stat().st_size < 1e9 else "giant"
        for path in folder.rglob("*")
        if path.is_file()
    }


def kept() -> Path:
    """A folder until the end of the process."""
    folder = Path(tempfile.mkdtemp(prefix="matrix-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def classifier() -> Path:
    """A classifier of random weights for the tiny images."""
    card = Card(
        task="pretrain",
        method="classifier",
        config={},
        architecture={},
        preprocessing={},
        classes=tiny_pretrain.CLASSES,
        trained_on=TrainedOn(description="nothing: random weights", synthetic=True),
    )
    described = describe_classifier(card, "resnet10t", PretrainData())
    folder = kept() / "model"
    save_classifier(folder, build_backbone("resnet10t", len(card.classes)), described)
    return folder
