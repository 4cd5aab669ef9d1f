"""Bundles of detectors of names and of generators: there and back, and who is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.ovd.__main__ import main
from pipelines.ovd.bundles import StoredRegions, load_generator, load_open_detector, save_open_detector
from pipelines.ovd.config import Classifier
from pipelines.ovd.image_text.compact import CompactModel, save_compact
from tests.pipelines.ovd.image_text.encoders import HashedWords
from tests.pipelines.ovd.loops import CLASSES, EMBEDDINGS, SETTINGS, open_detector
from vision_core.bundles.bundle import amend, check_golden, load, read_card
from vision_core.bundles.card import Card, TrainedOn
from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.bundles import answer, save_detector
from vision_core.errors import CheckpointError
from vision_core.files import sha256
from vision_core.randomness import seeded

NOVEL = ("square", "bar")
BACKGROUND = torch.randn(20, 8, generator=torch.Generator().manual_seed(4))
REGIONS = StoredRegions(
    background=BACKGROUND,
    objects=torch.randn(30, 8, generator=torch.Generator().manual_seed(5)),
    labels=torch.arange(30) % 2 * 2,  # of the base classes, disc and ring
)


def make_card(method: str = "marvel") -> Card:
    return Card(
        task="ovd",
        method=method,
        config={},
        architecture={},
        preprocessing={"image_text": "a model"} if method == "marvel" else {},
        classes=(),
        trained_on=TrainedOn(description="a test", synthetic=True),
    )


def make_bundle(folder: Path, classifier: Classifier | None = None) -> Path:
    detector = open_detector(classifier=classifier).freeze()
    save_open_detector(folder, detector, make_card(), NOVEL, REGIONS)
    return folder


def make_generator(folder: Path) -> Path:
    with seeded(0):
        save_detector(folder, Detector(SETTINGS, ("object",)).freeze(), make_card("proposals"))
    return folder


@pytest.mark.parametrize("classifier", [Classifier(), Classifier(background="learned", normalise=True)])
def test_bundle__comes_back_with_all_it_holds(classifier: Classifier, tmp_path: Path) -> None:
    found = load_open_detector(make_bundle(tmp_path / "model", classifier))
    assert found.split.classes == CLASSES
    assert found.split.novel == NOVEL
    assert found.detector.classifier_settings == classifier
    for name in ("background", "objects", "labels"):
        torch.testing.assert_close(getattr(found.regions, name), getattr(REGIONS, name))
    torch.testing.assert_close(found.detector.classifier.embeddings, EMBEDDINGS)
    assert found.card.preprocessing["image_text"] == "a model"
    content = load(tmp_path / "model", "ovd")
    assert check_golden(content, lambda inputs: answer(found.detector, inputs)) < 1e-6


def test_bundle__damaged_descriptions_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "model")
    architecture = load(folder).card.architecture
    amend(folder, classes=CLASSES[:3])
    with pytest.raises(CheckpointError, match="lists 3 classes, the classifier has 4"):
        load_open_detector(folder)
    amend(folder, classes=CLASSES, preprocessing={"image_text": "a model", "mean": [0, 0, 0]})
    with pytest.raises(CheckpointError, match="preprocessing is not that of the architecture"):
        load_open_detector(folder)
    amend(folder, architecture={name: each for name, each in architecture.items() if name != "novel"})
    with pytest.raises(CheckpointError, match="no card of a detector of names"):
        load_open_detector(folder)


def without_objects(folder: Path) -> Path:
    """A bundle as older versions wrote it, which stored background regions alone."""
    weights = folder / "weights.safetensors"
    save_file({name: each for name, each in load_file(weights).items() if not name.startswith("object_")}, weights)
    amend(folder, hashes={**read_card(folder).hashes, weights.name: sha256(weights)})
    return folder


def test_bundle__of_before_has_background_and_no_objects(tmp_path: Path) -> None:
    found = load_open_detector(without_objects(make_bundle(tmp_path / "model")))
    torch.testing.assert_close(found.regions.background, BACKGROUND)
    assert found.regions.objects.shape == (0, 8) and len(found.regions.labels) == 0


def test_generator__loads_with_the_settings_of_pseudo_labels(tmp_path: Path) -> None:
    detector, card = load_generator(make_generator(tmp_path / "model"), rpn_nms=0.3, count=25)
    assert (detector.settings.rpn_nms, detector.settings.rpn_post_nms_test) == (0.3, 25)
    assert card.classes == ("object",)


def test_generator__verifies_though_it_predicts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(make_generator(tmp_path / "model")), "--device", "cpu"]) == 0
    assert "Golden pair: relative deviation" in capsys.readouterr().out


def test_detector__is_no_image_text_model(tmp_path: Path) -> None:
    with seeded(0):
        save_compact(tmp_path / "model", CompactModel(HashedWords()), make_card("image_text"))
    with pytest.raises(CheckpointError, match=r"detects nothing\. Give image_text\.weights it"):
        load_open_detector(tmp_path / "model")


def test_generator__and_detector_are_not_taken_for_one_another(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="knows no names"):
        load_open_detector(make_generator(tmp_path / "generator"))
    with pytest.raises(CheckpointError, match="is no generator of proposals"):
        load_generator(make_bundle(tmp_path / "detector"), rpn_nms=0.3, count=25)
