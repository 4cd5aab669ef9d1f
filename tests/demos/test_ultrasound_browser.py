"""The demo page as a person meets it: a cine in, which frames show the organ and what the gate removes out."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.bad_inputs.dicoms import still
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
from vision_core.assets import radiology_files
from vision_core.dicom.reader import read_dicom_image
from vision_core.results import RESEARCH_NOTICE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    with served("demos.ultrasound", temporary) as address:
        yield address


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_first_example__opens_at_a_frame_that_the_gate_keeps_clean(
    browser: Browser, address: str, size: tuple[int, int], scheme: Scheme
) -> None:
    with session(browser, address, size, scheme) as page:
        examples(page).first.click()
        expect(status(page)).to_have_text(re.compile(r"^Phantom organ present on \d+ of 24 frames\."))
        expect(status(page)).to_contain_text("Without the gate, the segmenter would mark")
        expect(_words(page)).to_have_text(
            re.compile(r"^Frame \d+ of 24\. Phantom organ not present\. The segmenter alone")
        )
        check_layout(page)
        keep(page, f"demo-ultrasound-{size[0]}-{scheme}")


def test_keyboard__frames_views_and_opacity_without_a_mouse(page: Page) -> None:
    tab_to(page, "Gate at work")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("first subject of the list test")
    expect(figure(page)).to_be_focused()
    at, before = _number(page), pixels(page)
    page.keyboard.press("ArrowRight")
    assert _number(page) == at + 1
    assert not np.array_equal(pixels(page), before)
    page.keyboard.press("ArrowLeft")
    assert _number(page) == at
    np.testing.assert_array_equal(pixels(page), before)
    expect_opacity(page, 1)
    page.keyboard.press("Space")
    expect_opacity(page, 0)
    page.keyboard.press("Space")
    figure(page).locator(".frames").focus()
    page.keyboard.press("Home")
    assert _number(page) == 1
    expect(figure(page).locator(".frames")).to_have_attribute("aria-valuetext", re.compile(r"^Frame 1 of 24\. "))
    page.get_by_role("radio", name="Segmenter alone").check()
    expect(figure(page)).to_be_visible()
    assert _number(page) == 1  # another view stays at the frame
    assert barriers(page) == []
    walk_every_control(page)


def test_upload__real_cine_is_told_as_unknown_and_has_no_mask(page: Page, temporary: Path) -> None:
    expect(page.get_by_role("note").filter(has_text="only seen made images")).to_be_visible()
    before = _cases(temporary)
    path = radiology_files()["us_heart"]
    page.get_by_test_id("file-upload").first.set_input_files(path)
    expect(status(page)).to_contain_text("Outside what the model knows; not called, since the model has only seen made")
    assert "mm" not in status(page).inner_text()
    assert figure(page).locator(".over path").count() == 0
    place = _number(page) - 1
    shown = pixels(page).astype(int)
    expected = read_dicom_image(path, place) @ [0.299, 0.587, 0.114]
    assert np.abs(shown[..., 0] - expected).max() <= 1
    page.get_by_role("button", name="Downloads").click()
    expect(page.locator('a[download$=".json"]')).not_to_be_visible()  # text may be burned in: it is asked first
    page.get_by_text("Yes, show the downloads").click()
    record = json.loads(download(page, ".json"))
    assert record["notice"] == RESEARCH_NOTICE and all(each["outside"] for each in record["frames"])
    assert page.locator('a[download$=".seg.dcm"]').count() == 0
    keep(page, "demo-ultrasound-real")
    assert _cases(temporary) > before
    page.get_by_role("button", name="Clear").first.click()
    expect(status(page)).to_contain_text("Give a cine")
    assert _cases(temporary) == before


def test_downloads__table_of_frames_and_segmentation(page: Page) -> None:
    examples(page).first.click()
    expect(status(page)).to_contain_text("of 24 frames")
    rows = list(csv.DictReader(io.StringIO(download(page, ".frames.csv").decode())))
    found = re.search(r"present on (\d+) of 24", status(page).inner_text())
    assert found and sum(row["present"] == "1" for row in rows) == int(found[1])
    assert all(float(row["area_mm2"]) > 0 for row in rows if row["present"] == "1")
    assert download(page, ".seg.dcm")[128:132] == b"DICM"
    assert len(download(page, ".zip")) > 1000


def test_still__one_frame_has_words_and_no_slider(page: Page) -> None:
    example(page, "Organ").click()
    expect(status(page)).to_have_text(re.compile(r"^Phantom organ present\..*Area: \d+ mm²"))
    expect(figure(page).locator(".frames")).to_have_count(0)
    expect(figure(page).locator(".over path").first).to_be_visible()


@pytest.mark.slow
def test_window__of_frames_of_more_than_8_bits_follows_the_frame(page: Page, tmp_path: Path) -> None:
    levels = np.arange(3, dtype=np.uint16)[:, None, None] * 1000 + np.arange(64, dtype=np.uint16)[:, None]
    frames = np.broadcast_to(levels, (3, 64, 80)).copy()
    path = still(tmp_path / "deep.dcm", frames, NumberOfFrames=3, Modality="US", BitsStored=12, HighBit=11)
    page.get_by_test_id("file-upload").first.set_input_files(path)
    expect(status(page)).to_contain_text("not called")
    page.get_by_label("Window", exact=True).select_option(label="Range of 16 bits")
    canvas = figure(page).locator("canvas.grey")
    figure(page).focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    for number in range(3):
        expect(_words(page)).to_have_text(re.compile(f"^Frame {number + 1} of 3"))
        expect(canvas).to_have_attribute("data-drawn", "32768 65536")
        shown = canvas.evaluate("c => c.getContext('2d').getImageData(0, 0, 1, 1).data[0]")
        assert abs(shown - frames[number, 0, 0] / 4095 * 255) <= 1
        page.keyboard.press("ArrowRight")


@pytest.mark.slow
def test_marks__a_click_goes_to_its_frame(page: Page) -> None:
    examples(page).first.click()
    expect(status(page)).to_contain_text("of 24 frames")
    box = figure(page).locator(".marks").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * 4.5 / 24, box["y"] + box["height"] / 2)
    assert _number(page) == 5


@pytest.mark.slow
def test_sessions__two_at_once_see_their_own_cine(page: Page, browser: Browser, address: str) -> None:
    with session(browser, address) as other:
        examples(page).first.click()
        example(other, "Real heart").click()
        expect(status(other)).to_contain_text("not called")
        expect(status(page)).to_contain_text("Phantom organ present")


def _words(page: Page) -> Locator:
    return figure(page).locator(".frame-words")


def _number(page: Page) -> int:
    found = re.match(r"Frame (\d+) of", _words(page).inner_text())
    assert found
    return int(found[1])


def _cases(temporary: Path) -> set[str]:
    """Files of cases and of uploads in the folder of the server."""
    found = [path for path in temporary.glob("domainsight-app-*/*/**/*") if path.is_file() and "demo" not in path.parts]
    return {str(path) for path in found if path.suffix not in {".css", ".js"}}
