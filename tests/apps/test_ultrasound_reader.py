"""The page's handlers on made files, with predictors that answer what a test wants."""

import csv
import html
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from apps.cases import Example
from apps.ultrasound_reader.app import build
from apps.ultrasound_reader.drawing import outlines_layer
from apps.ultrasound_reader.handlers import VIEWS, Case, Reader, forget
from apps.ultrasound_reader.wording import (
    ABSENT,
    PRESENT,
    REMOVED,
    TURNED_AWAY,
    UNKNOWN,
    Reading,
    frame_words,
    headline,
    lines,
)
from pipelines.ultrasound.data import files
from pipelines.ultrasound.data.files import open_file
from pipelines.ultrasound.result_files import write_result
from tests.apps.stand_in import StandIn, commands, copied, downloads, unsaid
from tests.bad_inputs.dicoms import still
from tests.vision_core.dicom.test_spacing import region
from vision_core.bundles.card import Card, TrainedOn
from vision_core.dicom.reader import read_dicom_image
from vision_core.errors import InputError
from vision_core.files import origin_text
from vision_core.images.reading import read_image
from vision_core.images.untrusted import UntrustedImages
from vision_core.results import RESEARCH_NOTICE, CineResult

HEIGHT, WIDTH, FRAMES = 12, 16, 4
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[3:7, 4:9] = True


def result(
    kept: Sequence[bool], outside: Sequence[bool] = (False,) * FRAMES, spacing: tuple[float, float] | None = None
) -> CineResult:
    has_mask = np.array(kept)
    return CineResult(
        name="a.dcm",
        frames=tuple(f"a.dcm#{number}" for number in range(len(kept))),
        size=(HEIGHT, WIDTH),
        classes=("organ",),
        scores=np.where(has_mask, 0.9, 0.1).astype(np.float32),
        accepted=has_mask & ~np.array(outside),
        outside=np.array(outside),
        masks=np.stack([MASK * each for each in has_mask]),
        confidence=np.where(has_mask, 0.8, np.nan).astype(np.float32),
        spacing_mm=spacing,
        model="ultrasound/screen/1",
        titles={"organ": "phantom organ"},
    )


GATED, ALONE = result([False, True, False, True]), result([True, True, False, True])


class Fixed(StandIn[CineResult]):
    """Answers one result for every file."""

    def __init__(self, found: CineResult, *, synthetic: bool = True) -> None:
        self.found = found
        trained_on = TrainedOn(description="a phantom", synthetic=synthetic)
        self.card = Card(task="ultrasound", method="screen", config={}, architecture={}, preprocessing={},
                         classes=("organ",), trained_on=trained_on)  # fmt: skip

    def __call__(self, item: str | Path | NDArray[np.uint8]) -> CineResult:
        return self.found

    def write(self, result: CineResult, path: str | Path, folder: str | Path) -> list[Path]:
        with UntrustedImages() as decoder:
            return write_result(result, open_file(Path(path), decoder), Path(path), Path(folder))


@pytest.fixture(scope="module")
def decoder() -> UntrustedImages:
    return UntrustedImages()  # its child process takes a second to start


@pytest.fixture
def cine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    (tmp_path / "session" / "0123").mkdir(parents=True)
    pixels = np.arange(FRAMES * HEIGHT * WIDTH, dtype=np.uint32).reshape(FRAMES, HEIGHT, WIDTH).astype(np.uint8)
    inside = region(RegionLocationMaxX1=WIDTH - 1, RegionLocationMaxY1=HEIGHT - 1)
    values = {
        "Modality": "US",
        "StudyInstanceUID": "1.2.3",
        "SeriesDescription": "Liver",
        "SequenceOfUltrasoundRegions": [inside],
    }
    return still(tmp_path / "session" / "0123" / "a.dcm", pixels, NumberOfFrames=FRAMES, **values)


def reader(decoder: UntrustedImages, gated: CineResult = GATED, *, synthetic: bool = True) -> Reader:
    return Reader(gate=Fixed(gated, synthetic=synthetic), alone=Fixed(ALONE, synthetic=synthetic), decoder=decoder)


