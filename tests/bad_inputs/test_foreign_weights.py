"""Checkpoints of other programs as ``import-weights`` meets them: the right weights, or the cause in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.wsi.__main__ import main as wsi
from tests.bad_inputs.seen import Seen
from tests.pipelines.sfod.tiny import make_foreign
from tests.pipelines.wsi.tiny import make_foreign as make_released
from tests.pipelines.wsi.tiny import picture, write_pyramid


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_foreign(tmp_path / "foreign")[0]


def _import(path: Path, *words: str) -> list[str]:
    return ["import-weights", str(path), "--out", "bundle", "data.classes=[disc,square]", *words]


def _tensors(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["model"]
    return found


def _taken(tensors: dict[str, Tensor]) -> bool:
    stored = load_file("bundle/weights.safetensors")
    return all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("model", "ema"),
        pytest.param("model", "model_ema", marks=pytest.mark.slow),
        pytest.param("state_dict", "state_dict_ema", marks=pytest.mark.slow),
    ],
)
def test_average_beside_the_student(seen: Seen, checkpoint: Path, student: str, teacher: str) -> None:
    averaged = _tensors(checkpoint)
    plain = {name: tensor / 2 for name, tensor in averaged.items()}
    below = {f"model.{name}": tensor for name, tensor in averaged.items()}
    torch.save({student: plain, teacher: below}, checkpoint)
    told = seen.done(_import(checkpoint))
    assert f"took '{teacher}' (the average) of the sets '{student}', '{teacher}'; source.weights_key=NAME takes" in told
    assert _taken(averaged)
    seen.done(_import(checkpoint, "--overwrite", f"source.weights_key={student}"))
    assert _taken(plain)
    seen.refused(_import(checkpoint, "--overwrite", "source.weights_key=best"), 2, "'best' names no set of weights")


@pytest.mark.parametrize("name", ["net", "model_state_dict", "ema"])
def test_weights_under_another_name(seen: Seen, checkpoint: Path, name: str) -> None:
    tensors = _tensors(checkpoint)
    torch.save({name: tensors}, checkpoint)
    seen.done(_import(checkpoint))
    assert _taken(tensors)


def test_page_pointer_half_and_bit(seen: Seen, checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    cases: list[tuple[bytes, str]] = [
        (b"<!doctype html><p>Too many requests", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 6200000\n", "is a Git LFS pointer"),
        (whole[: len(whole) // 2], f"'{len(whole) / 2e6:.1f}' of '"),
        (bytes(flipped), "does not have the sum (CRC-32) that the file states. Download it again."),
    ]
    for content, told in cases:
        checkpoint.write_bytes(content)
        seen.refused(_import(checkpoint), 2, told)
    assert not Path("bundle").exists()


def test_weights_of_nothing_but_zeros(seen: Seen, checkpoint: Path) -> None:
    torch.save({"model": {name: tensor * 0 for name, tensor in _tensors(checkpoint).items()}}, checkpoint)
    seen.refused(_import(checkpoint), 2, "matrices of weights are zero. It is unusable")


def test_quantised_weights_without_scales(seen: Seen, checkpoint: Path) -> None:
    whole = {name: (100 * tensor).to(torch.int8) for name, tensor in _tensors(checkpoint).items()}
    torch.save({"model": whole}, checkpoint)
    seen.refused(_import(checkpoint), 2, "hold 'int8' and no scales: quantised weights")


def test_what_changes_answers_is_refused_by_name(seen: Seen, checkpoint: Path) -> None:
    config = checkpoint.with_name("config.yaml")
    sound = config.read_text()
    config.write_text(sound.replace("USE_SIGMOID_CE: false", "USE_SIGMOID_CE: true"))
    seen.refused(_import(checkpoint), 2, "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE is 'True'", "Answers would differ")
    config.write_text(sound.replace("POOLER_TYPE: ROIAlignV2", "POOLER_TYPE: ROIAlign"))
    assert "MODEL.ROI_BOX_HEAD.POOLER_TYPE is 'ROIAlign' there, 'ROIAlignV2' here, built so" in seen.done(
        _import(checkpoint)
    )
    card = json.loads(Path("bundle/card.json").read_text())
    assert card["architecture"]["other_keys"] == [["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign"]]
    seen.done(["verify", "bundle"])


@pytest.fixture
def slides(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.chdir(tmp_path)
    return Seen(wsi, capsys)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return make_released(tmp_path / "foreign")[0]


def _import_released(path: Path, *words: str) -> list[str]:
    return ["import-weights", str(path), "--out", "bundle", "data.classes=[normal,tumour]", *words]


def test_bag_model__of_student_and_teacher_the_average(slides: Seen, released: Path) -> None:
    averaged: dict[str, Tensor] = torch.load(released, weights_only=True)
    plain = {name: tensor + 1 for name, tensor in averaged.items()}
    torch.save({"model": plain, "teacher": averaged}, released)
    told = slides.done(_import_released(released))
    assert "took 'teacher' (the average) of the sets 'model', 'teacher'; source.weights_key=NAME takes another" in told
    stored = load_file("bundle/weights.safetensors")["aggregator.classifier.bias"]
    assert torch.equal(stored, averaged["predictor.bias"])
    slides.done(_import_released(released, "--overwrite", "source.weights_key=model"))
    stored = load_file("bundle/weights.safetensors")["aggregator.classifier.bias"]
    assert torch.equal(stored, plain["predictor.bias"])
    slides.refused(_import_released(released, "--overwrite", "source.weights_key=best"), 2, "'best' names no set")


def test_bag_model__true_causes(slides: Seen, released: Path) -> None:
    whole = released.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    cases = [
        (b"<html><body>Sign in", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 6200000\n", "is a Git LFS pointer"),
        (whole[: len(whole) // 2], "breaks off"),
        (bytes(flipped), "Download it again."),
    ]
    for content, told in cases:
        released.write_bytes(content)
        slides.refused(_import_released(released), 2, told)
    assert not Path("bundle").exists()


def test_bag_model__another_baseline_and_another_number_of_classes(slides: Seen, released: Path) -> None:
    slides.refused(
        _import_released(released, "model.name=dsmil"), 2, "holds a network of abmil, model.name is dsmil. Give weights"
    )
    words = ["import-weights", str(released), "--out", "bundle", "data.classes=[a,b,c]"]
    slides.refused(words, 2, "tells 2 classes apart, data.classes lists 3")


def test_bag_model__encoder_is_recorded_where_it_is_stated(slides: Seen, released: Path, tmp_path: Path) -> None:
    """Slides are read as the card says, or refused: without an encoder on it nobody knows."""
    slides.refused(
        _import_released(released, "encoder.input_px=64"), 2, "makes 1280 features a tile, the weights take 6"
    )
    wide: dict[str, Tensor] = torch.load(released, weights_only=True)
    wide["patch_to_emb.0.weight"] = torch.zeros(8, 1280)
    torch.save(wide, released)
    slide = write_pyramid(tmp_path / "x.tif", picture(1))
    predict = ["predict", "--checkpoint", "bundle", "--input", str(slide), "--out"]
    slides.done(_import_released(released))
    _, told = slides.ended([*predict, "a"], 2)
    assert "does not say which encoder made the features that it was trained on" in told
    slides.done(_import_released(released, "--overwrite", "encoder.input_px=64", "tiles.tile_px=64"))
    made = json.loads(Path("bundle/card.json").read_text())["preprocessing"]
    assert (made["encoder"]["name"], made["encoder"]["input_px"], made["tile_px"]) == ("lite0", 64, 64)
    slides.done([*predict, "b"])
