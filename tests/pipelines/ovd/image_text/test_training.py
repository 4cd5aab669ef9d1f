"""The compact model trained by ``train method=image_text``: what it is shown, and that a stopped run goes on."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.ovd.__main__ import main
from pipelines.ovd.image_text.compact import CompactModel, load_compact
from pipelines.ovd.image_text.contrastive import contrastive_loss
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.image_text.prompts import expand
from pipelines.ovd.image_text.training import ContrastiveLearner, ObjectCrops
from tests.pipelines.ovd.image_text.encoders import HashedWords
from tests.pipelines.ovd.tiny import CLASSES, make_data, words
from vision_core.assets import sentence_encoder
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_image
from vision_core.randomness import seeded
from vision_core.signals import StopRequest
from vision_core.training import loop as training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), count=4)


def test_crops__are_objects_of_all_classes_mirrored_by_half(data: Path, tmp_path: Path) -> None:
    dataset = read_dataset(DetectionData(root=data, format="coco", classes=CLASSES), "train", with_labels=True)
    items = ObjectCrops(dataset, 32)
    assert len(items) == sum(len(record.labels) for record in dataset.records)
    batch = items.collate([items[0, index] for index in range(len(items))])
    assert batch.crops.shape == (len(items), 3, 32, 32)
    assert set(batch.labels.tolist()) == {int(label) for record in dataset.records for label in record.labels}
    number, row = items.places[0]
    left, top, right, bottom = dataset.records[number].boxes[row].round().astype(int)
    colour = read_image(dataset.records[number].path)[top:bottom, left:right].mean(axis=(0, 1))
    np.testing.assert_allclose(batch.crops[0].float().mean(dim=(1, 2)).numpy(), colour, atol=12)
    write_png(ramp := tmp_path / "ramp.png", np.tile(np.arange(96, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    ramps = ObjectCrops(replace(dataset, records=tuple(replace(each, path=ramp) for each in dataset.records)), 32)
    epochs = [ramps[epoch, 0] for epoch in range(12)]
    rises = [bool(each.crops[0, 0, 16, 24] > each.crops[0, 0, 16, 8]) for each in epochs]
    assert 2 <= sum(rises) <= 10
    assert len({int(each.prompts) for each in epochs}) > 3
    one = replace(dataset, records=tuple(replace(each, labels=each.labels * 0) for each in dataset.records))
    with pytest.raises(DataError, match="of '1' classes"):
        ObjectCrops(one, 32)


def test_step__is_the_contrastive_loss_of_crops_and_their_sentences(data: Path) -> None:
    dataset = read_dataset(DetectionData(root=data, format="coco", classes=CLASSES), "train", with_labels=True)
    items = ObjectCrops(dataset, 32)
    batch = items.collate([items[0, index] for index in range(5)])
    with seeded(0):
        model = CompactModel(HashedWords())
    learner = ContrastiveLearner(model, CLASSES)
    assert not [name for name in learner.state_dict() if "sentences" in name]
    pairs = zip(batch.labels.tolist(), batch.prompts.tolist(), strict=True)
    texts = model.encode_texts([expand(CLASSES[label])[prompt] for label, prompt in pairs])
    expected = contrastive_loss(model.encode_images(batch.crops), texts, batch.labels, model.scale())
    loss = learner(batch)["loss_contrastive"]
    torch.testing.assert_close(loss, functional.relu(expected))  # which is positive
    loss.backward()
    assert all(each.grad is not None for each in model.parameters())


@pytest.mark.slow
def test_train__a_stopped_run_ends_with_the_same_bits_and_serves_as_a_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words(data, "method=image_text", "train.max_steps=4", "data.eval_split=null")]
    assert main(["validate", *given]) == 0
    assert main(["train", "--out", str(tmp_path / "whole"), *given]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_signals", lambda: nullcontext(StopRequest(requested=True)))
        assert main(["train", "--out", str(tmp_path / "stopped"), *given]) == 130
    assert main(["train", "--out", str(tmp_path / "stopped"), "--resume"]) == 0
    models = [tmp_path / name / "model" / "weights.safetensors" for name in ("whole", "stopped")]
    assert models[0].read_bytes() == models[1].read_bytes()
    model = load_compact(tmp_path / "whole" / "model", MiniLM.read(sentence_encoder()))
    assert model.encode_texts(["a disc"]).shape == (1, 64)
    capsys.readouterr()
    assert main(["train", "--out", str(tmp_path / "scored"), *given, "data.eval_split=test"]) == 2
    assert "method=image_text has no score. Set it to null." in capsys.readouterr().err
