"""Networks as files for other programs: any number of tiles, TransMIL one."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from pipelines.wsi.weights.bundles import DECISION, load_network, save_network
from pipelines.wsi.weights.export import exportable
from tests.pipelines.wsi.weights.test_bundles import CPU, Name, card, network
from vision_core.bundles.export import export
from vision_core.errors import UsageError
from vision_core.evaluation.calibration import Calibration

CALIBRATION = Calibration(temperature=2.0, coverage=0.9, threshold=0.7, num_cases=20)


def _bundle(name: Name, folder: Path) -> Path:
    made = card(name, calibration={**CALIBRATION.to_record(), DECISION: 0.3}, preprocessing={"encoder": {"name": "e"}})
    save_network(folder / name, network(name), made)
    return folder / name


@pytest.mark.parametrize("name", ["abmil", pytest.param("dsmil", marks=pytest.mark.slow)])
def test_export__any_number_of_tiles(name: Name, tmp_path: Path) -> None:
    bundle = _bundle(name, tmp_path)
    given = exportable(bundle, None)
    assert export(given, "onnx", tmp_path / "model.onnx").deviation < 1e-4
    bag = torch.randn(37, 6)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    probabilities, scores = session.run(["probabilities", "scores"], {"features": bag.numpy()})
    reading = load_network(bundle, CPU).predict(bag)
    np.testing.assert_allclose(probabilities, reading.probabilities, rtol=1e-4)
    np.testing.assert_allclose(scores, reading.scores, rtol=1e-3, atol=1e-6)
    assert "of the encoder e" in given.preprocessing
    assert "called tumour from 0.395" in given.preprocessing


@pytest.mark.slow
def test_export__transmil_of_one_number_of_tiles(tmp_path: Path) -> None:
    bundle = _bundle("transmil", tmp_path)
    done = export(exportable(bundle, 30), "torch", tmp_path / "model.pt2")
    assert done.shapes == {"features": (30, 6)}
    assert done.deviation < 1e-4


def test_exportable__size_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Give it with --size"):
        exportable(_bundle("transmil", tmp_path), None)
    with pytest.raises(UsageError, match="Leave --size out"):
        exportable(_bundle("abmil", tmp_path), 30)
