"""Curves of a report have the names of their task."""

import importlib
import json
from pathlib import Path

import pytest

NAMES = {
    "sfod": {
        "loss_rpn_cls": "Loss: is there an object (candidates)",
        "loss_rpn_loc": "Loss: where it is (candidates)",
        "loss_cls": "Loss: which class",
        "loss_box_reg": "Loss: where it is exactly",
        "loss_lpld": "Loss: distillation of unsure boxes",
        "loss_consistency": "Loss: teacher and student agree",
        "loss_contrast": "Loss: classes lie apart",
        "loss_instance": "Loss: objects lie apart",
        "loss_gradient": "Loss: gradients agree",
        "hpl_per_image": "Pseudo labels an image",
        "lpl_per_image": "Unsure boxes distilled an image",
    },
    "ovd": {"loss_rpn_cls": "Loss: is there an object (candidates)", "loss_cls": "Loss: which class"},
    "wsi": {"loss_cls": "Loss: which class", "loss_consistency": "Loss: teacher and student agree"},
}


@pytest.mark.parametrize("task", NAMES)
def test_report__curves_have_the_names_of_the_task(task: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, **dict.fromkeys(NAMES[task], 2.0)}) + "\n")
    assert importlib.import_module(f"pipelines.{task}.__main__").main(["report", "--run", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    for key, name in NAMES[task].items():
        assert f"{name}: 2 at step 1" in page and key not in page
