"""Generated DICOM files: the picture is that of pydicom's own steps, or the file is refused."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.vision_core.dicom.generated import generate
from vision_core.dicom.reader import read_noted_dicom
from vision_core.errors import InputError

_ROUNDED = 0.5 + 1e-6


def _check(seeds: range, folder: Path) -> int:
    refused = 0
    for seed in seeds:
        with warnings.catch_warnings(action="ignore"):  # pydicom's, on the odd files that are wanted here
            made = generate(seed, folder)
        try:
            pixels, _ = read_noted_dicom(made.path, 0)
        except InputError:
            refused += 1
            continue
        assert pixels.dtype == np.uint8
        assert np.abs(pixels - made.shown).max() <= _ROUNDED, (seed, made.drawn)
    return refused


def test_read__generated_files_show_what_pydicom_shows(tmp_path: Path) -> None:
    assert _check(range(140), tmp_path) <= 3


@pytest.mark.slow
def test_read__many_generated_files_show_what_pydicom_shows(tmp_path: Path) -> None:
    assert _check(range(1000, 2500), tmp_path) <= 30