def own(path: Path) -> Example:
    return Example(name="Sweep", path=path, origin="made", why="It shows the point.")


def content(figure: str) -> list[list[str]]:
    found = re.search('data-frames="([^"]*)"', figure)
    assert found
    return json.loads(html.unescape(found[1]))  # type: ignore[no-any-return]


def endings(text: str) -> set[str]:
    return {path.name.split(".", 1)[1] for path in downloads(text)}


def test_words__presence_before_numbers_and_what_the_gate_removes() -> None:
    reading = Reading(gated=GATED, alone=ALONE)
    assert headline(reading) == "Phantom organ present on 2 of 4 frames."
    assert lines(reading) == [
        "Without the gate, the segmenter would mark 1 frame more.",
        "Largest area: 20 px, spacing unknown, on frame 2.",
    ]
    assert [reading.mark(number) for number in range(FRAMES)] == [REMOVED, PRESENT, ABSENT, PRESENT]
    assert reading.first() == 0  # it opens where the gate removes most
    assert frame_words(reading, 0) == (
        "Phantom organ not present. The segmenter alone would mark 20 px, spacing unknown here."
    )
    assert frame_words(reading, 1) == "Phantom organ present: 20 px, spacing unknown."
    assert frame_words(reading, 2) == "Phantom organ not present."
    in_mm = Reading(gated=result([False, True, False, True], spacing=(0.5, 0.5)), alone=ALONE)
    assert frame_words(in_mm, 1) == "Phantom organ present: 5 mm²."
    one = Reading(gated=result([False], [False]), alone=result([False], [False]))
    assert (headline(one), lines(one)) == ("Phantom organ not present.", [])


def test_words__a_frame_that_is_turned_away_is_not_called_absent() -> None:
    gated = replace(GATED, reasons=("", "", "repeats the frame before", ""))
    reading = Reading(gated=gated, alone=ALONE)
    assert [reading.mark(number) for number in range(FRAMES)] == [REMOVED, PRESENT, TURNED_AWAY, PRESENT]
    assert frame_words(reading, 2) == "Turned away: repeats the frame before."


def test_words__outside_comes_before_everything() -> None:
    reading = Reading(gated=result([False] * FRAMES, [True] * FRAMES), alone=ALONE)
    assert headline(reading) == "Outside what the model knows."
    assert reading.mark(0) == UNKNOWN
    assert not reading.removed(0)  # the guard did it, not the gate
    uncalled = Reading(gated=GATED, alone=ALONE, may_call=False)
    assert headline(uncalled) == "Not called, since the model has only seen made images."
    assert lines(uncalled) == []
    assert {frame_words(uncalled, number) for number in range(FRAMES)} == {"Not called."}


def test_outline__runs_along_the_edges_of_the_pixels() -> None:
    layer = outlines_layer(MASK, None, (HEIGHT, WIDTH))
    found = re.search(' d="([^"]*)"', layer)
    assert found
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", found[1]), float)
    assert points.min(axis=0).tolist() == pytest.approx([4, 3], abs=0.3)
    assert points.max(axis=0).tolist() == pytest.approx([9, 7], abs=0.3)
    assert "stroke-dasharray" not in layer
    assert "stroke-dasharray" in outlines_layer(None, MASK, (HEIGHT, WIDTH))
    assert "path" not in outlines_layer(~MASK & MASK, None, (HEIGHT, WIDTH))


