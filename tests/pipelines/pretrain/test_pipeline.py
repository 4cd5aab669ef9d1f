"""All stages by one command, what each starts from and leaves, and the refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.pretrain.__main__ import main
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.pipeline import PretrainPipeline
from pipelines.pretrain.weights.bundles import load_classifier, load_policy
from tests.pipelines.pretrain.tiny import CLASSES, make_folders, train, weights, words
from tests.vision_core.feature_maps import feature_maps
from vision_core.backbones.bundles import load_backbone
from vision_core.backbones.networks import build_backbone, features
from vision_core.config.loading import load_runs
from vision_core.errors import CheckpointError, ConfigError, DataError

OTHER = ("coarse", "fine")
QUICK = ("train.epochs=1", "finetune.epochs=2", "transfer.epochs=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def stages(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A command of four runs."""
    other = make_folders(tmp_path_factory.mktemp("other"), OTHER)
    out = tmp_path_factory.mktemp("stages") / "out"
    moved = [f"transfer.data.{word}" for word in (f"root={other}", "image_px=32", "resize_px=36", "cache=null")]
    assert train(out, data, *QUICK, "then=[finetune,transfer]", *moved) == 0
    return out


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "weights.safetensors")


def card(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "model" / "card.json").read_text())
    return found


def test_stages__each_starts_from_the_one_before(stages: Path) -> None:
    runs = {name: card(stages / name) for name in ("pretrain", "finetune", "transfer-linear", "transfer-full")}
    assert sorted(path.parent.name for path in stages.glob("*/config.yaml")) == sorted(runs)
    assert runs["pretrain"]["parent"] is None
    assert runs["finetune"]["parent"] == runs["pretrain"]["hashes"]["weights.safetensors"]
    for name in ("transfer-linear", "transfer-full"):
        assert runs[name]["parent"] == runs["finetune"]["hashes"]["weights.safetensors"]
        assert runs[name]["classes"] == list(OTHER)
    assert [runs[name]["method"] for name in runs] == ["pretrain", "finetune", "transfer", "transfer"]


def test_stages__linear_probe_leaves_the_features_as_they_were(stages: Path) -> None:
    before, linear, full = (tensors(stages / name) for name in ("finetune", "transfer-linear", "transfer-full"))
    kept = [name for name in before if not name.startswith("fc.")]
    assert all(torch.equal(before[name], linear[name]) for name in kept)
    assert not torch.equal(before["conv1.0.weight"], full["conv1.0.weight"])
    assert linear["fc.weight"].shape == (len(OTHER), 512)


def test_stages__policy_and_masks_stay_with_the_first(stages: Path) -> None:
    assert (stages / "pretrain" / "policy" / "card.json").exists()
    assert len(list((stages / "pretrain" / "pictures").glob("masks-*.png"))) == 4
    assert not (stages / "finetune" / "policy").exists()
    assert (
        "after epochs 0, 1"
        in json.loads((stages / "pretrain" / "pictures" / "captions.json").read_text())["masks-0.png"]
    )
    assert main(["verify", str(stages / "pretrain" / "policy")]) == 0
    load_policy(stages / "pretrain" / "policy")


def test_stages__finetuning_is_scored_beside_what_it_starts_from(stages: Path) -> None:
    before, after = json.loads((stages / "finetune" / "evaluation.json").read_text())
    assert (before["model"], after["model"]) == ("source", "adapted")
    assert before["metrics"].keys() == after["metrics"].keys() >= {"mean_mask_accuracy", "random_mask_accuracy"}
    assert before["metrics"]["mean_mask_accuracy"] is not None
    assert after["metrics"]["mean_mask_accuracy"] is None


def test_stages__bundle_tells_backbone_classes_and_preprocessing(stages: Path) -> None:
    found = card(stages / "finetune")
    assert (found["task"], found["classes"]) == ("pretrain", list(CLASSES))
    assert found["architecture"]["backbone"] == "resnet10t"
    assert found["architecture"]["num_classes"] == len(CLASSES)
    told = found["preprocessing"]
    assert (told["mean"], told["std"], told["channel_order"]) == ([0.3162] * 3, [0.3213] * 3, "rgb")
    assert (told["input_px"], told["resize_px"], told["grey"]) == (32, 36, "repeat")
    assert found["trained_on"]["manifest"]
    assert tensors(stages / "finetune").keys() == build_backbone("resnet10t", len(CLASSES)).state_dict().keys()
    for name, classes in (("finetune", CLASSES), ("transfer-full", OTHER)):
        assert json.loads((stages / name / "classes.json").read_text()) == list(classes)


