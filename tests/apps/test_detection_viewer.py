import json
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from apps.detection_viewer.app import Case, Example, ModelPair, Viewer, build, describe, draw, scope_lines
from tests.apps.stand_in import StandIn
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import InputError
from vision_core.images.drawing import ORANGE, SKY_BLUE, write_png
from vision_core.results import RESEARCH_NOTICE, Detections


class _Predictor(StandIn[Detections]):
    """Finds one fixed box for each of its scores, and counts how often it was asked."""

    def __init__(self, scores: list[float], *, synthetic: bool = False) -> None:
        self.scores = scores
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
        return _found(self.scores, item.shape[:2])


def _found(scores: list[float], size: tuple[int, int], labels: list[int] | None = None) -> Detections:
    return Detections(
        boxes=np.array([[10, 10, 30, 30]] * len(scores), np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels or [0] * len(scores), np.int64),
        classes=("tree", "bush"),
        image_size=size,
        model="sfod/mt/123",
    )


@pytest.fixture
def viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Viewer:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    pair = ModelPair(name="trees", source=_Predictor([0.9]), adapted=_Predictor([0.9, 0.6, 0.5]))
    with gr.Blocks():
        return Viewer(pairs=(pair,), download=gr.DownloadButton())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_png(path, np.full((100, 80, 3), 120, np.uint8))
    return path


def _case(source: Detections, adapted: Detections) -> Case:
    return Case(name="a.png", display=np.zeros((200, 160, 3), np.uint8), source=source, adapted=adapted)


def test_read__both_models_are_shown_and_counted(viewer: Viewer, photo: Path) -> None:
    case, status, source, adapted, download = viewer.read("trees", str(photo), 0.5)
    assert status == "photo.png: above a score of 0.50 the source model finds 1 box, the adapted model 2 boxes (+1)."
    assert source["alt_text"] == "Source model: 1 box on photo.png"
    assert not np.array_equal(source["value"], adapted["value"])
    assert download["interactive"] and isinstance(case, Case)


def test_read__what_was_decided_for_the_file_is_told_and_downloaded(
    viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "deep.png")
    monkeypatch.setattr(_Predictor, "remarks_on", lambda *_: ("has 64 x 64 pixels, of which the model sees 8 x 8",))
    _, status, source, _, download = viewer.read("trees", str(tmp_path / "deep.png"), 0.5)
    notes = [
        "The file uses 12 of its 16 bits or more a sample, and is read as such.",
        "The image has 64 x 64 pixels, of which the model sees 8 x 8.",
    ]
    assert status.endswith(" ".join(notes))
    assert json.loads(Path(download["value"]).read_text())["notes"] == notes
    assert source["value"].max() > 200


def test_read__download_holds_both_models_and_the_notice(viewer: Viewer, photo: Path) -> None:
    download = viewer.read("trees", str(photo), 0.55)[-1]
    record = json.loads(Path(download["value"]).read_text())
    assert record["notice"] == RESEARCH_NOTICE and record["image"] == "photo.png"
    assert [len(record[role]["objects"]) for role in ("source", "adapted")] == [1, 2]


def test_read__nothing_uploaded_is_a_blank_page(viewer: Viewer) -> None:
    case, status, source, adapted, download = viewer.read("trees", None, 0.5)
    assert (case, source, adapted) == (None, None, None)
    assert "Give an image" in status and download["interactive"] is False


@pytest.mark.parametrize("content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html></html>"])
def test_read__what_is_no_image_is_an_input_error(content: bytes, viewer: Viewer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png"):
        viewer.read("trees", str(path), 0.5)


def test_show__slider_runs_no_model(viewer: Viewer, photo: Path) -> None:
    case = viewer.read("trees", str(photo), 0.5)[0]
    status = viewer.show(case, 0.95)[0]
    assert "the source model finds 0 boxes, the adapted model 0 boxes (+0)" in status
    assert [model.calls for model in (viewer.pairs[0].source, viewer.pairs[0].adapted)] == [1, 1]  # type: ignore[attr-defined]


def test_show__name_of_a_file_is_no_markup(viewer: Viewer) -> None:
    case = Case(
        name="<img src=x>", display=np.zeros((9, 9, 3), np.uint8), source=_found([], (9, 9)), adapted=_found([], (9, 9))
    )
    assert viewer.show(case, 0.5)[0].startswith("&lt;img src=x&gt;")


def test_draw__boxes_are_scaled_to_the_display_and_coloured_by_model() -> None:
    case = _case(_found([0.9], (100, 80)), _found([0.9], (100, 80)))
    for role, colour in (("source", ORANGE), ("adapted", SKY_BLUE)):
        picture = draw(case, role, 0.5)  # type: ignore[arg-type]
        edge = picture[40, 18:23].astype(int)  # the left edge, x = 10 in the original, is at 20
        assert np.abs(edge - colour).sum(axis=1).min() < 60
        assert picture.shape[0] > 200  # the notice


def test_draw__score_above_all_leaves_the_picture_as_it_is() -> None:
    case = _case(_found([0.9], (100, 80)), _found([], (100, 80)))
    np.testing.assert_array_equal(draw(case, "source", 0.9)[:200], case.display)


def test_describe__several_classes_are_told_apart() -> None:
    case = _case(_found([0.9, 0.8], (9, 9), [0, 1]), _found([0.9, 0.8, 0.7], (9, 9), [0, 0, 1]))
    assert describe(case, 0.5).endswith("By class: tree 1 → 2; bush 1 → 1.")


def test_scope_lines__made_training_images_are_announced() -> None:
    real, made = _Predictor([]), _Predictor([], synthetic=True)
    assert scope_lines([ModelPair(name="a", source=real, adapted=real)]) == []
    assert scope_lines([ModelPair(name="b", source=real, adapted=made)]) == ["b: this model has only seen made images."]


def test_build__events_are_private_and_pictures_lossless() -> None:
    pair = ModelPair(name="trees", source=_Predictor([]), adapted=_Predictor([]))
    page = build([pair], [Example(name="tile", image=np.zeros((9, 9, 3), np.uint8), origin="made")])
    assert {event.api_visibility for event in page.fns.values()} == {"private"}
    images = [block for block in page.blocks.values() if isinstance(block, gr.Image)]
    assert [(image.format, image.interactive) for image in images] == [("png", False)] * 2
    assert page.analytics_enabled is False
