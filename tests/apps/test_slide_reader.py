import datetime
import hashlib
import html
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image

from apps.cases import Example
from apps.slide_reader import scoring
from apps.slide_reader.app import build
from apps.slide_reader.handlers import VIEWS, SlideReader, delete_case
from apps.slide_reader.scoring import ConfinedScoring, score
from apps.slide_reader.wording import numbers_table, result_csv, with_cautions, without_call
from pipelines.wsi.predict import WsiPredictor
from tests.apps.stand_in import StandIn, alt, commands, copied, downloads, pictures
from vision_core.assets import aperio_slide
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import InputError
from vision_core.files import write_atomic
from vision_core.images.reading import read_image
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import heatmap_caption
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.overview import thumbnail


class _Predictor(StandIn[SlideResult]):
    """Looks most at the right half of a slide, and counts how often it was asked."""

    def __init__(self, *, synthetic: bool = False, is_blank: bool = False) -> None:
        self.calls = 0
        self.is_blank = is_blank
        self.card = Card(
            task="wsi",
            method="plain",
            config={},
            architecture={},
            preprocessing={},
            classes=("normal", "tumour"),
            trained_on=TrainedOn(description="slides", synthetic=synthetic),
        )

    def __call__(self, item: str | Path | NDArray[np.uint8]) -> SlideResult:
        assert isinstance(item, str | Path)
        path = Path(item)
        self.calls += 1
        tiles = [] if self.is_blank else [(x, y) for y in range(0, 768, 256) for x in range(0, 1024, 256)]
        return SlideResult(
            slide=path.name,
            size=(768, 1024),
            mpp=0.5,
            classes=("normal", "tumour"),
            probabilities=np.array([] if self.is_blank else [0.25, 0.75], np.float32),
            category="no tissue" if self.is_blank else "tumour",
            tiles=np.array(tiles, np.int64).reshape(-1, 2),
            tile_side=256,
            scores=np.array([x for x, _ in tiles], np.float32),
            facts={"<seconds>": 1.5},
            notes=("5 % of the tissue is blurred.",),
        )

    def write(self, result: SlideResult, path: str | Path, folder: str | Path) -> list[Path]:
        Path(folder).mkdir(exist_ok=True)
        written = Path(folder) / f"{Path(path).stem}.json"
        write_atomic(written, json.dumps(result.to_record()))
        return [written]


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one slide; what the page keeps goes to a folder beside it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    folder = tmp_path / "slides"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(100, 200, (768, 1024, 3)).astype(np.uint8)
    options = {"tile": True, "pyramid": True, "compression": "deflate", "resunit": "cm"}
    pyvips.Image.new_from_array(pixels).tiffsave(str(folder / "<a>.tiff"), xres=2000.0, yres=2000.0, **options)
    return folder


def reader(predictor: _Predictor, slides_root: Path | None = None) -> SlideReader:
    return SlideReader(predictor=predictor, slides_root=slides_root)


def example(slides: Path, *, is_own: bool = True) -> Example:
    return Example(name="demo", path=slides / "<a>.tiff", origin="made", why="It is made.", is_own=is_own)


def upload(predictor: _Predictor, slides: Path) -> tuple[Any, ...]:
    return reader(predictor).score_upload(str(slides / "<a>.tiff"), VIEWS[0])


def test_upload__picture_words_numbers_and_files(slides: Path) -> None:
    case, figure, words, details, files = upload(_Predictor(), slides)
    assert words.startswith("Tumour.<small>") and "5 % of the tissue is blurred." in words and "&lt;a&gt;.tiff" in words
    assert "Result: tumour" in alt(figure) and 'data-um="0.5"' in figure and "data-slide" in figure
    assert "Probability of tumour</th><td>0.750" in details and "&lt;seconds&gt;" in details
    assert "0.75" not in words and case.size == (768, 1024)
    assert case.files.digits == hashlib.sha256((slides / "<a>.tiff").read_bytes()).hexdigest()[:8]
    for text in (figure, details, files):
        assert case.files.digits in text
    sheet = pictures(reader(_Predictor()).show(case, VIEWS[1])[0])["base"]
    assert read_image(sheet).shape[1] > 480


def test_upload__downloads_are_neutral_by_name_and_say_what_they_are_of(slides: Path, tmp_path: Path) -> None:
    case, *_, files = upload(_Predictor(), slides)
    table, record = downloads(files)
    day = datetime.date.today().isoformat()
    endings = (".csv", ".json")
    assert [path.name for path in (table, record)] == [f"slide-{day}-{case.files.digits}{end}" for end in endings]
    content = json.loads(record.read_text())
    assert (content["notice"], content["input_sha256"]) == (RESEARCH_NOTICE, case.files.digits)
    assert RESEARCH_NOTICE in table.read_text() and case.files.digits in table.read_text()
    session = tmp_path / "session"
    assert all(path.is_relative_to(session) for path in (table, record))
    assert {folder.stat().st_mode & 0o777 for folder in session.iterdir()} == {0o700}
    assert [path.name for path in slides.iterdir()] == ["<a>.tiff"]


