"""The shipped bundles are of this format, and an older one is brought to it without touching its weights."""

import shutil
from pathlib import Path

import pytest

from benchmarks.repack_demos import CHECKPOINTS, repack
from vision_core.bundles import bundle
from vision_core.bundles.card import FORMAT
from vision_core.detection.calibration import read_calibration
from vision_core.errors import CheckpointError

BEFORE = Path(__file__).resolve().parents[1] / "written_before" / "finished" / "model"


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.rglob("card.json")), ids=lambda path: path.parent.name)
def test_repack__shipped_bundles_are_left_alone(path: Path) -> None:
    before = path.read_bytes()
    assert bundle.read_card(path.parent).format == FORMAT
    assert repack(path.parent) == "as it should be"
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.rglob("card.json")), ids=lambda path: path.parent.name)
def test_shipped_bundles__are_small(path: Path) -> None:
    most = 12_550_000 if path.parent.name == "policy" else 10_000_000
    assert sum(each.stat().st_size for each in path.parent.iterdir()) <= most


def test_demos__are_thin() -> None:
    longest = max(len(path.read_text(encoding="utf-8").splitlines()) for path in CHECKPOINTS.parent.glob("*.py"))
    assert longest <= 40


def test_shipped_source_detector__is_calibrated() -> None:
    made = read_calibration(bundle.read_card(CHECKPOINTS / "sfod-source"))
    assert made is not None
    assert (made.images, made.all.objects) == (9, 52)
    assert "real aerial image" in made.data


def test_repack__format_1_keeps_its_weights(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BEFORE, tmp_path / "model"))
    assert repack(folder) == "format 1 to 2"
    assert (folder / "weights.safetensors").read_bytes() == (BEFORE / "weights.safetensors").read_bytes()
    found = bundle.load(folder, "wsi").card
    old = bundle.read_card(BEFORE)
    assert found.format == FORMAT
    assert found.model_copy(update={"format": 1, "hashes": old.hashes, "sha256": None}) == old
    assert repack(folder) == "as it should be"


def test_repack__a_bundle_that_answers_otherwise_is_not_blessed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BEFORE, tmp_path / "model"))
    card = (folder / "card.json").read_text()
    assert '"relu"' in card
    (folder / "card.json").write_text(card.replace('"relu"', '"gelu"'))
    with pytest.raises(CheckpointError, match="compute another output"):
        repack(folder)
