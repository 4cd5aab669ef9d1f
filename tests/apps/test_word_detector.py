"""The word detector's handlers, on a detector that answers what a test wants."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from apps.word_detector.app import build
from apps.word_detector.drawing import kinds_of
from apps.word_detector.handlers import PROMPT, Case, Question, Viewer, WordExample, question_of
from apps.word_detector.wording import learned_lines
from pipelines.ovd.data.vocabulary_split import Split
from pipelines.ovd.image_text.vocabulary import parse_names
from pipelines.ovd.predict import Typed
from tests.apps.stand_in import alt, commands, copied, downloads, unsaid
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import ConfigError, InputError
from vision_core.images.drawing import write_png
from vision_core.results import RESEARCH_NOTICE, Detections

SPLIT = Split(classes=("disc", "ring", "star"), novel=("star",))


class _Detector:
    """Finds a box of each typed word, of falling scores; knows no word that begins with x."""

    split = SPLIT
    card = Card(
        task="ovd",
        method="marvel",
        config={},
        architecture={},
        preprocessing={},
        classes=SPLIT.classes,
        trained_on=TrainedOn(description="drawn", synthetic=True),
        metrics={"data:val": {"images": 4, "base_ap50": 0.891, "novel_ap50": 0.14}},
    )

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def remarks_on(self, size: tuple[int, int]) -> tuple[str, ...]:
        return ()

    def look_for(self, words: str, negatives: str = "") -> Typed:
        self.asked.append((words, negatives))
        if negatives and not words:
            raise ConfigError("predict.negatives names what is not wanted, and predict.classes is empty. Name both.")
        names = parse_names(words).names if words.strip() else SPLIT.classes
        count = len(names)
        return Typed(
            names=names,
            embeddings=torch.eye(count),
            rivals=torch.zeros(0, count),
            thresholds=torch.full((count,), 0.125),
            far=tuple(name for name in names if name.startswith("x")),
        )

    def __call__(self, image: NDArray[np.uint8], typed: Typed) -> Detections:
        count = len(typed.names)
        return Detections(
            boxes=np.tile(np.array([10, 20, 30, 40], np.float32), (count, 1)),
            scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
            labels=np.arange(count),
            classes=typed.names,
            image_size=(image.shape[0], image.shape[1]),
            model="ovd/marvel/123",
        )


@pytest.fixture
def viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Viewer:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    return Viewer(detector=_Detector())  # type: ignore[arg-type]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "session" / "0123" / "photo.png"
    write_png(path, np.full((100, 80, 3), 120, np.uint8))
    return path


def _upload(viewer: Viewer, photo: Path, words: str = "disc, star", **more: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return viewer.upload(str(photo), Question(words=words, **more))


def test_upload__words_are_counted_and_each_has_a_colour(viewer: Viewer, photo: Path) -> None:
    case, figure, words, details, files = _upload(viewer, photo)
    assert words.startswith("Found disc: 1; star: 1.<small>")
    assert "above 0.40 and above the word" in words
    assert figure.count("<rect") == 4  # each box with its rim
    assert all(f'stroke="rgb{kind.colour}"' in figure for kind in kinds_of(("disc", "star")))
    assert "photo.png. Found disc: 1; star: 1." in alt(figure)
    assert "0.125" in details and case.files.digits in details
    assert len(downloads(files)) == 3
    assert unsaid(files, case.files.digits, case.answer.found.model) == []
    assert unsaid(files, "photo.png") == ["png"]  # a picture names no file


def test_upload__a_word_that_is_strange_is_answered_in_words_and_not_marked(viewer: Viewer, photo: Path) -> None:
    _, figure, words, details, files = _upload(viewer, photo, "disc, xylem")
    assert "This model has not learned words like &#x27;xylem&#x27;: nothing is marked for them." in words
    assert figure.count("<rect") == 2
    assert "not learned" in details
    record = json.loads(next(path for path in downloads(files) if path.suffix == ".json").read_text())
    assert record["not_learned"] == ["xylem"]
    assert [each["label"] for each in record["objects"]] == ["disc"]
    _, figure, words, _, _ = _upload(viewer, photo, "xylem")
    assert words.startswith("This model has not learned words like")
    assert figure.count("<rect") == 0


def test_ask__other_words_on_the_same_image_keep_its_folder(viewer: Viewer, photo: Path) -> None:
    case = _upload(viewer, photo)[0]
    asked, figure, words, _, files = viewer.ask(case, Question(words="ring", not_wanted="star", score=0.4))
    assert viewer.detector.asked == [("disc, star", ""), ("ring", "star")]  # type: ignore[attr-defined]
    assert asked.files == case.files
    assert words.startswith("Found ring: 1.") and "Competing, and not shown: star." in words
    [row] = csv.DictReader(io.StringIO(next(each for each in downloads(files) if each.suffix == ".csv").read_text()))
    assert (row["word"], row["image"], row["notice"]) == ("ring", "photo.png", RESEARCH_NOTICE)
    assert (row["series"], row["input_sha256"]) == ("", case.files.digits)
    assert figure.count("<rect") == 2
    assert viewer.ask(None, Question(words="ring"))[2] == PROMPT


def test_show__a_higher_score_leaves_boxes_out_without_the_model(viewer: Viewer, photo: Path) -> None:
    case = _upload(viewer, photo)[0]
    figure, words, *_ = viewer.show(case, 0.8)
    assert words.startswith("Found disc: 1.") and "Nothing for &#x27;star&#x27;." in words
    assert figure.count("<rect") == 2
    figure, words, *_ = viewer.show(case, 0.95)
    assert words.startswith("Nothing found for &#x27;disc&#x27;, &#x27;star&#x27;.") and "<rect" not in figure
    assert len(viewer.detector.asked) == 1  # type: ignore[attr-defined]
    viewer.forget(case)
    assert not case.files.folder.exists() and not photo.exists()
    assert viewer.show(case, 0.5)[1] == PROMPT
    assert viewer.ask(case, Question(words="ring"))[0] is None


def test_take__an_example_brings_its_words(viewer: Viewer, photo: Path) -> None:
    example = WordExample(name="Two", path=photo, origin="made", why="It has two.", words="ring, star", not_wanted="a")
    case, _, words, *_ = viewer.take(example, 0.4)
    assert isinstance(case, Case) and "It has two." in words
    assert viewer.detector.asked == [("ring, star", "a")]  # type: ignore[attr-defined]
    assert "It has two." not in viewer.ask(case, Question(words="disc"))[2]


def test_upload__nothing_wanted_is_refused_and_leaves_no_file(viewer: Viewer, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not wanted"):
        _upload(viewer, photo, "", not_wanted="star")
    assert not [path for path in (tmp_path / "session").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "score"), [("a" * 601, 0.5), ("a," * 20, 0.5), ("a", 1.5), ("a", float("nan")), ("a", None)]
)
def test_question__what_no_control_sends_is_refused(words: str, score: float | None) -> None:
    with pytest.raises(InputError):
        question_of(words, "", score)


def test_learned__both_kinds_of_words_with_their_scores() -> None:
    boxes, names = learned_lines(SPLIT, _Detector.card)
    assert boxes == "Learned with boxes (AP50 89 of 100): disc, ring."
    assert names.startswith("Learned by their names, without a box (AP50 14 of 100): star. Any other")
    bare = learned_lines(SPLIT, _Detector.card.model_copy(update={"metrics": {}}))
    assert bare[0] == "Learned with boxes: disc, ring."


def test_build__the_page_says_what_was_learned_and_that_images_were_made(viewer: Viewer, photo: Path) -> None:
    page = build(viewer.detector, [WordExample(name="Two", path=photo, origin="made")])
    told = " ".join(str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML))
    assert "Learned with boxes" in told and "only seen made images" in told
    assert "no record of a score to work at: the page opens at 0.40" in told
    assert not [each for each in page.fns.values() if each.api_visibility != "private"]
    assert copied(page) == []
    assert commands(page) == []
