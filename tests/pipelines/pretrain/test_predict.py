"""One image in, scores out, with the masks of the run's policy; weights out and in again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.pretrain.__main__ import main
from pipelines.pretrain.data.preprocessing import centre_view, normalise
from pipelines.pretrain.data.reading import write_classes
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.predict import PolicyPredictor, PretrainPredictor, columns
from pipelines.pretrain.weights.bundles import describe_classifier, load_classifier, save_classifier
from tests.bad_inputs.dicom_values import windows
from tests.pipelines.pretrain.tiny import CLASSES, make_folders, train
from vision_core.backbones.networks import build_backbone
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import CheckpointError
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_image
from vision_core.results import NO_CLASS


def card(classes: tuple[str, ...]) -> Card:
    trained_on = TrainedOn(description="nothing", synthetic=True)
    return Card(task="pretrain", method="toy", config={}, architecture={}, preprocessing={}, classes=classes,
                trained_on=trained_on)  # fmt: skip


def write_bundle(folder: Path, classes: tuple[str, ...] = CLASSES, *, are_independent: bool = False) -> Path:
    torch.manual_seed(0)
    data = PretrainData(image_px=32, resize_px=36)
    described = describe_classifier(card(classes), "resnet10t", data, are_independent=are_independent)
    save_classifier(folder, build_backbone("resnet10t", len(classes)), described)
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    write_png(tmp_path / "image.png", pixels)
    return tmp_path / "image.png"


def test_predict__scores_are_those_of_the_training_view(image: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "model")
    result = PretrainPredictor.from_checkpoint(bundle)(image)
    view = torch.from_numpy(centre_view(read_image(image), 36, 32).transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        expected = load_classifier(bundle).network(normalise(view)).softmax(dim=1)[0]
    assert result.scores == pytest.approx(expected.numpy(), abs=1e-5)
    assert (result.classes, result.image_size) == (CLASSES, (50, 70))
    assert result.model.startswith("pretrain/toy/")


def test_predict__notes_on_a_file_stand_beside_its_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "in" / "deep.png")
    windows(tmp_path / "in")
    bundle = write_bundle(tmp_path / "model")
    command = ["predict", "--checkpoint", str(bundle), "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    told = {
        "deep": "The file uses 12 of its 16 bits or more a sample, and is read as such.",
        "windows": "The file has 2 windows; the first is used.",
    }
    table = (tmp_path / "out" / "results.csv").read_text()
    for name, note in told.items():
        assert json.loads((tmp_path / "out" / "outputs" / f"{name}.json").read_text())["notes"] == [note]
        assert note in table
        assert note.removeprefix("The file ") in caplog.text


def test_predict__independent_classes_do_not_share_their_scores(image: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "model", are_independent=True)
    result = PretrainPredictor.from_checkpoint(bundle)(image)
    assert result.are_independent
    assert result.scores.sum() != pytest.approx(1, abs=1e-3)


def test_columns__category_comes_first_and_scores_stand_beside_it(image: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "model", ("a", "b"), are_independent=True)
    predictor = PretrainPredictor.from_checkpoint(bundle)
    found = predictor(image)
    silent = replace(found, scores=np.array([0.2, 3e-9], np.float32), notes=("A remark.",), titles={"a": "cyst"})
    row = columns(silent)
    assert list(row) == ["category", "verdict", "notice", "best class", "best score", "p_a", "p_b", "model"]
    assert (row["category"], row["verdict"], row["notice"], row["p_b"]) == (NO_CLASS, NO_CLASS, "A remark.", 3e-9)
    both = columns(replace(silent, scores=np.array([0.9, 0.6], np.float32)))
    assert (both["category"], both["verdict"]) == ("a; b", "cyst; b")
    assert [path.name for path in predictor.write(found, image, tmp_path / "out")] == ["image.json", "image.jpg"]


def test_predict__a_backbone_without_classes_says_what_it_is_for(image: Path, tmp_path: Path) -> None:
    predictor = PretrainPredictor.from_checkpoint(write_bundle(tmp_path / "model", ()))
    with pytest.raises(CheckpointError, match="backbone without classes"):
        predictor(image)


def test_predict__the_policy_beside_draws_its_masks(tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data")
    assert train(tmp_path / "run", data, "train.max_steps=1", "train.eval_every=0", "data.eval_split=null") == 0
    inputs = data / "test" / "dark"
    command = ["predict", "--checkpoint", str(tmp_path / "run" / "model"), "--input", str(inputs)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "outputs" / "0.json").read_text())
    assert list(record["scores"]) and set(record["scores"]) == set(CLASSES)
    assert read_image(tmp_path / "out" / "outputs" / "0.masks.png").shape == (32, 4 * 32 + 3 * 4, 3)

    command = ["predict", "--checkpoint", str(tmp_path / "run" / "policy"), "--input", str(inputs)]
    assert main([*command, "--out", str(tmp_path / "masks")]) == 0
    assert sorted(path.name for path in (tmp_path / "masks" / "outputs").iterdir()) == [
        f"{number}.masks.png" for number in range(3)
    ]
    draw = PolicyPredictor.from_checkpoint(tmp_path / "run" / "policy")
    pixels = read_image(inputs / "0.png")
    assert np.array_equal(draw(pixels), draw(pixels))
    assert not np.array_equal(draw(pixels, seed=1), draw(pixels, seed=2))
    with pytest.raises(CheckpointError, match="holds no policy"):
        PolicyPredictor.from_checkpoint(tmp_path / "run" / "model")
    with pytest.raises(CheckpointError, match="holds a policy, no classifier"):
        load_classifier(tmp_path / "run" / "policy")


@pytest.mark.parametrize(
    ("style", "suffix"), [("torchvision", ".safetensors"), pytest.param("radimagenet", ".pth", marks=pytest.mark.slow)]
)
def test_export_weights__and_import_again(
    style: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    described = describe_classifier(card(CLASSES), "resnet18", PretrainData())
    save_classifier(tmp_path / "model", build_backbone("resnet18", len(CLASSES)), described)
    file = tmp_path / f"weights{suffix}"
    command = ["export-weights", "--checkpoint", str(tmp_path / "model"), "--out", str(file), "--style", style]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"key map: 'layer1' -> '{'backbone.4' if style == 'radimagenet' else 'layer1'}' (24 tensors)" in told
    assert main(command) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    listed = f"data.classes=[{','.join(CLASSES)}]"
    assert main(["import-weights", str(file), "--out", str(tmp_path / "again"), listed]) == 0
    before, after = (load_classifier(tmp_path / name) for name in ("model", "again"))
    assert after.card.classes == CLASSES
    for name, tensor in before.network.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(tensor, after.network.state_dict()[name])


@pytest.mark.parametrize("name", ["thesis.pth", "thesis.pth.json"])
@pytest.mark.parametrize("option", [[], ["--overwrite"]])
def test_export_weights__files_of_others_are_not_replaced(
    name: str, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = describe_classifier(card(CLASSES), "resnet18", PretrainData())
    save_classifier(tmp_path / "model", build_backbone("resnet18", len(CLASSES)), described)
    (tmp_path / name).write_text('{"mine": true}')
    command = ["export-weights", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "thesis.pth")]
    assert main([*command, *option]) == 2
    told = capsys.readouterr().err
    assert f"{name}' exists and is no export of this package, so it is not replaced" in told
    assert "--overwrite" not in told
    assert (tmp_path / name).read_text() == '{"mine": true}'


def test_export_weights__an_export_that_was_changed_since_is_not_replaced(tmp_path: Path) -> None:
    described = describe_classifier(card(CLASSES), "resnet18", PretrainData())
    save_classifier(tmp_path / "model", build_backbone("resnet18", len(CLASSES)), described)
    file = tmp_path / "a.pth"
    command = ["export-weights", "--checkpoint", str(tmp_path / "model"), "--out", str(file), "--overwrite"]
    assert main(command) == 0
    file.write_bytes(b"weights of another program")
    assert main(command) == 2
    assert file.read_bytes() == b"weights of another program"


def test_import_weights__norms_computed_anew_on_images_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = build_backbone("resnet18", 3).state_dict()
    tensors["bn1.running_var"][0] = 56296.0
    torch.save(tensors, tmp_path / "weights.pth")
    data = make_folders(tmp_path / "data")
    more = [f"data.root={data}", "data.image_px=32", "data.resize_px=36", "data.cache=null", "train.batch_size=6"]
    more += ["averaging.reestimate_norms=2", "policy=none"]
    assert main(["import-weights", str(tmp_path / "weights.pth"), "--out", str(tmp_path / "bundle"), *more]) == 0
    assert "warning: 'bn1.running_var' holds a running variance of 56,296" in capsys.readouterr().out
    assert load_classifier(tmp_path / "bundle").network.state_dict()["bn1.running_var"].max() < 1000


def test_import_weights__classes_of_a_list_and_of_both_places_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build_backbone("resnet18", 3).state_dict(), tmp_path / "weights.pth")
    write_classes(tmp_path / "classes.json", CLASSES)
    command = ["import-weights", str(tmp_path / "weights.pth")]
    listed = f"data.class_list={tmp_path / 'classes.json'}"
    assert main([*command, "--out", str(tmp_path / "bundle"), listed]) == 0
    assert load_classifier(tmp_path / "bundle").card.classes == CLASSES
    assert main([*command, "--out", str(tmp_path / "other"), listed, "data.classes=[a,b,c]"]) == 2
    assert "data.classes and data.class_list" in capsys.readouterr().err


@pytest.mark.slow
def test_export__one_file_whose_answers_were_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_bundle(tmp_path / "model")
    out = tmp_path / "model.pt2"
    assert main(["export", "--checkpoint", str(bundle), "--format", "torch", "--out", str(out)]) == 0
    assert "classes: bright, dark, striped" in capsys.readouterr().out
