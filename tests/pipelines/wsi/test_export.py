"""Every network in both formats, as the bundle reads it, however many tiles."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from pipelines.wsi.config import AbmilSettings, EmbeddingSettings, ModelSettings, Recycling, TransmilSettings
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.models.build import build_model
from pipelines.wsi.weights.bundles import architecture, load_network, save_network
from pipelines.wsi.weights.export import exportable
from vision_core.bundles.card import Card, TrainedOn
from vision_core.bundles.export import SUFFIXES, Format, export
from vision_core.evaluation.calibration import Calibration

EMBEDDING = EmbeddingSettings(dim=16)
NETWORKS = {
    "abmil_gated": ModelSettings(embedding=EMBEDDING, abmil=AbmilSettings(gated=True)),
    "dsmil": ModelSettings(name="dsmil", embedding=EMBEDDING),
    "transmil": ModelSettings(name="transmil", embedding=EMBEDDING, transmil=TransmilSettings(heads=2)),
}
CALIBRATION = Calibration(temperature=1.7, coverage=0.9, threshold=0.5, num_cases=9)


def bundle_of(folder: Path, settings: ModelSettings, recycling: Recycling | None = None, **changes: Any) -> Path:  # noqa: ANN401
    network = MHIM(build_model(settings, feature_dim=6, num_classes=3), recycling)
    card = Card(
        task="wsi",
        method="plain",
        config={},
        architecture=architecture(settings, recycling),
        preprocessing={"encoder": {"name": "lite0"}},
        classes=("a", "b", "c"),
        trained_on=TrainedOn(description="nothing", synthetic=True),
    )
    save_network(folder, network, card.model_copy(update=changes))
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param("abmil_gated", "onnx", marks=pytest.mark.slow), ("dsmil", "onnx"), ("dsmil", "torch")],
)
def test_export__any_number_of_tiles_as_the_bundle_reads_them(tmp_path: Path, name: str, kind: Format) -> None:
    bundle = bundle_of(tmp_path / "model", NETWORKS[name], calibration=CALIBRATION.to_record())
    done = export(exportable(bundle, None), kind, tmp_path / f"a{SUFFIXES[kind]}")
    assert done.shapes == {"features": ("tiles", 6)}
    assert done.golden_deviation is not None
    model = load_network(bundle, torch.device("cpu"))
    for count in (1, 2, 5000):
        features = torch.randn(count, 6)
        reading = model.predict(features)
        probabilities, scores = _answer(done.path, features)
        torch.testing.assert_close(
            probabilities.double(), torch.from_numpy(reading.probabilities), rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(scores, torch.from_numpy(reading.scores), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_export__transmil_at_a_fixed_number_of_tiles(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "model", NETWORKS["transmil"])
    done = export(exportable(bundle, size=70), "onnx", tmp_path / "a.onnx")
    assert done.shapes == {"features": (70, 6)}
    features = torch.randn(70, 6)
    reading = load_network(bundle, torch.device("cpu")).predict(features)
    probabilities, scores = _answer(done.path, features)
    torch.testing.assert_close(probabilities.double(), torch.from_numpy(reading.probabilities), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scores, torch.from_numpy(reading.scores), rtol=1e-4, atol=1e-6)


def test_export__recycled_tokens_have_no_scores(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "model", NETWORKS["abmil_gated"], Recycling(tokens=3, at_test=True))
    done = export(exportable(bundle, None), "onnx", tmp_path / "a.onnx")
    features = torch.randn(20, 6)
    reading = load_network(bundle, torch.device("cpu")).predict(features)
    probabilities, scores = _answer(done.path, features)
    assert scores.shape == (20,)
    torch.testing.assert_close(probabilities.double(), torch.from_numpy(reading.probabilities), rtol=1e-5, atol=1e-6)


def _answer(path: Path, features: torch.Tensor) -> list[torch.Tensor]:
    if path.suffix == ".pt2":
        return list(torch.export.load(path).module()(features))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(each) for each in session.run(["probabilities", "scores"], {"features": features.numpy()})]
