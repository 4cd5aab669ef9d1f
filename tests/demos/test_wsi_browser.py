"""The demo page as a person meets it: a slide in, where the model looked and the result in words out."""

import gzip
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.demos.browsing import barriers, difference, download, keep, pixels, served, session, status, tab_to
from vision_core.assets import aperio_slide
from vision_core.results import RESEARCH_NOTICE
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.tissue.overview import thumbnail

pytestmark = pytest.mark.browser
SUSPICIONS = re.compile("alter|tumour|suspicious|coverage|mm2", re.IGNORECASE)


@pytest.fixture(scope="module")
def slides_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slides")
    shutil.copyfile(aperio_slide(), root / "=biopsy.svs")
    return root


@pytest.fixture(scope="module")
def address(temporary: Path, slides_root: Path) -> Iterator[str]:
    with served("demos.wsi", temporary, "--slides-root", str(slides_root)) as address:
        yield address


def test_keyboard__example_overlay_and_help_without_a_mouse(page: Page) -> None:
    tab_to(page, "Try: made slide, altered")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("made slide, altered nuclei: synthetic_alteration.")
    heatmap = page.get_by_role("img", name="Heatmap over made slide, altered nuclei. Result: synthetic_alteration.")
    half = _heatmap(page, heatmap, 50)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    expect(_opacity(page)).to_have_value("0")
    bare = _heatmap(page, heatmap, 0)
    page.keyboard.press("Space")
    expect(_opacity(page)).to_have_value("0.5")
    page.keyboard.press("+")
    expect(_opacity(page)).to_have_value("0.6")
    assert difference(_heatmap(page, heatmap, 60), bare) > difference(half, bare) > 1
    for _ in range(2):
        page.keyboard.press("-")
    expect(_opacity(page)).to_have_value("0.4")
    page.keyboard.press("?")
    expect(page.get_by_text("overlay stronger or fainter")).to_be_visible()
    page.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Space")
    expect(_opacity(page)).to_have_value("0.4")
    tab_to(page, "Numbers")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name="Probability of normal")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("note").filter(has_text=RESEARCH_NOTICE)).to_be_in_viewport()
    keep(page, "demo-wsi-example")


def test_upload__real_slide_by_mouse_is_shown_and_not_called(page: Page, temporary: Path) -> None:
    of_others = _cases(temporary)
    expect(page.get_by_role("note").filter(has_text="only seen made images")).to_be_visible()
    page.get_by_test_id("file-upload").first.set_input_files(aperio_slide())
    expect(status(page)).to_contain_text("cmu_small_region.svs: outside what the model knows; not called")
    assert not SUSPICIONS.search(status(page).inner_text())
    heatmap = page.get_by_role("img", name="Heatmap over cmu_small_region.svs")
    page.get_by_role("button", name="Overlay on or off").click()
    with open_slide(aperio_slide()) as slide:
        whole = thumbnail(slide, 1024)
    np.testing.assert_array_equal(_heatmap(page, heatmap, 0)[: whole.shape[0], : whole.shape[1]], whole)
    _check_downloads(page)
    keep(page, "demo-wsi-real")
    assert _cases(temporary) > of_others
    page.get_by_role("button", name="Clear").first.click()
    expect(status(page)).to_contain_text("Give a slide")
    assert _cases(temporary) == of_others


def test_sessions__two_at_once_see_their_own_slide(page: Page, browser: Browser, address: str) -> None:
    with session(browser, address) as other:
        page.get_by_role("button", name="Try: made slide, normal").click()
        other.get_by_role("button", name="Try: made slide, unknown").click()
        expect(status(other)).to_contain_text("made slide, unknown: outside what the model knows")
        expect(status(page)).to_contain_text("made slide, normal: normal.")
        expect(page.get_by_role("img", name="unknown")).to_have_count(0)
        expect(other.get_by_role("img", name="made slide, normal")).to_have_count(0)


def test_choose__slide_of_the_folder_by_name_after_a_file_that_is_none(page: Page, tmp_path: Path) -> None:
    fake = tmp_path / "fake.svs"
    fake.write_text("<html>login</html>")
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("'fake.svs'")
    assert str(tmp_path) not in alert.inner_text()
    page.get_by_label("A slide on this computer").click()
    page.get_by_role("option", name="=biopsy.svs").click()
    expect(status(page)).to_contain_text("=biopsy.svs: outside what the model knows; not called")
    expect(alert).to_have_count(0)
    assert "\n'=biopsy.svs," in download(page, ".csv").decode()
    page.get_by_role("button", name="Try: made slide, normal").click()
    expect(status(page)).to_contain_text("made slide, normal: normal.")
    page.get_by_label("A slide on this computer").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("=biopsy.svs: outside what the model knows; not called")
    link = page.locator('a[download$=".csv"]').get_attribute("href")
    page.get_by_label("A slide on this computer").focus()
    page.get_by_role("button", name="Stronger").click()  # leaves the list, which must not read the slide again
    expect(_opacity(page)).to_have_value("0.6")
    page.wait_for_timeout(1_000)
    expect(status(page)).to_contain_text("=biopsy.svs")
    assert page.locator('a[download$=".csv"]').get_attribute("href") == link


def test_page__nothing_keeps_a_person_out(page: Page) -> None:
    page.get_by_role("button", name="Try: made slide, normal").click()
    expect(status(page)).to_contain_text("made slide, normal: normal.")
    assert barriers(page) == []


def _check_downloads(page: Page) -> None:
    record = json.loads(download(page, ".json"))
    assert record["category"].endswith("not called, since the model has only seen made images")
    table = download(page, ".csv").decode()
    tiles = json.loads(gzip.decompress(download(page, ".tiles.geojson.gz")))
    tissue = json.loads(download(page, ".tissue.geojson"))
    assert {record["notice"], tiles["notice"], tissue["notice"]} == {RESEARCH_NOTICE} and RESEARCH_NOTICE in table
    assert not SUSPICIONS.search(json.dumps(record) + table)
    corners = np.array([each["geometry"]["coordinates"][0] for each in tiles["features"]])
    assert len(corners) == record["tiles"] and (corners[:, 0] == corners[:, -1]).all()
    assert corners.min() >= 0 and (corners.max(axis=(0, 1)) <= [record["width"], record["height"]]).all()
    strip = np.asarray(Image.open(io.BytesIO(download(page, ".heatmap.png"))))[-60:]
    assert strip.max() == 255 and strip.min() < 100  # words on white


def _opacity(page: Page) -> Locator:
    return page.get_by_role("slider", name="Opacity of the heatmap")


def _heatmap(page: Page, picture: Locator, percent: int) -> NDArray[np.uint8]:
    return pixels(page, picture, f"heatmap-{percent:03d}")


def _cases(temporary: Path) -> set[Path]:
    """Files of cases and of uploads in the folder of the server; Gradio leaves an empty one of each upload."""
    found = [path for path in temporary.rglob("*") if path.is_file() and "demo" not in path.parts]
    return {path for path in found if path.stat().st_size}
