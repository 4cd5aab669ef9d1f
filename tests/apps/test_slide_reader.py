import html
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import pyvips

from apps.slide_reader.app import Example, Reader, build, numbers_table
from vision_core.bundle import Card, TrainedOn
from vision_core.errors import InputError
from vision_core.files import write_atomic
from vision_core.results import RESEARCH_NOTICE, SlideResult


class _Predictor:
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

    def __call__(self, path: Path, /) -> SlideResult:
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

    def write(self, result: SlideResult, path: Path, folder: Path) -> list[Path]:
        written = folder / f"{path.stem}.json"
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


def reader(predictor: _Predictor, slides_root: Path | None = None) -> Reader:
    with gr.Blocks():
        return Reader(predictor=predictor, files=gr.File(), slides_root=slides_root)


def upload(predictor: _Predictor, slides: Path, opacity: float = 0.5) -> tuple[Any, ...]:
    return reader(predictor).upload(str(slides / "<a>.tiff"), opacity)


def test_upload__words_first_then_pictures_numbers_and_files(slides: Path) -> None:
    case, status, heatmap, sheet, numbers, files = upload(_Predictor(), slides)
    assert status == "&lt;a&gt;.tiff: tumour. 5 % of the tissue is blurred."
    assert "Result: tumour" in heatmap["alt_text"] and sheet["value"].shape[1] > 480
    assert "Probability of tumour</th><td>0.750" in numbers and "&lt;seconds&gt;" in numbers
    assert "0.75" not in status and case.display.shape == (768, 1024, 3)
    assert files["visible"]


def test_upload__downloads_are_in_the_session_folder_and_nowhere_else(slides: Path, tmp_path: Path) -> None:
    files = upload(_Predictor(), slides)[-1]["value"]
    record = json.loads(Path(files[0]).read_text())
    assert record["notice"] == RESEARCH_NOTICE and record["category"] == "tumour"
    session = tmp_path / "session"
    assert [path.resolve() for path in session.rglob("*") if path.is_file()] == [Path(files[0]).resolve()]
    assert [path.name for path in slides.iterdir()] == ["<a>.tiff"]


def test_show__opacity_runs_no_model_and_zero_is_the_slide_bit_for_bit(slides: Path) -> None:
    predictor = _Predictor()
    case = upload(predictor, slides)[0]
    page = reader(predictor)
    bare, full = (page.show(case, opacity)[0]["value"] for opacity in (0.0, 1.0))
    np.testing.assert_array_equal(bare[:768], case.display)
    np.testing.assert_array_equal(full[:768], case.layer[..., :3])
    assert predictor.calls == 1
    assert page.show(None, 0.3) == (None,)


def test_upload__nothing_is_a_blank_page() -> None:
    case, status, heatmap, sheet, numbers, files = reader(_Predictor()).upload(None, 0.5)
    assert (case, heatmap, sheet, numbers) == (None, None, None, "")
    assert "Give a slide" in status and files["visible"] is False


def test_upload__no_tissue_is_a_result(slides: Path) -> None:
    case, status, heatmap, *_ = upload(_Predictor(is_blank=True), slides)
    assert ": no tissue." in status
    np.testing.assert_array_equal(heatmap["value"][:768], case.display)


def test_analyse__a_model_of_made_images_calls_its_examples_and_nothing_else(slides: Path) -> None:
    page, path = reader(_Predictor(synthetic=True)), slides / "<a>.tiff"
    _, status, heatmap, _, numbers, files = page.analyse(path, "mine", 0.5)
    assert "not called" in status and numbers == ""
    assert "tumour" not in status + heatmap["alt_text"]
    assert json.loads(Path(files["value"][0]).read_text())["category"].startswith("not called")
    assert "demo: tumour." in page.analyse(path, "demo", 0.5, is_example=True)[1]


def test_choose__slide_below_the_root(slides: Path) -> None:
    assert "<a>.tiff: tumour." in html.unescape(reader(_Predictor(), slides).choose("<a>.tiff", 0.5)[1])
    assert reader(_Predictor(), slides).choose(None, 0.5)[0] is None
    assert reader(_Predictor()).choose("<a>.tiff", 0.5)[0] is None


def test_choose__name_or_link_that_leads_out_is_refused(slides: Path, tmp_path: Path) -> None:
    predictor = _Predictor()
    (tmp_path / "b.tiff").write_bytes((slides / "<a>.tiff").read_bytes())
    (slides / "c.tiff").symlink_to(tmp_path / "b.tiff")
    for name in ("../b.tiff", str(tmp_path / "b.tiff"), "c.tiff"):
        with pytest.raises(InputError, match="not below the folder"):
            reader(predictor, slides).choose(name, 0.5)
    assert predictor.calls == 0


def test_upload__what_is_no_slide_is_told(slides: Path) -> None:
    path = slides / "b.tiff"
    path.write_text("no slide")
    with pytest.raises(InputError, match=r"b\.tiff"):
        reader(_Predictor()).upload(str(path), 0.5)


def test_numbers_table__without_tissue_there_are_no_probabilities() -> None:
    assert "Probability" not in numbers_table(_Predictor(is_blank=True)(Path("a.tiff")))


def test_build__events_are_private_pictures_lossless_and_paths_cannot_be_typed(slides: Path) -> None:
    example = Example(name="tissue", path=slides / "<a>.tiff", origin="made")
    page = build(_Predictor(synthetic=True), [example], slides)
    assert {event.api_visibility for event in page.fns.values()} == {"private"}
    images = [block for block in page.blocks.values() if isinstance(block, gr.Image)]
    assert [(image.format, image.interactive) for image in images] == [("png", False)] * 2
    assert not [block for block in page.blocks.values() if isinstance(block, gr.Textbox)]
    lists = [block for block in page.blocks.values() if isinstance(block, gr.Dropdown)]
    assert [name for name, _ in lists[0].choices] == ["<a>.tiff"]
    assert any("only seen made images" in str(block.value) for block in page.blocks.values() if hasattr(block, "value"))
