"""Every entry of the museum through every verb that can meet it: the same finding, the same code, nothing changed.

One verb of each kind of input runs in ``make test``, all in ``make test-slow``. File descriptors are watched, since
libraries in C write there.
"""

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from pipelines.ovd.__main__ import main as ovd
from pipelines.ovd.bundles import StoredRegions, save_open_detector
from pipelines.ovd.detector import OpenDetector
from pipelines.pretrain.__main__ import main as pretrain
from pipelines.sfod.__main__ import main as sfod
from pipelines.ultrasound.__main__ import main as ultrasound
from pipelines.ultrasound.config import ScreenNetwork
from pipelines.ultrasound.screening.screen import Screen
from pipelines.wsi.__main__ import main as wsi
from tests.bad_inputs import frames as bad_frames
from tests.bad_inputs.matrix import Entry, Kind, Verb, assert_told, cases, classifier, kept
from tests.bad_inputs.test_detection_commands import BAD_IMAGES
from tests.bad_inputs.test_labelled_lists import REFUSED as BAD_LISTS
from tests.bad_inputs.test_pretraining import REFUSED as BAD_CLASSIFIED
from tests.bad_inputs.test_slides import FAILED as BAD_SLIDES
from tests.pipelines.ovd import tiny as tiny_ovd
from tests.pipelines.pretrain import tiny as tiny_pretrain
from tests.pipelines.sfod.tiny import SUPERVISED, source_bundle
from tests.pipelines.ultrasound import tiny as tiny_ultrasound
from tests.pipelines.wsi import tiny as tiny_wsi
from tests.vision_core.dicom.test_reader import REFUSED as BAD_DICOMS
from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.settings import DetectorSettings
from vision_core.randomness import seeded
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter

Words = list[str]


@cache
def _slide_model() -> Path:
    return tiny_wsi.make_bundle(kept() / "model")


@cache
def _screen() -> Path:
    network = Screen(ScreenNetwork(network="resnet10t"))
    return tiny_ultrasound.make_bundle(kept() / "model", network, "method=screen")


@cache
def _segmenter() -> Path:
    return tiny_ultrasound.make_bundle(kept() / "model", ResidualUNet(Segmenter(layers=2, first=4)))


def _data_words(data: Path) -> Words:
    return [f"data.root={data}", "data.classes=[disc,square]", *SUPERVISED]


@cache
def _open_detector() -> Path:
    """A detector of names with random weights, which knows the two classes of the lists."""
    classes = ("disc", "square")
    with seeded(0):
        detector = OpenDetector(DetectorSettings(**{"neck": "fpn", **tiny_ovd.DETECTOR}), classes, torch.eye(2, 8))
    card = Card(
        task="ovd",
        method="marvel",
        config={},
        architecture={},
        preprocessing={},
        classes=classes,
        trained_on=TrainedOn(description="nothing: random weights", synthetic=True),
    )
    save_open_detector(folder := kept() / "model", detector.freeze(), card, ("square",), StoredRegions.none(8))
    return folder


def _open_words(data: Path) -> Words:
    """Settings under which the boxes of both classes are read; of a detector, those of the base class alone are."""
    return [f"data.root={data}", *tiny_ovd.TRAINING, "data.classes=[disc,square]", "data.novel=[square]",
            "method=image_text"]  # fmt: skip


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
OPEN_LISTS = Kind(
    name="labelled list of names",
    makes_folder=True,
    is_slow=True,
    entries=[each for each in LISTS.entries if each.words in {("data.format=voc",), ("data.format=coco",)}],
    verbs=[
        Verb("validate", ovd, lambda data, work: ["validate", *_open_words(data)], 2),
        Verb("train", ovd, lambda data, work: ["train", f"--out={work}/run", *_open_words(data)], 2),
        Verb(
            "evaluate",
            ovd,
            lambda data, work: ["evaluate", f"--checkpoint={_open_detector()}", f"data.root={data}",
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
OPEN_IMAGES = Kind(
    name="image of names",
    entries=IMAGES.entries,
    is_slow=True,
    verbs=[
        Verb(
            "predict",
            ovd,
            lambda path, work: ["predict", f"--checkpoint={_open_detector()}", f"--input={path.parent}",
                                f"--out={work}/out"],
            3,
        )
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
                f"--checkpoint={classifier()}",
                f"--input={path.parent}",
                f"--out={work}/out",
            ],
            3,
        ),
        Verb(
            "screen",
            ultrasound,
            lambda path, work: ["predict", f"--checkpoint={_screen()}", f"--input={path.parent}", f"--out={work}/out"],
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
FRAME_LISTS = Kind(
    name="list of frames",
    makes_folder=True,
    entries=[Entry(make, line) for make, line in bad_frames.LISTS],
    verbs=[
        Verb("validate", ultrasound, lambda root, work: ["validate", *tiny_ultrasound.words(root)], 2),
        Verb("train", ultrasound, lambda root, work: ["train", f"--out={work}/run", *tiny_ultrasound.words(root)], 2),
        Verb("evaluate", ultrasound, lambda root, work: _scored("evaluate", root, _segmenter()), 2),
        Verb("calibrate", ultrasound, lambda root, work: [*_scored("calibrate", root, _screen()), _behind()], 2),
    ],
)
FRAMES = Kind(
    name="frame",
    makes_folder=True,
    entries=[Entry(make, line) for make, line in bad_frames.FRAMES],
    verbs=[
        Verb("validate", ultrasound, lambda root, work: ["validate", *tiny_ultrasound.words(root)], 4),
        Verb("train", ultrasound, lambda root, work: ["train", f"--out={work}/run", *tiny_ultrasound.words(root)], 2),
        Verb("evaluate", ultrasound, lambda root, work: [*_scored("evaluate", root, _segmenter()),
                                                         "data.eval_split=val"], 2),
        Verb("calibrate", ultrasound, lambda root, work: [*_scored("calibrate", root, _screen()), _behind()], 2),
    ],
)  # fmt: skip
TWICE = Kind(
    name="frame in two lists",
    makes_folder=True,
    entries=[Entry(make, line) for make, line in bad_frames.TWICE],
    verbs=[each for each in FRAME_LISTS.verbs if each.name != "evaluate"],  # which reads one list alone
)
KINDS = [LISTS, OPEN_LISTS, IMAGES, OPEN_IMAGES, CLASSIFIED, DICOMS, SLIDES, FRAME_LISTS, FRAMES, TWICE]


def _scored(verb: str, root: Path, bundle: Path) -> Words:
    return [verb, f"--checkpoint={bundle}", f"data.root={root}"]


def _behind() -> str:
    return f"segment={_segmenter()}"


def _dicom_words(path: Path) -> Words:
    return [*tiny_pretrain.words(path.parents[2]), "data.format=dicom", "policy=none", "data.val_split=null",
            "data.eval_split=null", "train.eval_every=0"]  # fmt: skip


@pytest.mark.parametrize(("kind", "verb", "entry"), cases(KINDS))
def test_museum(kind: Kind, verb: Verb, entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert_told(kind, verb, entry, tmp_path, capfd)
