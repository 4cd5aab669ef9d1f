import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from apps.cases import Example
from apps.detection_viewer.app import build, scope_lines
from apps.detection_viewer.handlers import VIEWS, Case, Display, ModelPair, Viewer, display_of
from apps.detection_viewer.wording import headline, operating_score, totals
from tests.apps.stand_in import StandIn, alt, commands, copied, downloads, pictures, unsaid
from tests.bad_inputs import dicoms
from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.calibration import calibrate
from vision_core.dicom.reader import read_dicom_image
from vision_core.errors import InputError
from vision_core.images.drawing import SKY_BLUE, write_png
from vision_core.images.reading import read_image
from vision_core.results import RESEARCH_NOTICE, Detections

ONE = (10.0, 10.0, 30.0, 30.0)


class _Predictor(StandIn[Detections]):
    """Finds fixed boxes, and counts how often it was asked."""

    def __init__(self, boxes: list[tuple[float, ...]], scores: list[float], *, synthetic: bool = False) -> None:
        self.boxes, self.scores = boxes, scores
        self.calls = 0
        self.card = Card(
            task="sfod",
            method="mt",
            config={},
            architecture={},
            preprocessing={},
            classes=("tree",),
            trained_on=TrainedOn(description="tiles", synthetic=synthetic),
        )

    def __call__(self, item: str | Path | NDArray[np.uint8]) -> Detections:
        assert isinstance(item, np.ndarray)
        self.calls += 1
        return found(self.boxes, self.scores, (item.shape[0], item.shape[1]))


def found(
    boxes: list[tuple[float, ...]],
    scores: list[float] | None = None,
    size: tuple[int, int] = (100, 80),
    labels: list[int] | None = None,
) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([0.9] * len(boxes) if scores is None else scores, np.float32),
        labels=np.array(labels or [0] * len(boxes), np.int64),
        classes=("tree", "bush") if labels else ("tree",),
        image_size=size,
        model="sfod/mt/123",
        titles={"tree": "tree crown"},
    )


@pytest.fixture
def viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Viewer:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    source = _Predictor([ONE], [0.9])
    adapted = _Predictor([ONE, (40, 40, 60, 60), (50, 70, 70, 90)], [0.9, 0.6, 0.5])
    return Viewer(pairs=(ModelPair(name="trees", source=source, adapted=adapted),))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "session" / "0123" / "photo.png"
    write_png(path, np.full((100, 80, 3), 120, np.uint8))
    return path


