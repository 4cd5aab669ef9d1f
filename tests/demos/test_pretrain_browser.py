"""The demo page as a person meets it: an image in, what the policy hides and what the classifier says out."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from pydicom import dcmread
from pydicom.pixels.processing import apply_rescale, apply_windowing

from tests.demos.browsing import (
    LOOKS,
    ROOT,
    Scheme,
    barriers,
    check_layout,
    difference,
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
BUNDLE = ROOT / "demos" / "checkpoints" / "pretrain-demo" / "model"

_DRAWN = (
    "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.reduce((most, each) => Math.max(most, each), 0)"
)
_WINDOW = "figure => [figure.state.centre, figure.state.window, parseFloat(figure.dataset.window)]"


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    with served("demos.pretrain", temporary) as address:
        yield address


@pytest.fixture
def slice_path(tmp_path: Path) -> Path:
    """A real CT slice under a name without a suffix, as scanners write them."""
    return Path(shutil.copyfile(radiology_files()["ct_head"], tmp_path / "IM0001"))


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_first_example__picture_and_words_are_in_view_after_one_click(
    browser: Browser, address: str, size: tuple[int, int], scheme: Scheme
) -> None:
    with session(browser, address, size, scheme) as page:
        examples(page).first.click()
        expect(status(page)).to_contain_text("Called 'US, heart, near' as it is.")
        expect(status(page)).to_contain_text("gets it right")
        check_layout(page)
        keep(page, f"demo-pretrain-{size[0]}-{scheme}")


def test_keyboard__example_masks_and_opacity_without_a_mouse(page: Page) -> None:
    tab_to(page, "Brain, MR")
    page.keyboard.press("Enter")
    expect(status(page)).to_have_text(
        re.compile("^Called 'MR, brain t1, axial middle' as it is.*hides .* of the contrast")
    )
    expect(figure(page)).to_be_focused()
    mean, view = pixels(page, ".over"), pixels(page)
    assert mean.std() > 1
    expect_opacity(page, 0.5)
    page.keyboard.press("Space")
    expect_opacity(page, 0)
    page.keyboard.press("Space")
    page.get_by_role("radio", name="Sample 1").focus()
    page.keyboard.press("Space")
    expect(figure(page, "The mask of seed 0 over Brain, MR.")).to_be_visible()
    assert difference(pixels(page, ".over"), mean) > 1
    np.testing.assert_array_equal(pixels(page), view)
    tab_to(page, "Draw other masks")
    page.keyboard.press("Enter")
    expect(figure(page, "The mask of seed 3 over Brain, MR.")).to_be_visible()
    page.get_by_role("radio", name="All, side by side").check()
    expect(figure(page, "Every mask on Brain, MR")).to_be_visible()
    tab_to(page, "Scores and details")
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="seed 5")).to_be_visible()
    walk_every_control(page)


def test_upload__dicom_by_mouse_downloads_and_clear(page: Page, slice_path: Path, temporary: Path) -> None:
    expect(page.get_by_role("note").filter(has_text="same-subject: an illustration")).to_be_visible()
    before = _cases(temporary)
    page.get_by_test_id("file-upload").first.set_input_files(slice_path)
    expect(status(page)).to_contain_text("IM0001.")
    np.testing.assert_array_equal(pixels(page), read_dicom_image(slice_path))
    drawn = figure(page).locator("canvas.grey").evaluate(_DRAWN)
    assert drawn == 0  # codes of values, which are no picture, lie over none
    record = json.loads(download(page, ".json"))
    rows = list(csv.DictReader(io.StringIO(download(page, ".csv").decode())))
    assert record["notice"] == RESEARCH_NOTICE == rows[0]["notice"]
    assert "same-subject" in record["remarks"][0]
    assert [row["under"] for row in rows] == ["clean image", "mean mask", "seed 0", "seed 1", "seed 2"]
    strip = np.asarray(Image.open(io.BytesIO(download(page, ".png"))))[-60:]
    assert strip.max() == 255 and strip.min() < 100  # words on white
    assert len(download(page, ".zip")) > 1000
    keep(page, "demo-pretrain-dicom")
    assert _cases(temporary) > before
    page.get_by_role("button", name="Clear").first.click()
    expect(status(page)).to_contain_text("Give an image")
    assert _cases(temporary) == before


@pytest.mark.slow
def test_window__two_presets_show_the_greys_of_pydicom(page: Page, slice_path: Path) -> None:
    page.get_by_test_id("file-upload").first.set_input_files(slice_path)
    expect(status(page)).to_contain_text("IM0001.")
    header = dcmread(slice_path)
    values = apply_rescale(header.pixel_array, header).astype(float)
    for name, centre, width in (("Brain", 40, 80), ("Bone", 300, 1500)):
        page.get_by_label("Window", exact=True).select_option(label=name)
        header.WindowCenter, header.WindowWidth = centre, width
        shown = apply_windowing(values.copy(), header)
        expected = (shown - shown.min()) / (shown.max() - shown.min()) * 255
        canvas = figure(page).locator("canvas.grey")
        expect(canvas).to_have_attribute("data-drawn", f"{centre} {width}")
        grey = canvas.evaluate(
            "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, at) => at % 4 === 0)"
        )
        assert np.abs(np.array(grey).reshape(expected.shape) - expected).max() <= 1
    figure(page).focus()
    page.keyboard.press("w")
    page.keyboard.press("ArrowUp")
    expect(figure(page).locator(".windowed")).not_to_have_text("centre 300, width 1500")
    before = figure(page).evaluate(_WINDOW)
    box = figure(page).locator(".view").bounding_box()
    assert box
    page.mouse.move(at := box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(at + 30, box["y"] + box["height"] / 2 - 60)
    page.mouse.up()
    centre, width, opened = figure(page).evaluate(_WINDOW)
    assert (centre - before[0], width - before[1]) == pytest.approx((-60 * opened / 300, 30 * opened / 300), abs=0.01)


def test_upload__what_is_no_image_is_told_and_the_page_lives_on(page: Page, tmp_path: Path, temporary: Path) -> None:
    fake = tmp_path / "fake.dcm"
    fake.write_text("<html>login</html>" * 20)
    before = _cases(temporary)
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    alert = page.locator(".complaint")
    expect(alert).to_contain_text("'fake.dcm' is not a DICOM file")
    assert _cases(temporary) == before
    example(page, "Retina").click()
    expect(status(page)).to_contain_text("calls one all the same")
    expect(alert).to_have_count(0)


@pytest.mark.slow
def test_sessions__two_at_once_see_their_own_image(page: Page, browser: Browser, address: str) -> None:
    with session(browser, address) as other:
        example(page, "Skin").click()
        example(other, "Heart").click()
        expect(figure(page, "over Skin, histology")).to_be_visible()
        expect(figure(other, "over Heart, ultrasound")).to_be_visible()


def test_page__nothing_keeps_a_person_out(page: Page) -> None:
    example(page, "Skin").click()
    expect(figure(page, "over Skin, histology")).to_be_visible()
    assert barriers(page) == []


def _cases(temporary: Path) -> set[str]:
    """Files of cases and of uploads in the folder of the server."""
    found = [path for path in temporary.glob("domainsight-app-*/*/**/*") if path.is_file() and "demo" not in path.parts]
    return {str(path) for path in found if path.suffix not in {".css", ".js"}}