def test_take__frames_with_masks_downloads_and_forget(cine: Path, decoder: UntrustedImages) -> None:
    viewer = reader(decoder, result([False, True, False, True], spacing=(0.3, 0.3)))
    case, figure, words, details, links = viewer.take(own(cine), VIEWS[0])
    assert isinstance(case, Case)
    shown = content(figure)
    assert {values for *_, values in shown} == {""}  # of 8 bits
    dashed = ["stroke-dasharray" in over for _, over, *_ in shown]
    assert dashed == [True, False, False, False]
    assert ["<path" in over for _, over, *_ in shown] == [True, True, False, True]
    assert "Phantom organ present on 2 of 4 frames." in words
    assert "It shows the point." in words
    assert "<td>90</td>" in details
    assert 'class="ask"' not in links
    [alone] = viewer.show(case, VIEWS[1])
    case, taken, *_, links = viewer.take(own(cine), VIEWS[1], case)
    assert [over for _, over, *_ in content(taken)] == [over for _, over, *_ in content(alone)]
    assert ["<path" in over for _, over, *_ in content(alone)] == [True, True, False, True]
    assert "stroke-dasharray" not in alone
    assert endings(links) == {"frames.csv", "json", "masks.nii.gz", "overlay.png", "seg.dcm", "seg.nrrd"}
    assert all(path.name.startswith("ultrasound-") and "a." not in path.name for path in downloads(links))
    [table] = [path for path in downloads(links) if path.name.endswith(".frames.csv")]
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert [row["present"] for row in rows] == ["0", "1", "0", "1"]
    assert float(rows[1]["area_mm2"]) == pytest.approx(20 * 0.09)
    assert {row["notice"] for row in rows} == {RESEARCH_NOTICE}
    [record] = [json.loads(path.read_text()) for path in downloads(links) if path.suffix == ".json"]
    of = ("US, Liver", case.files.digits, "ultrasound/screen/1")
    for each in (record, *rows):
        assert (each["series"], each["input_sha256"], each["model"]) == of
    assert "US, Liver" in details
    assert unsaid(links, case.files.digits, "ultrasound/screen/1") == []
    assert unsaid(links, "a.dcm") == ["masks.nii.gz", "overlay.png", "seg.dcm", "seg.nrrd"]  # pictures name no file
    [sheet] = [path for path in downloads(links) if path.name.endswith(".overlay.png")]
    frames = "frames 1 to 4"
    assert Image.open(sheet).info["Description"] == origin_text("ultrasound/screen/1", case.files.digits, frames)
    forget(case)
    assert not case.files.folder.exists()
    assert viewer.show(case, VIEWS[0])[0].startswith('<div class="viewer empty">')
    assert cine.exists()  # an example stays


@pytest.mark.parametrize(
    ("spacing", "words"),
    [
        ((0.3, 0.3), ("2 cm",)),
        ((0.3, 0.2), ("2 cm", "Pixels are 0.3 mm high and 0.2 mm wide: the bar holds across.")),
        (None, ("Scale unknown",)),
    ],
)
def test_take__the_sheet_of_frames_has_a_scale_bar(
    spacing: tuple[float, float] | None,
    words: tuple[str, ...],
    cine: Path,
    decoder: UntrustedImages,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, *rest, **more: drawn.append(text))
    case, *_ = reader(decoder, result([False, True, False, True], spacing=spacing)).take(own(cine), VIEWS[0])
    assert f"Frames 1 to 4 of input {case.files.digits}." in " ".join(drawn)
    assert all(each in " ".join(drawn) for each in words)


def test_upload__a_model_of_made_images_says_nothing_of_files_of_others(cine: Path, decoder: UntrustedImages) -> None:
    viewer = reader(decoder, result([False] * FRAMES, [True] * FRAMES, spacing=(0.3, 0.3)))
    case, figure, words, details, links = viewer.upload(str(cine), VIEWS[0])
    assert "Outside what the model knows; not called" in words
    assert "mm" not in words + details
    assert "data-um" not in figure
    assert not any(over for _, over, *_ in content(figure))
    assert "<table" not in details
    assert endings(links) == {"frames.csv", "json"}
    [record] = [json.loads(path.read_text()) for path in downloads(links) if path.suffix == ".json"]
    assert record["category"] == "Outside what the model knows; not called, since the model has only seen made images"
    assert record["notice"] == RESEARCH_NOTICE
    assert all(set(each) == {"frame", "outside"} and each["outside"] for each in record["frames"])
    assert (record["input_sha256"], record["model"]) == (case.files.digits, "ultrasound/screen/1")
    assert '<details class="ask">' in links  # text may be burned into it
    assert viewer.upload(None, VIEWS[0], case)[0] is None
    assert not cine.exists()