def test_show__runs_no_model_and_the_slide_is_there_bit_for_bit(slides: Path) -> None:
    predictor = _Predictor()
    case, figure, *_ = upload(predictor, slides)
    base, heat = pictures(figure).values()
    with open_slide(slides / "<a>.tiff") as slide:
        np.testing.assert_array_equal(read_image(base), thumbnail(slide, 2048))
    layer = np.asarray(Image.open(heat))
    assert layer.shape == (768, 1024, 4) and (layer[:, 768:, 3] > 0).mean() > 0.9  # the right, which it looked at
    page = reader(predictor)
    assert page.show(case, VIEWS[0]) == (figure,) and page.show(case, "nonsense") == (figure,)
    assert predictor.calls == 1
    assert "Give a slide" in page.show(None, VIEWS[0])[0]


def test_upload__nothing_is_a_blank_page() -> None:
    case, figure, words, details, files = reader(_Predictor()).score_upload(None, VIEWS[0])
    assert (case, details, files) == (None, "", "")
    assert "Give a slide" in words and "Give a slide" in figure


def test_upload__no_tissue_is_a_result(slides: Path) -> None:
    _, figure, words, *_ = upload(_Predictor(is_blank=True), slides)
    assert words.startswith("No tissue.")
    assert not np.asarray(Image.open(pictures(figure)["layer 1"]))[..., 3].any()


def test_take__a_model_of_made_images_speaks_of_its_own_slides_and_of_no_others(slides: Path) -> None:
    page = reader(_Predictor(synthetic=True))
    _, figure, words, details, files = page.score_example(example(slides, is_own=False), VIEWS[0])
    assert words.startswith("Not called") and "Probability" not in details
    assert "tumour" not in words + figure + details + "".join(path.read_text() for path in downloads(files))
    assert upload(_Predictor(synthetic=True), slides)[2].startswith("Not called")
    own = page.score_example(example(slides), VIEWS[0])[2]
    assert own.startswith("Tumour.") and "It is made." in own


def test_upload__clear_deletes_every_file_of_the_case(slides: Path, tmp_path: Path) -> None:
    page, uploaded = reader(_Predictor()), tmp_path / "session" / "hash" / "a.tiff"
    uploaded.parent.mkdir(parents=True)
    uploaded.write_bytes((slides / "<a>.tiff").read_bytes())
    case = page.score_upload(str(uploaded), VIEWS[0])[0]
    page.score_upload(None, VIEWS[0], case)
    assert list((tmp_path / "session").iterdir()) == []
    assert "Give a slide" in page.show(case, VIEWS[0])[0]  # a click that was on its way


def test_upload__next_slide_deletes_the_files_of_the_one_before(slides: Path, tmp_path: Path) -> None:
    page = reader(_Predictor())
    before = page.score_example(example(slides), VIEWS[0])[0]
    after = page.score_upload(str(slides / "<a>.tiff"), VIEWS[0], before)[0]
    assert [path for path in (tmp_path / "session").iterdir()] == [after.files.folder]
    again = page.score_upload(str(slides / "<a>.tiff"), VIEWS[0], after)[0]  # the same file once more
    assert again.files.uploaded == slides / "<a>.tiff" and again.files.uploaded.exists()


def test_take__example_and_slide_of_the_folder_outlive_their_case(slides: Path) -> None:
    page = reader(_Predictor(), slides)
    delete_case(page.score_example(example(slides), VIEWS[0])[0])
    delete_case(page.score_chosen("<a>.tiff", VIEWS[0])[0])
    assert (slides / "<a>.tiff").exists()


def test_upload__a_slide_that_fails_leaves_nothing(slides: Path, tmp_path: Path) -> None:
    class _Failing(_Predictor):
        def write(self, result: SlideResult, path: str | Path, folder: str | Path) -> list[Path]:
            raise InputError("the disk is full")

    with pytest.raises(InputError):
        upload(_Failing(), slides)
    assert list((tmp_path / "session").iterdir()) == []


def test_choose__slide_below_the_root(slides: Path) -> None:
    words = reader(_Predictor(), slides).score_chosen("<a>.tiff", VIEWS[0])[2]
    assert words.startswith("Tumour.<small>") and "<a>.tiff." in html.unescape(words)
    assert reader(_Predictor(), slides).score_chosen(None, VIEWS[0])[0] is None
    assert reader(_Predictor()).score_chosen("<a>.tiff", VIEWS[0])[0] is None


def test_choose__name_or_link_that_leads_out_is_refused(slides: Path, tmp_path: Path) -> None:
    predictor = _Predictor()
    (tmp_path / "b.tiff").write_bytes((slides / "<a>.tiff").read_bytes())
    (slides / "c.tiff").symlink_to(tmp_path / "b.tiff")
    for name in ("../b.tiff", str(tmp_path / "b.tiff"), "c.tiff"):
        with pytest.raises(InputError, match="not below the folder"):
            reader(predictor, slides).score_chosen(name, VIEWS[0])
    assert predictor.calls == 0