def test_stages__other_tasks_can_take_the_backbone(stages: Path) -> None:
    backbone = load_backbone(stages / "finetune" / "model")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = load_classifier(stages / "finetune" / "model").network
        network = backbone.build().eval()
        assert torch.equal(network(image), features(whole, image))
        assert list(feature_maps(network, image)) == [4, 8, 16, 32]


@pytest.mark.slow
def test_stages__resume_of_the_whole_command_changes_nothing(stages: Path) -> None:
    before = [weights(stages / name) for name in ("pretrain", "finetune", "transfer-full")]
    assert main(["train", "--out", str(stages), "--resume"]) == 0
    assert [weights(stages / name) for name in ("pretrain", "finetune", "transfer-full")] == before


def test_stages__entropy_and_the_three_accuracies_are_logged(stages: Path) -> None:
    lines = [json.loads(line) for line in (stages / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    learned = [line for line in lines if "loss_policy" in line]
    assert learned
    assert all("policy_entropy" in line for line in learned)
    [scored] = [line for line in lines if "eval/macro_f1" in line]
    assert {"eval/accuracy", "eval/mean_mask_accuracy", "eval/random_mask_accuracy"} <= scored.keys()


def config(data: Path, *more: str) -> PretrainConfig:
    return load_runs(PretrainConfig, None, words(data, *more))[""]


def test_prepare__other_classes_are_sent_to_transfer(stages: Path, tmp_path: Path) -> None:
    other = make_folders(tmp_path, OTHER)
    wanted = config(other, "method=finetune", f"source.weights={stages / 'pretrain' / 'model'}")
    with pytest.raises(CheckpointError, match=r"was trained on 3 classes, the data has 2 .* Use method=transfer"):
        PretrainPipeline().prepare(wanted)


def test_prepare__a_transfer_to_few_images_a_class_takes_the_same_whatever_it_starts_from(
    stages: Path, data: Path
) -> None:
    few = ["method=transfer", "transfer.per_class=2", "train.batch_size=3", "transfer.parts=[full]"]
    starts = [f"source.weights={stages / name / 'model'}" for name in ("pretrain", "finetune")]
    chosen = []
    for seed in (0, 1):
        for start in starts:
            items = PretrainPipeline().prepare(config(data, *few, start, f"train.seed={seed}")).items
            assert len(items) == 2 * len(CLASSES)
            chosen.append(items.names(range(len(items))))
    assert chosen[0] == chosen[1] != chosen[2] == chosen[3]


def test_prepare__a_later_stage_needs_a_start(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"method 'finetune' starts from .* source\.weights is empty"):
        PretrainPipeline().prepare(config(data, "method=finetune"))


@pytest.mark.parametrize(
    ("more", "is_refused"),
    [
        (["train.batch_size=17", "train.drop_last=false"], True),
        (["train.batch_size=16", "train.drop_last=false"], False),
        (["train.batch_size=17"], False),
        (["train.batch_size=17", "train.drop_last=false", "freeze_norms=true", "policy=released"], False),
        (["train.batch_size=17", "train.drop_last=false", "freeze_norms=true"], True),
    ],
)
def test_prepare__a_last_step_of_one_image(more: list[str], is_refused: bool, data: Path) -> None:
    wanted = config(data, *more)
    if not is_refused:
        PretrainPipeline().prepare(wanted)
        return
    with pytest.raises(ConfigError, match=r"last step of an epoch of 18 images would have '1' for a process"):
        PretrainPipeline().prepare(wanted)


def test_prepare__a_list_that_is_scored_at_the_end_is_looked_for_at_the_start(data: Path) -> None:
    with pytest.raises(DataError, match=r"'hidden' is the list of data\.eval_split\. Set that to another name"):
        PretrainPipeline().prepare(config(data, "data.eval_split=hidden"))


def test_prepare__same_seed_same_start_another_seed_another(data: Path) -> None:
    first, same, other = (
        PretrainPipeline().prepare(config(data, f"train.seed={seed}")).learner.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name].nan_to_num(), same[name].nan_to_num()) for name in first)
    assert not torch.equal(first["noise.bases.log_alpha"], other["noise.bases.log_alpha"])
    assert not torch.equal(first["classifier.conv1.0.weight"], other["classifier.conv1.0.weight"])


