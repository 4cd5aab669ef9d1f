"""Results that a model declines to give have a category of their own, in every file that is made of them."""

import csv
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ImageDraw

from pipelines.wsi.__main__ import main
from pipelines.wsi.weights.bundles import DECISION
from tests.pipelines.wsi.tiny import CLASSES, LITE0_DIM, SIDE_PX, make_bundle, picture, write_pyramid
from vision_core.evaluation.calibration import Calibration
from vision_core.evaluation.scope import fit_scope
from vision_core.images.reading import read_image
from vision_core.results import DECLINED, NO_TISSUE, OUTSIDE, UNDECIDED
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.overview import thumbnail

NAMES = {"normal": "normal tissue", "tumour": "altered nuclei"}


def doubting(threshold: float = 1.0) -> dict[str, Any]:
    """A calibration; at 1 every set holds both classes, at 0.5 the likelier one."""
    fitted = Calibration(temperature=1.0, coverage=0.9, threshold=threshold, num_cases=20)
    return {**fitted.to_record(), DECISION: 0.5}


def narrow() -> dict[str, Any]:
    """The scope of features that are unlike those of any slide."""
    draws = np.random.default_rng(0)
    features, held_out = draws.normal(50, 0.1, (2, 20, LITE0_DIM))
    return fit_scope(features, held_out).to_record()


CARDS: Mapping[str, dict[str, Any]] = {
    UNDECIDED: {"calibration": doubting()},
    OUTSIDE: {"calibration": doubting(), "scope": narrow()},
    "class": {"calibration": doubting(0.5), "class_titles": NAMES},
}


@pytest.fixture(scope="module", params=CARDS)
def declined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[str]]:
    """What a batch of one slide and a glass says, its folder, and the words drawn into pictures."""
    folder = tmp_path_factory.mktemp("declined")
    write_pyramid(folder / "in" / "a.tif", picture(3))
    write_pyramid(folder / "in" / "glass.tif", np.full((SIDE_PX, SIDE_PX, 3), 243, np.uint8))
    model = make_bundle(folder / "model", **CARDS[request.param])
    drawn: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def spy(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *rest: object, **more: object) -> None:
        drawn.append(text)
        draw(self, xy, text, *rest, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", spy)
        words = ["--checkpoint", str(model), "--input", str(folder / "in"), "--out", str(folder / "out")]
        assert main(["predict", *words, "results.top_tiles=2"]) == 0
    return request.param, folder / "out", drawn


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {Path(row["input"]).name: row for row in csv.DictReader(file)}


def test_predict__the_category_of_every_file_says_that_the_model_declines(
    declined: tuple[str, Path, list[str]],
) -> None:
    kind, out, drawn = declined
    row, record = rows(out / "results.csv")["a.tif"], json.loads((out / "outputs" / "a.json").read_text())
    category = kind if kind in DECLINED else CLASSES[int(record["probabilities"]["tumour"] >= 0.5)]
    with gzip.open(out / "outputs" / "a.tiles.geojson.gz") as file:
        tiles = json.load(file)
    with tifffile.TiffFile(out / "outputs" / "a.heatmap.tif") as file:
        overlay = json.loads(file.pages[0].aspage().description)
    assert {row["category"], record["category"], tiles["result"], overlay["result"]} == {category}
    headlines = [text for text in drawn if text.startswith("Result:")]
    shown = NAMES[category] if kind == "class" else category
    assert set(headlines) == {f"Result: {shown}", f"Result: {NO_TISSUE}"} and headlines.count(f"Result: {shown}") == 2
    assert (row["verdict"], record["verdict"]) == (shown, shown)
    assert float(row["p_normal"]) + float(row["p_tumour"]) == pytest.approx(1, abs=1e-5)  # stay beside it


def test_predict__tiles_stand_out_for_a_class_only_where_one_is_called(
    declined: tuple[str, Path, list[str]],
) -> None:
    kind, out, drawn = declined
    with gzip.open(out / "outputs" / "a.tiles.geojson.gz") as file:
        tiles = json.load(file)
    with tifffile.TiffFile(out / "outputs" / "a.heatmap.tif") as file:
        overlay = json.loads(file.pages[0].aspage().description)
    is_told = any("tile stands out" in text or "tiles stand out" in text for text in drawn)
    assert {is_told, "tiles" in tiles, "tiles" in overlay} == {kind not in DECLINED}
    assert "scale" in tiles and "scale" in overlay


def test_predict__the_notice_says_why(declined: tuple[str, Path, list[str]]) -> None:
    kind, out, _ = declined
    found = rows(out / "results.csv")
    told = {
        UNDECIDED: "The model does not commit itself: at 90 % coverage any",
        OUTSIDE: "Outside what the model knows:",
    }
    assert found["a.tif"]["notice"].startswith(told.get(kind, ""))
    assert kind in DECLINED or "commit" not in found["a.tif"]["notice"]
    assert found["glass.tif"]["category"] == NO_TISSUE
    assert found["glass.tif"]["notice"].startswith("No tissue was found on this slide.")


def test_predict__the_summary_says_it_in_words_with_a_picture(declined: tuple[str, Path, list[str]]) -> None:
    kind, out, _ = declined
    page = (out / "summary.html").read_text()
    assert f'<span class="declined">{NO_TISSUE}</span>' in page
    if kind in DECLINED:
        assert f'<span class="declined">{kind}</span>' in page and 'class="called"' not in page
    else:
        assert any(f'<span class="called">{title}</span>' in page for title in NAMES.values())
        assert '<span class="share"><span>altered nuclei</span>' in page
    assert 'src="outputs/a.jpg"' in page and (out / "outputs" / "a.jpg").stat().st_size < 30_000


def test_predict__glass_has_no_colour(declined: tuple[str, Path, list[str]]) -> None:
    _, out, _ = declined
    heatmap = read_image(out / "outputs" / "a.heatmap.png")
    with open_slide(out.parent / "in" / "a.tif") as slide:
        whole = thumbnail(slide, 1500)
    is_glass = whole.min(axis=2) > 232
    assert is_glass.mean() > 0.3
    np.testing.assert_array_equal(heatmap[: whole.shape[0], : whole.shape[1]][is_glass], whole[is_glass])


def test_predict__every_out_folder_says_what_its_files_are_for(declined: tuple[str, Path, list[str]]) -> None:
    _, out, _ = declined
    text = (out / "README.txt").read_text()
    assert text.startswith("Written by DomainSight. For research use. Not for diagnosis.\n")
    files = {path.relative_to(out) for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")}
    for path in files - {Path("README.txt")}:
        ending = path.name.removeprefix("a").removeprefix("glass")
        told = {"outputs": f"outputs/<name>{ending} ", "ledger": "ledger,"}.get(path.parent.name, path.name)
        assert told in text, path
    assert {path.parent.name for path in files} == {"", "outputs", "ledger"}
    assert max(map(len, text.splitlines())) <= 110


def test_predict__a_class_called_undecided_is_quoted(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", picture(3))
    model = make_bundle(tmp_path / "model", classes=("Undecided", "no tissue"))
    words = ["--checkpoint", str(model), "--input", str(tmp_path / "a.tif"), "--out", str(tmp_path / "out")]
    assert main(["predict", *words]) == 0
    assert rows(tmp_path / "out" / "results.csv")["a.tif"]["category"] in {"class 'Undecided'", "class 'no tissue'"}