@pytest.mark.parametrize(("burned", "asks"), [("NO", False), ("YES", True), (None, True)])
def test_upload__a_model_of_patients_calls_and_asks_where_text_may_be_burned_in(
    cine: Path, decoder: UntrustedImages, burned: str | None, asks: bool
) -> None:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[2:5] = 90
    more: dict[str, Any] = {} if burned is None else {"BurnedInAnnotation": burned}
    still(cine, pixels, Modality="US", **more)
    found = reader(decoder, result([True], [False]), synthetic=False)
    alone = Reader(gate=found.gate, alone=Fixed(result([True], [False]), synthetic=False), decoder=decoder)
    _, figure, words, _, links = alone.upload(str(cine), VIEWS[0])
    assert "Phantom organ present." in words
    assert 'class="frames"' not in figure
    assert ('<details class="ask">' in links) == asks


def test_upload__a_still_of_more_than_8_bits_has_the_windows_of_its_file(cine: Path, decoder: UntrustedImages) -> None:
    ramp = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 20
    still(cine, ramp, Modality="US", BitsStored=12, HighBit=11, WindowCenter=1000, WindowWidth=500)
    found = reader(decoder, result([True], [False]), synthetic=False)
    alone = Reader(gate=found.gate, alone=found.gate, decoder=decoder)
    case, figure, *_ = alone.upload(str(cine), VIEWS[0])
    [base] = case.files.folder.glob("frame-*.png")
    np.testing.assert_array_equal(read_image(base), read_dicom_image(cine))
    assert '<option value="1000 500">Window of the file</option>' in figure
    codes = read_image(case.files.folder / "values-00000.png").astype(int)
    np.testing.assert_array_equal(256 * codes[..., 0] + codes[..., 1], ramp)


def test_upload__frames_of_more_than_8_bits_share_a_window(cine: Path, decoder: UntrustedImages) -> None:
    frames = np.stack([np.full((HEIGHT, WIDTH), 100 * number, np.uint16) for number in range(FRAMES)])
    still(cine, frames, NumberOfFrames=FRAMES, Modality="US", BitsStored=12, HighBit=11)
    case, figure, *_ = reader(decoder, synthetic=False).upload(str(cine), VIEWS[0])
    pictures = [read_image(path) for path in sorted(case.files.folder.glob("frame-*.png"))]
    assert [round(each.mean() / 85) for each in pictures] == [0, 1, 2, 3]
    assert [values.endswith(f"values-0000{number}.png") for number, (*_, values) in enumerate(content(figure))] == (
        [True] * FRAMES
    )
    assert ">Whole range</option>" in figure


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.mp4", "a"])
def test_upload__what_is_no_image_is_told_and_deleted(name: str, cine: Path, decoder: UntrustedImages) -> None:
    path = cine.with_name(name)
    path.write_text("<html>login</html>" * 20)
    with pytest.raises(InputError, match=f"{name}'"):
        reader(decoder).upload(str(path), VIEWS[0])
    assert not path.exists()
    assert not list(path.parent.parent.glob("case-*"))


def test_upload__a_file_that_kills_the_parser_is_one_line_and_the_next_is_read(
    cine: Path, decoder: UntrustedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_FACTS", "tests.apps.crashing:facts_or_crash")
    viewer = reader(decoder)
    (bad := cine.with_name("crash.h5")).write_bytes(b"0")
    with pytest.raises(InputError, match=r"crash\.h5' made the decoder crash"):
        viewer.upload(str(bad), VIEWS[0])
    assert not bad.exists()
    assert "present on 2 of 4 frames" in viewer.take(own(cine), VIEWS[0])[2]


def test_page__is_built_with_its_warning(cine: Path, decoder: UntrustedImages) -> None:
    shutil.copy(cine, cine.with_name("b.dcm"))
    page = build(reader(decoder), [own(cine.with_name("b.dcm"))])
    texts = [str(getattr(block, "value", "")) for block in page.blocks.values()]
    assert any("This model has only seen made images." in text for text in texts)
    assert any(text == "Sweep" for text in texts)
    assert copied(page) == []
    assert commands(page) == []
