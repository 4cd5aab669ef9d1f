import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vision_core.bundles.foreign_weights import read_state_dict, read_weights
from vision_core.errors import CheckpointError


class Touch:
    """Unpickling it would make a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.proof}'",)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_read__training_checkpoint_with_numpy_scalars(tmp_path: Path) -> None:
    content = {"model": {"a.weight": torch.ones(2)}, "optimizer": {"x": 1}, "best": np.float64(0.5), "iteration": 7}
    found = read_weights(saved(tmp_path / "a.pth", content))
    assert list(found.tensors) == ["a.weight"]
    assert found.author == ""
    assert found.notes == ()


def test_read__bare_state_dict_and_batch_counters(tmp_path: Path) -> None:
    content = {"a.weight": torch.ones(2), "a.num_batches_tracked": torch.tensor(3), "pixel_mean": torch.ones(3)}
    assert list(read_weights(saved(tmp_path / "a.pth", content)).tensors) == ["a.weight"]


def test_read__safetensors(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_weights(tmp_path / "a.safetensors").tensors["a"].tolist() == [1, 1]


def test_read__old_file_format(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert read_weights(tmp_path / "a.pth").tensors["a"].tolist() == [1, 1]


def test_read__unknown_class_is_refused_with_the_command(tmp_path: Path) -> None:
    path = saved(tmp_path / "my a.pth", {"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)})
    with pytest.raises(
        CheckpointError, match=r"argparse.Namespace.*import-weights '.*' --out BUNDLE --i-trust-this-file"
    ):
        read_weights(path)


def test_read__unknown_class_of_a_trusted_file_is_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)})
    assert list(read_weights(path, trust=True).tensors) == ["a"]


@pytest.mark.parametrize("trust", [False, True])
def test_read__code_is_never_run(tmp_path: Path, trust: bool) -> None:
    """Row H1 of the bad inputs."""
    proof = tmp_path / "proof"
    path = saved(tmp_path / "evil.pth", {"model": {"a": torch.ones(2)}, "hook": Touch(proof)})
    with pytest.raises(CheckpointError, match="system"):
        read_weights(path, trust=trust)
    assert not proof.exists()


def test_read__pickle_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"conv1_w": np.ones(2)}))
    with pytest.raises(CheckpointError, match=r"it is a pickle.*--i-trust-this-file"):
        read_weights(path)
    found = read_weights(path, trust=True)
    assert list(found.tensors) == ["conv1_w"]
    assert found.author == "Caffe2"


def test_read__old_pickle_under_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Touch(tmp_path / "proof"), protocol=2))
    for trust in (False, True):
        with pytest.raises(CheckpointError, match=r"a pickle of objects .* save its state dict alone|Save its"):
            read_weights(tmp_path / "a.pth", trust=trust)
    assert not (tmp_path / "proof").exists()


def test_read__any_changed_byte_is_told_in_one_line(tmp_path: Path) -> None:
    """Torch raises a dozen types for damage; only ours may come out."""
    whole = saved(tmp_path / "a.pth", {"a": torch.ones(5), "b": 3.5}).read_bytes()
    draws = np.random.default_rng(0)
    told = 0
    for _ in range(300):
        data = bytearray(whole)
        data[draws.integers(len(data))] = draws.integers(256)
        (tmp_path / "b.pth").write_bytes(data)
        try:
            read_weights(tmp_path / "b.pth", trust=bool(draws.integers(2)))
        except CheckpointError as error:
            told += 1
            assert "\n" not in str(error)
    assert told > 50


def test_read__cut_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"a": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_weights(path)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_read__another_kind_of_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>sign in</html>")
    with pytest.raises(CheckpointError, match=name):
        read_weights(tmp_path / name)


def test_read__no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a file"):
        read_weights(tmp_path / "a.pth")


def test_read__no_tensors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_weights(saved(tmp_path / "a.pth", {"iteration": 3}))


def test_read_state_dict__does_not_choose_between_an_average_and_its_student(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": {"a": torch.ones(2)}, "ema": {"a": torch.zeros(2)}})
    with pytest.raises(CheckpointError, match=r"several sets of weights: 'model', 'ema'.*torch\.load\(FILE\)\['ema'\]"):
        read_state_dict(path, unsafe="")
    assert read_state_dict(path, unsafe="", preferred=("model",))["a"].tolist() == [1, 1]
