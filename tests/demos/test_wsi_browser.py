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
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.demos.browsing import (
    LOOKS,
    Scheme,
    barriers,
    check_layout,
    download,
    example,
    examples,
    expect_opacity,
    figure,
    keep,
    pixels,
    served,
    session,
    status,
    tab_to,
    walk_every_control,
)
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


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_first_example__picture_and_words_are_in_view_after_one_click(
    browser: Browser, address: str, size: tuple[int, int], scheme: Scheme
) -> None:
    with session(browser, address, size, scheme) as page:
        examples(page).first.click()
        expect(status(page)).to_contain_text("Altered nuclei.")
        check_layout(page)
        keep(page, f"demo-wsi-{size[0]}-{scheme}")


def test_keyboard__every_control_without_a_mouse(page: Page) -> None:
    tab_to(page, "Altered nuclei")
    page.keyboard.press("Enter")
    expect(status(page)).to_have_text(re.compile("^Altered nuclei..*tiles? stands? out for 'altered nuclei'"))
    expect(figure(page, "Heatmap over Altered nuclei. Result: altered nuclei.")).to_be_focused()
    expect_opacity(page, 0.5)
    page.keyboard.press("Space")
    expect(_slider(page)).to_have_value("0")
    expect_opacity(page, 0)
    page.keyboard.press("Space")
    page.keyboard.press("+")
    expect(_slider(page)).to_have_value("0.6")
    for _ in range(2):
        page.keyboard.press("-")
    expect(_slider(page)).to_have_value("0.4")
    page.keyboard.press("?")
    expect(page.get_by_text("overlay stronger or fainter")).to_be_visible()
    page.get_by_label("Use these keys").uncheck()
    figure(page).focus()
    page.keyboard.press("Space")
    expect(_slider(page)).to_have_value("0.4")
    page.get_by_label("Use these keys").check()
    figure(page).focus()
    scale = figure(page).locator(".scale")
    expect(scale).to_have_text(re.compile("µm · about [0-9.]+×"))
    before = scale.inner_text()
    for _ in range(3):
        page.keyboard.press("z")
    assert scale.inner_text() != before
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowRight")
    expect(figure(page).locator(".measured")).to_have_text(re.compile("^[0-9.]+ µm$"))
    page.keyboard.press("r")
    tab_to(page, "Details")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name="Probability of normal")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("note").filter(has_text=RESEARCH_NOTICE)).to_be_in_viewport()
    walk_every_control(page)


@pytest.mark.slow
def test_full_screen__the_picture_fills_it_and_keeps_the_notice(page: Page) -> None:
    example(page, "Normal").click()
    expect(status(page)).to_contain_text("Normal.")
    page.get_by_role("button", name="Full screen (F)").click()
    expect(figure(page)).to_have_js_property("offsetHeight", page.evaluate("innerHeight"))
    expect(figure(page).locator("figcaption")).to_contain_text(RESEARCH_NOTICE)
    expect(figure(page).locator("figcaption")).to_be_in_viewport()


def test_wheel_and_drag__zoom_at_the_pointer_and_move(page: Page) -> None:
    example(page, "Normal").click()
    expect(status(page)).to_contain_text("Normal.")
    view, paper = (figure(page).locator(part).bounding_box() for part in (".view", ".paper"))
    assert view and paper
    at = (paper["x"] + paper["width"] / 4, paper["y"] + paper["height"] / 4)
    page.mouse.move(*at)
    page.mouse.wheel(0, -400)
    after = figure(page).locator(".paper").bounding_box()
    assert after and after["width"] > paper["width"] * 1.4
    where = [(at[0] - after["x"]) / after["width"], (at[1] - after["y"]) / after["height"]]
    assert where == pytest.approx([0.25, 0.25], abs=0.02)  # what lay under the pointer still does
    page.mouse.down()
    page.mouse.move(at[0] - 30, at[1] - 20)
    page.mouse.up()
    moved = figure(page).locator(".paper").bounding_box()
    assert moved and (moved["x"] - after["x"], moved["y"] - after["y"]) == pytest.approx((-30, -20), abs=1)
    page.get_by_role("button", name="Measure").click()
    page.mouse.click(*at)
    page.mouse.click(at[0] + 60, at[1] + 80)
    um = 100 * figure(page).evaluate("figure => figure.dataset.um / figure.state.scale")
    measured = figure(page).locator(".measured").inner_text()
    assert float(measured.split()[0]) * {"µm": 1, "mm": 1000}[measured.split()[1]] == pytest.approx(um, rel=0.02)
    page.get_by_role("radio", name="Tiles looked at most").check()
    expect(figure(page, "Tiles that the model looked at most on Normal")).to_be_visible()