def upload(viewer: Viewer, path: Path, score: float = 0.55, **display: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return viewer.upload("trees", str(path), Display(score=score, **display))


def test_upload__what_changed_is_told_first_and_drawn(viewer: Viewer, photo: Path) -> None:
    case, figure, words, details, files = upload(viewer, photo)
    assert words.startswith("1 tree crown found that the source model missed.<small>")
    assert "Above a score of 0.55 the source model finds 1 tree crown, the adapted model 2 tree crowns." in words
    assert "photo.png. What changed. 1 tree crown found" in alt(figure)
    assert figure.count("<rect") == 2 * 2  # what stayed and what was gained, each with its rim
    assert f'stroke="rgb{SKY_BLUE}"' in figure
    assert isinstance(case, Case) and case.files.digits in details and len(downloads(files)) == 3
    np.testing.assert_array_equal(read_image(pictures(figure)["base"]), read_image(photo))


@pytest.mark.parametrize(("view", "rects"), list(zip(VIEWS, (2, 1, 2, 3), strict=True)))
def test_show__every_view_without_running_a_model(viewer: Viewer, photo: Path, view: str, rects: int) -> None:
    case = upload(viewer, photo)[0]
    figure = viewer.show(case, display_of(0.55, view))[0]
    assert figure.count("<rect") == 2 * rects and view in alt(figure)
    assert ("divider" in figure) == (view == VIEWS[3])
    assert [model.calls for model in (viewer.pairs[0].source, viewer.pairs[0].adapted)] == [1, 1]  # type: ignore[attr-defined]


def test_upload__what_was_decided_for_the_file_is_told_and_downloaded(
    viewer: Viewer, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = photo.with_name("deep.png")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(deep)
    monkeypatch.setattr(_Predictor, "remarks_on", lambda *_: ("has 64 x 64 pixels, of which the model sees 8 x 8",))
    _, figure, words, _, files = upload(viewer, deep)
    notes = [
        "The file uses 12 of its 16 bits or more a sample, and is read as such.",
        "The image has 64 x 64 pixels, of which the model sees 8 x 8.",
    ]
    assert all(f"<small>{note}</small>" in words for note in notes)
    assert json.loads(downloads(files)[2].read_text())["notes"] == notes
    assert read_image(pictures(figure)["base"]).max() > 200


def test_upload__downloads_hold_both_models_hash_and_notice(viewer: Viewer, photo: Path) -> None:
    case, *_, files = upload(viewer, photo)
    picture, table, record = downloads(files)
    content = json.loads(record.read_text())
    assert content["notice"] == RESEARCH_NOTICE and case.files.digits in content["input_hash"]
    assert content["changed"] == {"gained": 1, "lost": 0, "moved": 0, "same": 1}
    assert [len(content[role]["objects"]) for role in ("source", "adapted")] == [1, 2]
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [(row["change"], row["model"], row["left"]) for row in rows] == [
        ("gained", "adapted", "40.0"),
        ("same", "adapted", "10.0"),
    ]
    of = {(row["notice"], row["image"], row["input_sha256"]) for row in rows}
    assert of == {(RESEARCH_NOTICE, "photo.png", case.files.digits)}
    assert read_image(picture).shape[0] > read_image(picture).shape[1]  # the caption is below
    assert unsaid(files, case.files.digits, case.source.model, case.adapted.model) == []
    assert Image.open(picture).info["Description"].startswith(f"Input {case.files.digits}, frame 1. Model ")
    assert unsaid(files, "photo.png") == ["png"]  # a picture names no file
    assert all(path.name.startswith("detection-") and case.files.digits in path.name for path in (picture, table))


def test_upload__dicom_without_a_suffix_as_a_viewer_shows_it(viewer: Viewer, photo: Path) -> None:
    ramp = np.tile(np.arange(4096, dtype=np.uint16)[::64], (64, 1))
    path = dicoms.still(photo.with_name("IM0001"), ramp, BitsStored=12, HighBit=11)
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])  # a preamble as of TIFF, which scanners write
    case, figure, *_ = upload(viewer, path)
    np.testing.assert_array_equal(read_image(pictures(figure)["base"]), read_dicom_image(path))
    assert dicoms.PERSON not in "".join(file.read_text() for file in case.files.folder.rglob("*.json"))
    assert "data-grey" in figure and '<option value="2016.5 4033">Whole range</option>' in figure
    codes = read_image(case.files.folder / "values.png")
    np.testing.assert_array_equal(codes[..., 0].astype(int) * 256 + codes[..., 1] + 0, ramp - ramp.min())


def test_upload__lengths_where_the_spacing_is_known_and_a_yes_before_names_leave(viewer: Viewer, photo: Path) -> None:
    path = dicoms.still(photo.with_name("us.dcm"), Modality="US", SeriesDescription="Liver", PixelSpacing=[0.2, 0.2])
    _, figure, _, details, files = upload(viewer, path)
    assert 'data-um="200"' in figure and "US, Liver" in details and "0.2 mm per pixel" in details
    assert "may hold text that names a person" in files and files.startswith("<details")
    content = json.loads(downloads(files)[2].read_text())
    assert (content["series"], content["scale"]) == ("US, Liver", "0.2 mm per pixel")
    assert {row["series"] for row in csv.DictReader(downloads(files)[1].open())} == {"US, Liver"}
    plain = upload(viewer, dicoms.still(photo.with_name("ct.dcm")))
    assert "<details" not in plain[4] and "data-um" not in plain[1] and "unknown" in plain[3]


def test_upload__nothing_or_clear_leaves_no_file(viewer: Viewer, photo: Path, tmp_path: Path) -> None:
    case = upload(viewer, photo)[0]
    cleared = viewer.upload("trees", None, Display(score=0.5), case)
    assert cleared[0] is None and "Give an image" in cleared[1] and cleared[-1] == ""
    assert not [path for path in (tmp_path / "session").rglob("*") if path.is_file()]
    assert "Give an image" in viewer.show(case, Display(score=0.5))[0]  # a move of the slider that was on its way


