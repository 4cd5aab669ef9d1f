"""Every entry of the museum through every verb that can meet it: the same finding, the same code, nothing changed.

One verb of each kind of input runs in ``make test``, all in ``make test-slow``. File descriptors are watched, since
libraries in C write there.
"""

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

from pipelines.pretrain.__main__ import main as pretrain
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.weights.bundles import describe_classifier, save_classifier
from pipelines.sfod.__main__ import main as sfod
from pipelines.wsi.__main__ import main as wsi
from tests.bad_inputs.test_detection_commands import BAD_IMAGES
from tests.bad_inputs.test_labelled_lists import REFUSED as BAD_LISTS
from tests.bad_inputs.test_pretraining import REFUSED as BAD_CLASSIFIED
from tests.bad_inputs.test_slides import FAILED as BAD_SLIDES
from tests.pipelines.pretrain import tiny as tiny_pretrain
from tests.pipelines.sfod.tiny import SUPERVISED, source_bundle
from tests.pipelines.wsi import tiny as tiny_wsi
from tests.vision_core.dicom.test_reader import REFUSED as BAD_DICOMS
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
    """A verb that meets a kind of input: the command for an input in a working folder, and its exit code."""

    name: str
    main: Main
    argv: Callable[[Path, Path], Words]
    code: int


@dataclass(frozen=True)
class Kind:
    """A kind of input with its entries and verbs, the quickest verb first.

    Attributes:
        place: Where below the working folder an entry is made.
        makes_folder: Whether the museum makes that folder itself.
    """

    name: str
    entries: Sequence[Entry]
    verbs: Sequence[Verb]
    place: str = "in"
    makes_folder: bool = False


@cache
def _classifier() -> Path:
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
    folder = _kept() / "model"
    save_classifier(folder, build_backbone("resnet10t", len(card.classes)), described)
    return folder


@cache
def _slide_model() -> Path:
    return tiny_wsi.make_bundle(_kept() / "model")


def _kept() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="matrix-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _data_words(data: Path) -> Words:
    return [f"data.root={data}", "data.classes=[disc,square]", *SUPERVISED]


LISTS = Kind(
    name="labelled list",
    makes_folder=True,
    entries=[Entry(make, re.escape(line), (f"data.format={kind}",)) for make, kind, line in BAD_LISTS],
    verbs=[
        Verb("validate", sfod, lambda data, work: ["validate", *_data_words(data)], 2),
        Verb("train", sfod, lambda data, work: ["train", f"--out={work}/run", *_data_words(data)], 2),
        Verb(
            "evaluate",
            sfod,
            lambda data, work: ["evaluate", f"--checkpoint={source_bundle()}", f"data.root={data}",
                                "data.eval_split=train"],
            2,
        ),
    ],
)  # fmt: skip
IMAGES = Kind(
    name="image",
    entries=[Entry(make, line) for make, line in BAD_IMAGES],
    verbs=[
        Verb(
            "predict",
            sfod,
            lambda path, work: ["predict", f"--checkpoint={source_bundle()}", f"--input={path.parent}",
                                f"--out={work}/out"],
            3,
        ),
        Verb(
            "validate",
            sfod,
            lambda path, work: ["validate", f"data.root={path.parent}", "data.format=images",
                                f"source.weights={source_bundle()}"],
            3,
        ),
        Verb(
            "train",
            sfod,
            lambda path, work: ["train", "method=mt", f"--out={work}/run", f"data.root={path.parent}",
                                "data.format=images", f"source.weights={source_bundle()}"],
            2,
        ),
    ],
)  # fmt: skip
DICOMS = Kind(
    name="DICOM",
    # The index of a disc has no suffix, so no list of images takes it up.
    entries=[Entry(make, line) for make, line in BAD_DICOMS if make.__name__ != "f04_directory"],
    place="in/train/all",
    verbs=[
        Verb("validate", pretrain, lambda path, work: ["validate", *_dicom_words(path)], 3),
        Verb(
            "train",
            pretrain,
            lambda path, work: ["train", f"--out={work}/run", *_dicom_words(path), "data.on_corrupt=skip"],
            2,
        ),
        Verb(
            "predict",
            pretrain,
            lambda path, work: [
                "predict",
                f"--checkpoint={_classifier()}",
                f"--input={path.parent}",
                f"--out={work}/out",
            ],
            3,
        ),
    ],
)
SLIDES = Kind(
    name="slide",
    entries=[Entry(make, re.escape(line)) for make, line in BAD_SLIDES],
    verbs=[
        Verb(
            "predict",
            wsi,
            lambda path, work: ["predict", f"--checkpoint={_slide_model()}", f"--input={path}", f"--out={work}/out"],
            3,
        ),
        Verb("features", wsi, lambda path, work: ["features", f"--input={path}", f"--out={work}/out"], 3),
    ],
)
CLASSIFIED = Kind(
    name="labelled images",
    makes_folder=True,
    entries=[Entry(make, line, (f"data.format={kind}",)) for make, kind, line in BAD_CLASSIFIED if kind != "medmnist"],
    verbs=[
        Verb("validate", pretrain, lambda root, work: ["validate", *tiny_pretrain.words(root)], 2),
        Verb("train", pretrain, lambda root, work: ["train", f"--out={work}/run", *tiny_pretrain.words(root)], 2),
    ],
)
KINDS = [LISTS, IMAGES, CLASSIFIED, DICOMS, SLIDES]


def _dicom_words(path: Path) -> Words:
    return [*tiny_pretrain.words(path.parents[2]), "data.format=dicom", "policy=none", "data.val_split=null",
            "data.eval_split=null", "train.eval_every=0"]  # fmt: skip


def _cases() -> list[Any]:
    return [
        pytest.param(kind, verb, entry, id=f"{kind.name}-{verb.name}-{entry.make.__name__}",
                     marks=[pytest.mark.slow] if place else [])
        for kind in KINDS
        for place, verb in enumerate(kind.verbs)
        for entry in kind.entries
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "verb", "entry"), _cases())
def test_museum(kind: Kind, verb: Verb, entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
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
    assert code == verb.code, told
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
