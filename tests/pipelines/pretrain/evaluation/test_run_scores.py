"""The verb ``evaluate``: what it refuses, what it tells, and masks at another size of image."""

import json
from pathlib import Path

import pytest
import torch

from pipelines.pretrain.__main__ import main
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.evaluation.run_scores import load_training_masks
from pipelines.pretrain.pipeline import PretrainPipeline
from pipelines.pretrain.weights.bundles import load_classifier, save_classifier
from pipelines.pretrain.weights.classes import in_order
from tests.bad_inputs import labelled_images as museum
from tests.pipelines.pretrain.test_predict import card, write_bundle
from tests.pipelines.pretrain.tiny import make_folders, train, words
from vision_core.config.loading import load_runs
from vision_core.errors import CheckpointError, ConfigError

SHORT = ("train.max_steps=1", "train.eval_every=0", "data.eval_split=null")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("data"))


def config(data: Path, *more: str) -> PretrainConfig:
    return load_runs(PretrainConfig, None, words(data, *more))[""]


def test_evaluate__a_backbone_without_classes_is_refused_before_images_are_read(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "model", ())
    with pytest.raises(CheckpointError, match="model': This bundle is a backbone without classes"):
        PretrainPipeline().evaluate(config(Path("/nonexistent")), {"toy": bundle}, None)


@pytest.mark.parametrize("policy", ["reinforce", "unlearned"])
def test_evaluate__under_masks_at_another_size_of_image(policy: str, data: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", data, *SHORT, f"policy={policy}") == 0
    command = ["evaluate", "--checkpoint", str(tmp_path / "run" / "model"), "data.eval_split=test"]
    assert main([*command, "data.image_px=64", "data.resize_px=72"]) == 0
    made = card(()).model_copy(
        update={"method": "pretrain", "config": config(data, "policy=unlearned").model_dump(mode="json")}
    )
    masks = load_training_masks(tmp_path / "model", made, 48)
    assert masks is not None
    assert masks.apply_mean(torch.ones(1, 3, 48, 48), 0).shape == (1, 3, 48, 48)
    with pytest.raises(ConfigError, match=r"mask\.grid '8' is finer than the image of 7 pixels"):
        load_training_masks(tmp_path / "model", made, 7)


@pytest.mark.parametrize("are_independent", [False, True])
def test_evaluate__images_of_another_kind_are_refused(are_independent: bool, tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "set.npz", labels=1 if are_independent else 3)
    bundle = write_bundle(tmp_path / "model", ("a", "b", "c"), are_independent=are_independent)
    wanted = config(path, "data.format=medmnist")
    with pytest.raises(CheckpointError, match=r"was trained on images of '.*', these have '.*'\. Give"):
        PretrainPipeline().evaluate(wanted, {"toy": bundle}, None)


def test_evaluate__classes_in_another_order_are_matched_by_name(data: Path, tmp_path: Path) -> None:
    """One network under two orders of its outputs, scored beside itself and in the order that a person states."""
    bundle, turned = write_bundle(tmp_path / "model"), ("striped", "bright", "dark")
    found = load_classifier(bundle)
    head = in_order(found.network.state_dict(), "fc", found.card.classes, turned)
    found.network.load_state_dict(head)
    save_classifier(tmp_path / "turned", found.network, found.card.model_copy(update={"classes": turned}))
    both = {"one": bundle, "other": tmp_path / "turned"}
    for words_ in ((), ("data.classes=[dark,striped,bright]",)):
        one, other = PretrainPipeline().evaluate(config(data, *words_), both, None)
        assert one.metrics == pytest.approx(other.metrics)
        assert one.per_class == pytest.approx(other.per_class)
    with pytest.raises(CheckpointError, match=r"the data has 2 .*'striped'.*Give data.classes by the names"):
        PretrainPipeline().evaluate(config(data, "data.classes=[dark,bright]"), both, None)


def test_evaluate__numbers_that_take_the_names_of_the_model_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = museum.medmnist(tmp_path / "set.npz", labels=1)
    bundle = write_bundle(tmp_path / "model", ("a", "b", "c"))
    turned = write_bundle(tmp_path / "turned", ("c", "b", "a"))
    [row] = PretrainPipeline().evaluate(config(path, "data.format=medmnist"), {"toy": bundle}, None)
    assert row.notes[0].startswith("The labels are numbers, and take the names of the model: 0 is 'a', 1 is 'b'")
    assert row.notes[0] in capsys.readouterr().out
    stated = config(path, "data.format=medmnist", "data.classes=[a,b,c]")
    [same] = PretrainPipeline().evaluate(stated, {"toy": bundle}, None)
    [swapped] = PretrainPipeline().evaluate(stated, {"toy": turned}, None)
    assert (same.metrics, same.notes) == (row.metrics, ())
    assert swapped.per_class.keys() == same.per_class.keys()
    assert swapped.metrics != same.metrics  # its first output is of class 'c'


def test_evaluate__images_that_the_model_has_seen_are_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", data, *SHORT, "policy=none") == 0
    command = ["evaluate", "--checkpoint", str(tmp_path / "run" / "model"), "--overwrite", "--out", str(tmp_path / "s")]
    for split, told in (("train", ["TRAINED ON: 18 of the 18 images"]), ("test", [])):
        assert main([*command, f"data.eval_split={split}"]) == 0
        [row] = json.loads((tmp_path / "s" / "evaluation.json").read_text())
        assert [note[:31] for note in row["notes"]] == told
        assert all(note in capsys.readouterr().out for note in row["notes"])


def test_evaluate__tells_the_notes_of_its_list_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "model")
    root = make_folders(tmp_path / "data")
    (root / "test" / "notes.txt").touch()
    pipeline = PretrainPipeline()
    told = []
    for _ in range(2):
        pipeline.evaluate(config(root), {"toy": bundle}, None)
        told.append(capsys.readouterr().out)
    assert "  files beside the class folders, not used: 1 (test/notes.txt)" in told[0]
    assert "not used" not in told[1]
    prepared = PretrainPipeline()
    assert "files beside the class folders, not used: 1 (test/notes.txt)" in prepared.prepare(config(root)).notes
    prepared.evaluate(config(root), {"toy": bundle}, None)
    assert "not used" not in capsys.readouterr().out
