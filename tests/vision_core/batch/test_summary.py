"""The page of a batch, as text and in a browser."""

import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import CHROMIUM
from vision_core.batch.ledger import Output, Record
from vision_core.batch.tables import write_tables
from vision_core.csv_tables import Cell
from vision_core.images.drawing import write_thumbnail
from vision_core.results import OUTSIDE, RESEARCH_NOTICE, UNDECIDED

CATEGORIES = ("tumour", "normal", UNDECIDED, OUTSIDE)


def slide(number: int, **changes: Cell) -> Record:
    """A slide with as many columns as one has."""
    share = (37 * number % 101) / 100
    values: dict[str, Cell] = {
        "category": CATEGORIES[number % 4],
        "verdict": "altered nuclei" if number % 4 == 0 else CATEGORIES[number % 4],
        "notice": "The power of the objective is not stated; 20x follows from 0.5 microns a pixel.",
        "p_normal": 1 - share,
        "p_tumour": share,
        "tiles": 10 * number,
        **dict.fromkeys(("mpp", "area_mm2", "tissue_share", "pen_share", "blur_share", "threshold"), 0.25),
        **dict.fromkeys(("possible_normal", "possible_tumour", "abstains", "outside"), 1.0),
        "model": "wsi/mhim_v1/a987a456828a",
    }
    name = f"slide-{number:04d}"
    made = tuple(
        Output(file=f"outputs/{name}{ending}", size=1, sha256="0")
        for ending in (
            ".json",
            ".heatmap.png",
            ".jpg",
            ".tiles.geojson.gz",
            ".tissue.geojson",
            ".heatmap.tif",
            ".top.png",
        )
    )
    return Record(
        input=f"/data/{name}.svs",
        name=name,
        status="done",
        outputs=made,
        values=values | changes,
        seconds=1.0,
        version="1",
        fingerprint="f",
    )


def batch(out: Path, count: int) -> Path:
    write_tables(out, [slide(number) for number in range(count)], count, titles={"tumour": "altered nuclei"})
    (out / "outputs").mkdir(exist_ok=True)
    write_thumbnail(out / "outputs" / "slide-0000.jpg", np.full((300, 200, 3), 99, np.uint8))
    for number in range(1, count):
        shutil.copy(out / "outputs" / "slide-0000.jpg", out / "outputs" / f"slide-{number:04d}.jpg")
    return out / "summary.html"


def test_write_summary__words_first_and_numbers_behind(tmp_path: Path) -> None:
    page = batch(tmp_path, 4).read_text()
    assert RESEARCH_NOTICE in page and "http" not in page
    assert "4 of 4 inputs done, 0 failed. 1 tumour; 1 normal; 1 undecided; 1 outside what the model knows." in page
    assert page.count('<th role="columnheader"') == 5  # not a column for each number
    assert '<span class="called">altered nuclei</span>' in page and '<span class="declined">undecided</span>' in page
    assert '<a href="outputs/slide-0001.heatmap.png"><img loading="lazy"' in page
    assert '<a href="outputs/slide-0001.tiles.geojson.gz">tiles.geojson.gz</a>' in page


def test_write_summary__markup_in_names_and_values_stays_text(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>"
    record = slide(0, category=bad, verdict=bad, notice=bad, **{f"p_{bad}": 0.5}).model_copy(
        update={"input": f"/d/{bad}"}
    )
    write_tables(tmp_path, [record], 1, [bad])
    page = (tmp_path / "summary.html").read_text()
    assert "<script>alert" not in page and page.count("</script>") == 1


def test_write_summary__without_categories_or_pictures(tmp_path: Path) -> None:
    plain = slide(1).model_copy(update={"values": {"verdict": "2 Tree", "p_x (score > 0.5)": 2}, "outputs": ()})
    write_tables(tmp_path, [plain], 1)
    page = (tmp_path / "summary.html").read_text()
    assert (
        "2 Tree" in page
        and 'id="category"' not in page
        and "<img" not in page
        and 'class="share"' not in page
        and "p x (score" in page
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield browser
        browser.close()


def names(page: Page) -> list[str]:
    return [each.strip() for each in page.locator("#rows tr:not([hidden]) .name").all_text_contents()]


@pytest.mark.browser
def test_page__is_sorted_and_searched_without_a_network(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(batch(tmp_path, 12).as_uri())
    assert names(page) == [f"slide-{number:04d}.svs" for number in range(12)]
    page.get_by_label("Sort by").select_option("p_tumour")
    shares = [(37 * int(name[6:10]) % 101) for name in names(page)]
    assert shares == sorted(shares, reverse=True)
    page.get_by_role("button", name="Turn round").click()
    assert names(page)[0] == "slide-0000.svs"
    page.get_by_label("Show").select_option("undecided")
    assert sorted(names(page)) == [f"slide-{number:04d}.svs" for number in (2, 6, 10)]
    page.get_by_label("Search").fill("undecided 0006")
    assert names(page) == ["slide-0006.svs"]
    assert page.locator("#count").inner_text() == "1 of 12 shown"
    assert page.evaluate("document.querySelector('#rows tr:not([hidden]) img').naturalWidth") == 160
    assert not faults
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 800])
def test_page__can_be_read_at_any_width(browser: Browser, tmp_path: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(batch(tmp_path, 5).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in (".name", ".called", ".words", ".share span", ".declined"):  # no word is broken
        lines = page.evaluate(
            """part => [...document.querySelectorAll(`#rows ${part}`)].map(each => {
                const range = document.createRange(), words = each.textContent.trim();
                range.selectNodeContents(each);
                return words.split(/\\s+/).length >= new Set([...range.getClientRects()].map(at => at.top)).size;
            })""",
            part,
        )
        assert lines and all(lines), part
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
    page.close()


@pytest.mark.browser
def test_page__a_thousand_slides_come_at_once_and_their_pictures_when_looked_at(
    browser: Browser, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    path = batch(tmp_path, 1000)
    assert path.stat().st_size < 3e6
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    started = time.monotonic()
    page.goto(path.as_uri(), wait_until="load")
    page.get_by_label("Show").select_option("undecided")
    assert page.locator("#count").inner_text() == "250 of 1000 shown"
    assert time.monotonic() - started < 30
    assert sum(url.endswith(".jpg") for url in seen) < 200
    assert all(url.startswith("file:") for url in seen)
    page.close()
