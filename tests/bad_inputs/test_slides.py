"""Rows E1, E4 to E7, E9 to E12, E24 and E25 of the reliability table, in one night of ``predict``."""

import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.wsi.__main__ import main
from pipelines.wsi.features.slide_processing import SlideProcessor
from tests.bad_inputs import slides as museum
from tests.pipelines.wsi.tiny import make_bundle, picture, write_pyramid
from vision_core.batch import engine as batch

Make = Callable[[Path], Path]

FAILED: list[tuple[Make, str]] = [
    (museum.e01_junk, "is of no slide format known here: convert it to a tiled TIFF, or download it again"),
    (museum.e01_zeros, "it begins with zeros; copy or download it again"),
    (museum.e04_jpeg_as_slide, "is a plain image (JPEG), not a slide"),
    (museum.e05_no_mpp, "Give it in a column 'mpp' of the CSV of slides, or with read.mpp=0.5"),
    (museum.e06_absurd_mpp, "the file gives '352.8' microns per pixel, outside 0.05 to 20."),
]
TOLD: list[tuple[Make, str]] = [
    (museum.e06_oblong_pixels, "Pixels are not square: 0.4536 microns wide, 0.5 high; their mean of 0.4768 is used."),
    (museum.e07_no_objective, "The power of the objective is not stated; 20x follows from 0.5 microns a pixel."),
    (museum.e09_strips, "The image is stored in strips instead of tiles, so reading it is slow."),
    (museum.e10_glass, "No tissue was found on this slide."),
    (museum.e11_pen, "of the tissue has the colour of pen or ink."),
    (museum.e11_blur, "of the tissue is blurred (24 of 24 places looked at)."),
    (museum.e12_another_stain, "of the tissue has colours that H&E does not give: another stain?"),
    (museum.e24_name_on_the_label, ""),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="module")
def night(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """One batch over the whole museum: reasons of those that failed, rows of those that are done; by name."""
    folder = tmp_path_factory.mktemp("slides")
    for make, _ in (*FAILED, *TOLD):
        make(folder)
    out = folder.parent / "out"
    assert main(_words(bundle, folder, out)) == 4
    return {name: row["reason"] for name, row in _rows(out / "failures.csv").items()}, _rows(out / "results.csv")


@pytest.mark.parametrize(("make", "reason"), FAILED, ids=lambda value: getattr(value, "__name__", ""))
def test_predict__a_bad_slide_is_listed_with_its_reason(
    make: Make, reason: str, night: tuple[dict[str, str], Any], tmp_path: Path
) -> None:
    failures, results = night
    name = make(tmp_path).name
    assert reason in failures[name] and name not in results


@pytest.mark.parametrize(("make", "note"), TOLD, ids=lambda value: getattr(value, "__name__", ""))
def test_predict__a_doubtful_slide_is_done_and_the_doubt_told_once(
    make: Make, note: str, night: tuple[dict[str, str], dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    failures, results = night
    name = make(tmp_path).name
    assert name not in failures
    assert results[name]["notice"].count(note) == 1 if note else not results[name]["notice"]


def test_e01_a_slide_that_is_missing_is_told_from_one_that_is_unsupported(bundle: Path, tmp_path: Path) -> None:
    museum.e01_junk(tmp_path)
    (tmp_path / "slides.csv").write_text("slide\ngone.svs\njunk.svs\n")
    assert main(_words(bundle, tmp_path / "slides.csv", tmp_path / "out")) == 3
    reasons = {name: row["reason"] for name, row in _rows(tmp_path / "out" / "failures.csv").items()}
    assert "no such file or directory" in reasons["gone.svs"]
    assert "is of no slide format known here" in reasons["junk.svs"]


def test_e04_an_image_is_a_slide_where_its_scale_is_stated(bundle: Path, tmp_path: Path) -> None:
    image = museum.e04_jpeg_as_slide(tmp_path)
    assert main([*_words(bundle, image, tmp_path / "out"), "read.mpp=0.5"]) == 0


@pytest.mark.parametrize(("times", "code"), [(2, 0), (9, 3)])
def test_e25_a_share_that_is_away_is_tried_again(
    times: int, code: int, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no share here: what one raises is raised where a slide is opened. Once it is back, the rest is done."""
    slide = write_pyramid(tmp_path / "a.tif", picture(9))
    left = [OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(slide))] * times
    whole = SlideProcessor.open

    def away(self: SlideProcessor, path: Path) -> Any:  # noqa: ANN401
        if left:
            raise left.pop()
        return whole(self, path)

    monkeypatch.setattr(batch, "BACKOFF_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(SlideProcessor, "open", away)
    words = _words(bundle, slide, tmp_path / "out")
    assert main(words) == code
    left.clear()
    assert main(words) == 0
    assert list(_rows(tmp_path / "out" / "results.csv")) == ["a.tif"]


def _words(bundle: Path, slides: Path, out: Path) -> list[str]:
    return ["predict", "--checkpoint", str(bundle), "--input", str(slides), "--out", str(out)]


def _rows(table: Path) -> dict[str, dict[str, str]]:
    with table.open(encoding="utf-8") as file:
        return {Path(row["input"]).name: row for row in csv.DictReader(file)}