def test_take__an_example_stays_and_the_case_before_goes(viewer: Viewer, photo: Path, tmp_path: Path) -> None:
    case = upload(viewer, photo)[0]
    write_png(tmp_path / "tile.png", np.zeros((40, 40, 3), np.uint8))
    example = Example(name="tile", path=tmp_path / "tile.png", origin="made", why="It is black.")
    other, _, words, *_ = viewer.take("trees", example, Display(score=0.5), case)
    assert not case.files.folder.exists() and not photo.exists() and "It is black." in words
    viewer.forget(other)
    assert example.path.exists()


@pytest.mark.parametrize("content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html></html>"])
def test_upload__what_is_no_image_is_an_input_error(content: bytes, viewer: Viewer, photo: Path) -> None:
    path = photo.with_name("a.png")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png"):
        upload(viewer, path)


def test_upload__name_of_a_file_is_no_markup(viewer: Viewer, photo: Path) -> None:
    path = photo.rename(photo.with_name("<img src=x>\u202e.png"))
    shown = "".join(upload(viewer, path)[1:4])
    assert "<img src=x>" not in shown and "&lt;img src=x&gt;\ufffd" in shown


@pytest.mark.parametrize("score", [float("nan"), -1.0, 2.0, None])
def test_display_of__a_score_out_of_range_is_refused(score: float | None) -> None:
    with pytest.raises(InputError, match="expected a number from 0 to 1"):
        display_of(score, VIEWS[0])
    assert display_of(0.5, "nonsense").view == VIEWS[0]


def test_headline__gains_losses_and_moves_in_words() -> None:
    assert headline(found([]), found([])) == "Neither model finds anything."
    assert headline(found([ONE]), found([ONE])) == "Both models find the same."
    assert headline(found([ONE]), found([])) == "1 tree crown no longer found."
    moved, three = (13.0, 10.0, 33.0, 30.0), [(40.0, 10.0 * at, 50.0, 10.0 * at + 9) for at in range(3)]
    assert headline(found([ONE]), found([moved, *three])) == (
        "3 tree crowns found that the source model missed; 1 tree crown moved."
    )
    assert headline(found([ONE], labels=[0]), found([], labels=[])) == "1 object no longer found."


def test_totals__several_classes_are_told_apart() -> None:
    source, adapted = found([ONE, (40, 40, 50, 50)], labels=[0, 1]), found([ONE, ONE, ONE], labels=[0, 0, 1])
    assert totals(source, adapted, 0.5).endswith("By class: bush 1 → 1; tree crown 1 → 2.")
    assert "2 objects, the adapted model 3 objects" in totals(source, adapted, 0.5)


def test_operating_score__is_the_sources_or_one_half_and_said() -> None:
    card = _Predictor([], []).card
    assert operating_score(card, card)[0] == 0.5 and "no record" in operating_score(card, card)[1]
    no = np.zeros(1, bool)
    boxes, labels = np.array([ONE], np.float32), np.zeros(1, np.int64)
    truths = [SimpleNamespace(boxes=boxes, labels=labels, difficult=no, crowd=no)]
    table = calibrate(truths, [found([ONE], [0.71])], ("tree",), data="list 'x': nine tiles", manifest="0")
    calibrated = card.model_copy(update={"calibration": table.model_dump(mode="json")})
    score, told = operating_score(calibrated, card)
    assert score == 0.71 and told == "The page opens at 0.71, the best score on nine tiles."


def test_scope_lines__made_training_images_are_announced() -> None:
    real, made = _Predictor([], []), _Predictor([], [], synthetic=True)
    assert scope_lines([ModelPair(name="a", source=real, adapted=real)]) == []
    assert scope_lines([ModelPair(name="b", source=real, adapted=made)]) == ["b: this model has only seen made images."]


def test_build__events_are_private(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    pair = ModelPair(name="trees", source=_Predictor([], []), adapted=_Predictor([], []))
    page = build([pair], [Example(name="tile", path=photo, origin="made")])
    assert {event.api_visibility for event in page.fns.values()} == {"private"}
    assert page.analytics_enabled is False
    assert copied(page) == []
    assert commands(page) == []
    sliders = [block for block in page.blocks.values() if isinstance(block, gr.Slider)]
    assert [slider.value for slider in sliders] == [0.5, 1.0]
