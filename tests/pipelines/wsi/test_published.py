"""The settings of published experiments on tiny files of the same layout."""

from pathlib import Path

import pytest
import torch

from pipelines.wsi.__main__ import main
from pipelines.wsi.config import WsiConfig
from vision_core.config.loading import load_runs
from vision_core.randomness import key

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "wsi"
PATIENTS = 16
SMALL = ("model.embedding.dim=16", "train.epochs=1", "train.patience=0", "data.val_share=0.3")


def _camelyon(folder: Path) -> Path:
    """A list without header, a slide a patient, and ``pt_files``."""
    _features(folder, [f"slide_{number:03d}" for number in range(PATIENTS)])
    return _list(folder, [f"slide_{number:03d},{'tumor' if number % 2 else 'normal'}" for number in range(PATIENTS)])


def _tcga(folder: Path) -> Path:
    """A list of cases, some of two slides."""
    cases = [f"TCGA-05-{4244 + number}" for number in range(PATIENTS)]
    _features(folder, [f"{case}-01Z-00-DX1.{number:08x}" for number, case in enumerate(cases)])
    _features(folder, [f"{case}-01Z-00-DX2.{number:08x}" for number, case in enumerate(cases[:4])])
    return _list(folder, [f"{case},{'LUSC' if number % 2 else 'LUAD'}" for number, case in enumerate(cases)])


def _features(folder: Path, names: list[str]) -> None:
    (folder / "features" / "pt_files").mkdir(parents=True, exist_ok=True)
    for name in names:
        generator = torch.Generator().manual_seed(key("published", name))
        torch.save(torch.randn(9, 6, generator=generator), folder / "features" / "pt_files" / f"{name}.pt")


def _list(folder: Path, lines: list[str]) -> Path:
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


LAYOUTS = {"camelyon16": _camelyon, "tcga_nsclc": _tcga}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("cohort", LAYOUTS)
def test_published__every_run_can_begin(
    cohort: str, version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = LAYOUTS[cohort](tmp_path)
    path = CONFIGS / f"{cohort}_mhim_{version}.yaml"
    runs = load_runs(WsiConfig, path)
    assert main(["train", "--config", str(path), "--dry-run", f"data.root={data}", *SMALL]) == 0
    out = capsys.readouterr().out
    count = 2 * sum(run.data.folds for run in runs.values())
    assert out.count(" items, ") == count
    assert out.count("Starts from what the run ") == count // 2
    assert "of the published protocol" in out


@pytest.mark.slow
def test_published__teacher_and_student_of_all_folds_of_camelyon(tmp_path: Path) -> None:
    data = _camelyon(tmp_path / "data")
    path = CONFIGS / "camelyon16_mhim_v1.yaml"
    one = tmp_path / "one.yaml"
    one.write_text(path.read_text(encoding="utf-8").split("runs:")[0], encoding="utf-8")
    assert main(["train", "--config", str(one), "--out", str(tmp_path / "run"), f"data.root={data}", *SMALL]) == 0
    trained = sorted(folder.parent.name for folder in (tmp_path / "run").glob("*/model"))
    assert trained == [f"fold-{fold}-{stage}" for fold in range(3) for stage in ("mhim_v1", "teacher")]