def test_deliver__baseline_is_the_mean_of_its_last_epochs(data: Path, tmp_path: Path) -> None:
    more = ("policy=none", "train.epochs=3", "train.eval_every=0", "data.eval_split=null")
    assert train(tmp_path / "mean", data, *more, "averaging.last_epochs=2") == 0
    assert train(tmp_path / "last", data, *more, "averaging.last_epochs=0") == 0
    assert train(tmp_path / "before", data, *more, "averaging.last_epochs=0", "train.max_steps=6") == 0
    mean, last, before = (tensors(tmp_path / name) for name in ("mean", "last", "before"))
    for name in ("conv1.0.weight", "bn1.running_var", "fc.bias"):
        torch.testing.assert_close(mean[name], (last[name] + before[name]) / 2)
    assert int(mean["bn1.num_batches_tracked"]) == 9


def test_deliver__norms_are_computed_anew_where_asked(data: Path, tmp_path: Path) -> None:
    more = ("policy=none", "train.epochs=1", "train.eval_every=0", "data.eval_split=null")
    assert train(tmp_path / "plain", data, *more) == 0
    assert train(tmp_path / "anew", data, *more, "averaging.reestimate_norms=2") == 0
    plain, anew = tensors(tmp_path / "plain"), tensors(tmp_path / "anew")
    assert torch.equal(plain["conv1.0.weight"], anew["conv1.0.weight"])
    assert not torch.allclose(plain["bn1.running_mean"], anew["bn1.running_mean"])
    assert "over 2 batches of 6 images" in json.loads((tmp_path / "anew" / "run.json").read_text())["notes"][-1]


@pytest.mark.slow
def test_deliver__a_mean_that_max_steps_cuts_short_is_told(data: Path, tmp_path: Path) -> None:
    more = ("policy=none", "train.eval_every=1", "data.val_split=null", "averaging.last_epochs=2", "train.epochs=3")
    for steps, told in ((7, "it delivers the mean of '1'"), (4, "the last weights, without a mean"), (9, "")):
        assert train(tmp_path / f"{steps}", data, *more, f"train.max_steps={steps}") == 0
        notes = json.loads((tmp_path / f"{steps}" / "run.json").read_text())["notes"]
        found = [note for note in notes if "averaging.last_epochs is '2', but the run was too short" in note]
        assert len(found) == bool(told)
        assert all(told in note for note in found)


def test_train__a_stopped_policy_is_told_of_and_none_is_delivered(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, short = tmp_path / "run", ("train.max_steps=1", "train.eval_every=0")
    assert train(out, data, *short) == 0
    assert (out / "policy").exists()
    assert train(out, data, *short, "alarm.lowest_entropy=-1e-3", "--overwrite") == 0
    assert not (out / "policy").exists()
    assert "ALARM: the policy was stopped at step 0: its entropy fell to" in capsys.readouterr().out
    assert "ALARM" in (out / "report.html").read_text()
    assert main(["verify", str(out / "model")]) == 0


def test_train__the_unlearned_control_is_scored_under_its_own_masks(data: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", data, "policy=unlearned", "train.max_steps=1", "train.eval_every=1") == 0
    [row] = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert 0 <= row["metrics"]["mean_mask_accuracy"] <= 1
    assert 0 <= row["metrics"]["random_mask_accuracy"] <= 1
    assert not (tmp_path / "run" / "policy").exists()


def test_train__images_with_several_labels(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{part}_images"] = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count)[:, None] + np.arange(3)) % 2
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "toymnist.npz", **arrays)
    more = ["data.format=medmnist", f"data.root={tmp_path / 'data' / 'toymnist.npz'}", "data.classes=[a,b,c]"]
    assert train(tmp_path / "run", tmp_path, *more, "mixing.mixup=0.2", "mixing.label_smoothing=0.1") == 0
    [row] = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert {"macro_f1", "accuracy", "roc_one_vs_rest"} <= row["metrics"].keys()
    assert set(row["per_class"]) == {"a.roc", "b.roc", "c.roc"}
    assert load_classifier(tmp_path / "run" / "model").are_independent


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("mask.kernel=12", "mask.kernel: should be odd, got 12"),
        ("mask.grid=33", "mask.grid '33' is finer than the image of 32 pixels"),
        ("mask.kernel=65", "mask.kernel '65' is too wide to reflect an image of 32 pixels"),
        ("mask.sigma=0", "mask.sigma: should be greater than 0"),
        ("mask.sigma=.nan", "mask.sigma: should be a finite number"),
        ("train.batch_size=1", "train.batch_size '1': batch normalisation needs at least 2 images"),
        ("policy=learned", "policy: "),
        ("policy_input=100", "policy_input: "),
    ],
)
def test_train__impossible_settings_are_refused_before_anything(
    word: str, told: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", data, word) == 2
    error = capsys.readouterr().err
    assert error.startswith("error[CONFIG]") and told in error
    assert not (tmp_path / "run").exists()
