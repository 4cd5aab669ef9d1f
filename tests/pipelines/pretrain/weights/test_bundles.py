"""Golden pairs of classifiers and policies: they begin at the bytes of an image."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.pretrain.predict import PolicyPredictor, PretrainPredictor
from pipelines.pretrain.weights.bundles import classifier_outputs, load_classifier, prepare
from tests.pipelines.pretrain.test_predict import write_bundle
from tests.pipelines.pretrain.tiny import make_folders, train
from tests.vision_core.toy_bundle import edit_card
from vision_core.bundles import bundle
from vision_core.errors import CheckpointError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "model")


def verify(path: Path) -> float:
    return bundle.check_golden(bundle.load(path), PretrainPredictor.from_checkpoint(path, "cpu").answer)


EDITS: dict[str, dict[str, Any]] = {
    "mean": {"mean": [0.485, 0.456, 0.406]},
    "std": {"std": [0.229, 0.224, 0.225]},
    "order": {"channel_order": "bgr"},
    "range": {"values": "0 to 255"},
    "resize": {"resize_px": 48},
    "crop": {"input_px": 24},
}


@pytest.mark.parametrize("changes", EDITS.values(), ids=EDITS)
def test_golden__of_a_classifier_begins_before_the_preprocessing(
    changes: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    assert verify(model) == 0
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    edit_card(copy, lambda content: content["preprocessing"].update(changes), sealed=False)
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        load_classifier(copy)
    edit_card(copy, lambda content: content["preprocessing"].update(changes))
    with pytest.raises(CheckpointError, match="another output"):
        verify(copy)


def test_golden__of_format_1_is_an_image_that_was_normalised(model: Path) -> None:
    found, inputs = load_classifier(model), bundle.load(model).inputs()
    rules = found.preprocessing
    image = prepare(inputs["pixels"].numpy(), rules)
    before = classifier_outputs(found.network, {"image": image}, rules)
    assert torch.equal(before["logits"], classifier_outputs(found.network, inputs, rules)["logits"])


def test_golden__of_a_policy_begins_before_the_preprocessing(tmp_path: Path) -> None:
    words = ["train.max_steps=1", "train.eval_every=0", "data.eval_split=null"]
    assert train(tmp_path / "run", make_folders(tmp_path / "data"), *words) == 0
    policy = tmp_path / "run" / "policy"
    content = bundle.load(policy)
    assert set(content.inputs()) == {"pixels"}
    assert bundle.check_golden(content, PolicyPredictor.from_checkpoint(policy, "cpu").answer) == 0
    before = (policy / "card.json").read_text()
    for changes in ({"mean": [0.5, 0.5, 0.5]}, {"image_px": 48}):
        edit_card(policy, lambda content, changes=changes: content["preprocessing"].update(changes))  # type: ignore[misc]
        with pytest.raises(CheckpointError, match=r"card\.json, preprocessing\.\w+ is '.*', a policy of this version"):
            PolicyPredictor.from_checkpoint(policy, "cpu")
        (policy / "card.json").write_text(before)
    assert json.loads(before)["format"] == 2