def test_upload__what_is_no_slide_is_told(slides: Path) -> None:
    path = slides / "b.tiff"
    path.write_text("no slide")
    with pytest.raises(InputError, match=r"b\.tiff"):
        reader(_Predictor()).score_upload(str(path), VIEWS[0])


def result(**facts: float) -> SlideResult:
    cautions = [f"{name} told." for name in ("outside", "abstains") if facts.get(name)]
    made = _Predictor()(Path("a.tiff"))
    return replace(made, facts=facts, notes=(*cautions, "Any of normal, tumour.", "5 % blurred."))


def test_worded__scope_comes_before_the_category_and_doubt_in_its_place() -> None:
    assert with_cautions(result()).category == "tumour"
    assert with_cautions(result(abstains=1)).category == "undecided"
    assert with_cautions(result(outside=1)).category == "outside what the model knows"
    assert with_cautions(result(outside=1, abstains=1)).category == "outside what the model knows"
    assert with_cautions(without_call(result(outside=1))).category.startswith(
        "outside what the model knows; not called"
    )


def test_uncalled__scope_stays_and_whatever_speaks_of_classes_goes() -> None:
    for outside in (0.0, 1.0):
        silent = without_call(result(outside=outside, abstains=1, possible_tumour=1, area_mm2=3))
        assert silent.notes == (("outside told.",) if outside else ()) + ("5 % blurred.",)
        assert "tumour" not in json.dumps(silent.to_record()) and dict(silent.facts) == {"outside": outside}
        assert silent.to_record()["probabilities"] == {}


def test_uncalled__the_heatmap_has_no_scale_bar_and_says_of_no_tile_that_it_stands_out() -> None:
    caption = heatmap_caption(with_cautions(without_call(result())), 100)
    assert caption.um_per_px is None and caption.headline.startswith("Result: not called")
    assert [line.split(":")[0] for line in caption.lines] == ["Colour"] and caption.ends == ("mean", "32 times")


def test_uncalled__no_tissue_remains_told() -> None:
    assert without_call(_Predictor(is_blank=True)(Path("a.tiff"))).category == "no tissue"


def test_table__names_that_a_spreadsheet_would_run_are_text() -> None:
    text = result_csv(replace(result(), slide='=cmd|"/c calc"!A1.tiff'), "0123abcd")
    assert text.splitlines()[1].startswith("\"'=cmd") and text.rstrip().endswith(RESEARCH_NOTICE)
    assert "0.75" in text


def test_numbers_table__without_tissue_there_are_no_probabilities() -> None:
    assert "Probability" not in numbers_table(_Predictor(is_blank=True)(Path("a.tiff")))


def test_build__events_are_private_and_paths_cannot_be_typed(slides: Path) -> None:
    page = build(_Predictor(synthetic=True), [example(slides)], slides)
    assert {event.api_visibility for event in page.fns.values()} == {"private"}
    assert copied(page) == []
    assert commands(page) == []
    assert not [block for block in page.blocks.values() if isinstance(block, gr.Textbox)]
    lists = [block for block in page.blocks.values() if isinstance(block, gr.Dropdown)]
    assert [name for name, _ in lists[0].choices] == ["<a>.tiff"]
    assert any("only seen made images" in str(block.value) for block in page.blocks.values() if hasattr(block, "value"))


@pytest.mark.slow
def test_confined__a_slide_of_others_gets_the_same_result_in_a_child(tmp_path: Path) -> None:
    bundle = Path("demos/checkpoints/wsi-demo")
    results = []
    ways: dict[str, Callable[..., SlideResult]] = {
        "here": partial(score, WsiPredictor.from_checkpoint(bundle)),
        "child": ConfinedScoring(bundle),
    }
    for name, way in ways.items():
        (folder := tmp_path / name).mkdir()
        (folder / "files").mkdir()
        results.append(way(aperio_slide(), folder, may_call=False))
    here, child = results
    assert here.to_record() | {"facts": None} == child.to_record() | {"facts": None}
    np.testing.assert_allclose(here.scores, child.scores, rtol=1e-4)
    for name in ("slide.png", "heat.png"):
        one, other = (np.asarray(Image.open(tmp_path / each / name)) for each in ("here", "child"))
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_confined__a_native_crash_is_one_line_and_the_next_slide_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_SCORE", "tests.apps.crashing:score_or_crash")
    confined = ConfinedScoring(Path("demos/checkpoints/wsi-demo"))
    (tmp_path / "files").mkdir()
    (bad := tmp_path / "crash.svs").write_bytes(b"0")
    with pytest.raises(InputError, match=r"crash\.svs"):
        confined(bad, tmp_path, may_call=False)
    assert len(confined(aperio_slide(), tmp_path, may_call=False)) > 0