def test_upload__real_slide_by_mouse_is_shown_and_not_called(page: Page, temporary: Path) -> None:
    of_others = _cases(temporary)
    expect(page.get_by_role("note").filter(has_text="only seen made images")).to_be_visible()
    page.get_by_test_id("file-upload").first.set_input_files(aperio_slide())
    expect(status(page)).to_contain_text("Outside what the model knows; not called")
    assert not SUSPICIONS.search(status(page).inner_text())
    expect(figure(page, "Heatmap over cmu_small_region.svs")).to_be_visible()
    with open_slide(aperio_slide()) as slide:
        np.testing.assert_array_equal(pixels(page), thumbnail(slide, 2048))
    _check_downloads(page)
    keep(page, "demo-wsi-real")
    assert _cases(temporary) > of_others
    page.get_by_role("button", name="Clear").first.click()
    expect(status(page)).to_contain_text("Give a slide")
    assert _cases(temporary) == of_others


@pytest.mark.slow
def test_sessions__two_at_once_see_their_own_slide(page: Page, browser: Browser, address: str) -> None:
    with session(browser, address) as other:
        example(page, "Normal").click()
        example(other, "Unlike those").click()
        expect(status(other)).to_contain_text("Outside what the model knows")
        expect(status(page)).to_contain_text("Normal.")
        expect(figure(page, "Unlike those")).to_have_count(0)
        expect(figure(other, "over Normal")).to_have_count(0)


@pytest.mark.slow
def test_upload__too_large_a_file_is_refused_in_place(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large\u202e.svs"
    with large.open("wb") as file:
        file.truncate(201 * 2**20)
    page.get_by_test_id("file-upload").first.set_input_files(large)
    expect(page.locator(".complaint")).to_have_text(
        re.compile("'large\ufffd.svs' has 211 MB: at most 209 MB are taken")
    )
    expect(page.locator(".toast-body")).to_have_count(0)
    example(page, "Normal").click()
    expect(page.locator(".complaint")).to_have_count(0)


@pytest.mark.slow
def test_choose__slide_of_the_folder_by_name_after_a_file_that_is_none(page: Page, tmp_path: Path) -> None:
    fake = tmp_path / "fake.svs"
    fake.write_text("<html>login</html>")
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    alert = page.locator(".complaint")
    expect(alert).to_contain_text("'fake.svs'")
    assert str(tmp_path) not in alert.inner_text()
    page.get_by_label("A slide on this computer").click()
    page.get_by_role("option", name="=biopsy.svs").click()
    expect(status(page)).to_contain_text("Outside what the model knows; not called")
    expect(figure(page, "Heatmap over =biopsy.svs")).to_be_visible()
    expect(alert).to_have_count(0)
    assert "\n'=biopsy.svs," in download(page, ".csv").decode()
    example(page, "Normal").click()
    expect(status(page)).to_contain_text("Normal.")
    page.get_by_label("A slide on this computer").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("Outside what the model knows; not called")
    link = page.locator('a[download$=".csv"]').get_attribute("href")
    page.get_by_label("A slide on this computer").focus()
    page.get_by_role("button", name="Stronger").click()  # leaves the list, which must not read the slide again
    expect(_slider(page)).to_have_value("0.6")
    page.wait_for_timeout(1_000)
    assert page.locator('a[download$=".csv"]').get_attribute("href") == link


def test_page__nothing_keeps_a_person_out(page: Page) -> None:
    example(page, "Normal").click()
    expect(status(page)).to_contain_text("Normal.")
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


def _slider(page: Page) -> Locator:
    return page.get_by_role("slider", name="Opacity of the heatmap")


def _cases(temporary: Path) -> set[Path]:
    """Files of cases and of uploads in the folder of the server; Gradio leaves an empty one of each upload."""
    found = [path for path in temporary.rglob("*") if path.is_file() and "demo" not in path.parts]
    return {path for path in found if path.stat().st_size}
