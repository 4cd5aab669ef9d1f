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
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from pipelines.pretrain.data.preprocessing import centre_view
from tests.demos.browsing import ROOT, barriers, difference, download, keep, pixels, served, session, status, tab_to
from vision_core.assets import radiology_files
from vision_core.bundles.bundle import read_card
from vision_core.dicom.reader import read_dicom_image
from vision_core.results import RESEARCH_NOTICE

pytestmark = pytest.mark.browser
BUNDLE = ROOT / "demos" / "checkpoints" / "pretrain-demo" / "model"


@pytest.fixture(scope="module")
def address(temporary: Path) -> Iterator[str]:
    with served("demos.pretrain", temporary) as address:
        yield address


@pytest.fixture
def slice_path(tmp_path: Path) -> Path:
    """A real CT slice under a name without a suffix, as scanners write them."""
    return Path(shutil.copyfile(radiology_files()["ct_head"], tmp_path / "IM0001"))


def test_keyboard__example_masks_and_opacity_without_a_mouse(page: Page) -> None:
    tab_to(page, "Try: MR, brain")
    page.keyboard.press("Enter")
    expect(status(page)).to_have_text(re.compile("^MR, brain: As it is, called .* hides .* of the contrast"))
    mean = _masked(page, "overlay-0-050")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    bare = _masked(page, "overlay-0-000")
    assert difference(mean, bare) > 1
    page.keyboard.press("Space")
    expect(page.get_by_role("columnheader", name="seed 2")).to_be_visible()
    tab_to(page, "Draw other masks")
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="seed 5")).to_be_visible()
    np.testing.assert_array_equal(_masked(page, "seed-3/overlay-0-050"), mean)  # the mean has no seed
    tab_to(page, "radio", backwards=True)
    page.keyboard.press("Space")  # the last of them
    assert difference(_masked(page, "seed-3/overlay-3-050"), mean) > 1
    expect(page.get_by_role("img", name="The mask of seed 5 over MR, brain.")).to_be_visible()
    keep(page, "demo-pretrain-example")


def test_upload__dicom_by_mouse_downloads_and_clear(page: Page, slice_path: Path, temporary: Path) -> None:
    expect(page.get_by_role("note").filter(has_text="same-subject: an illustration")).to_be_visible()
    before = _cases(temporary)
    page.get_by_test_id("file-upload").first.set_input_files(slice_path)
    expect(status(page)).to_contain_text("IM0001: As it is, called")
    page.get_by_role("button", name="Overlay on or off").click()
    rules = read_card(BUNDLE).preprocessing
    view = centre_view(read_dicom_image(slice_path), rules["resize_px"], rules["input_px"])
    times = round(512 / rules["input_px"])
    shown = _masked(page, "overlay-0-000")
    np.testing.assert_array_equal(shown[:512:times, :512:times], view)
    record = json.loads(download(page, ".json"))
    rows = list(csv.DictReader(io.StringIO(download(page, ".csv").decode())))
    assert record["notice"] == RESEARCH_NOTICE == rows[0]["notice"]
    assert "same-subject" in record["remarks"][0]
    assert [row["under"] for row in rows] == ["clean image", "mean mask", "seed 0", "seed 1", "seed 2"]
    strip = np.asarray(Image.open(io.BytesIO(download(page, ".masks.png"))))[-60:]
    assert strip.max() == 255 and strip.min() < 100  # words on white
    keep(page, "demo-pretrain-dicom")
    assert _cases(temporary) > before
    page.get_by_role("button", name="Clear").first.click()
    expect(status(page)).to_contain_text("Give an image")
    assert _cases(temporary) == before


def test_upload__what_is_no_image_is_told_and_the_page_lives_on(page: Page, tmp_path: Path, temporary: Path) -> None:
    fake = tmp_path / "fake.dcm"
    fake.write_text("<html>login</html>" * 20)
    before = _cases(temporary)
    page.get_by_test_id("file-upload").first.set_input_files(fake)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("'fake.dcm' is not a DICOM file")
    assert _cases(temporary) == before
    page.get_by_role("button", name="Try: retina").click()
    expect(status(page)).to_contain_text("retina, of no class that it knows: As it is")
    expect(alert).to_have_count(0)


def test_sessions__two_at_once_see_their_own_image(page: Page, browser: Browser, address: str) -> None:
    with session(browser, address) as other:
        page.get_by_role("button", name="Try: histology").click()
        other.get_by_role("button", name="Try: ultrasound").click()
        expect(status(page)).to_contain_text("histology, skin: As it is")
        expect(status(other)).to_contain_text("ultrasound, heart: As it is")
        expect(page.get_by_role("img", name="ultrasound")).to_have_count(0)
        expect(other.get_by_role("img", name="histology")).to_have_count(0)


def test_page__nothing_keeps_a_person_out(page: Page) -> None:
    page.get_by_role("button", name="Try: histology").click()
    expect(status(page)).to_contain_text("histology, skin: As it is")
    assert barriers(page) == []


def _overlay(page: Page) -> Locator:
    return page.get_by_role("img", name=re.compile("^The (mean mask|mask of seed [0-9]+) over "))


def _masked(page: Page, file: str) -> NDArray[np.uint8]:
    """The picture under the mask, without the strip below."""
    return pixels(page, _overlay(page), file)[:512, :512]


def _cases(temporary: Path) -> set[str]:
    """Files of cases and of uploads in the folder of the server."""
    found = [path for path in temporary.glob("domainsight-app-*/*/**/*") if path.is_file() and "demo" not in path.parts]
    return {str(path) for path in found if path.suffix not in {".css", ".js"}}
