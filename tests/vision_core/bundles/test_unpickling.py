import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from vision_core.bundles.unpickling import read_pickled_arrays
from vision_core.errors import CheckpointError


class Touch:
    """Unpickling it would make a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.proof}'",)


def write(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_read__model_zoo_layout(tmp_path: Path, protocol: int) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = {"model": OrderedDict(weight=array, step=np.float64(1.0)), "__author__": "Detectron2 Model Zoo"}
    arrays, author = read_pickled_arrays(write(tmp_path / "a.pkl", content, protocol))
    assert list(arrays) == ["weight"]
    np.testing.assert_array_equal(arrays["weight"], array)
    assert author == "Detectron2 Model Zoo"


def test_read__caffe2_layout_without_momenta(tmp_path: Path) -> None:
    content = {"blobs": {"conv1_w": np.ones(2), "conv1_w_momentum": np.ones(2), "lr": 0.1}}
    arrays, author = read_pickled_arrays(write(tmp_path / "a.pkl", content))
    assert list(arrays) == ["conv1_w"]
    assert author == ""


def test_read__code_is_refused_and_not_run(tmp_path: Path) -> None:
    """Row H1 of the bad inputs, although the user has said to trust the file."""
    proof = tmp_path / "proof"
    path = write(tmp_path / "evil.pkl", {"model": {"a": np.ones(2)}, "hook": Touch(proof)})
    with pytest.raises(CheckpointError, match=r"asks for 'posix\.system'"):
        read_pickled_arrays(path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"<html>sign in</html>", b"\x80\x02}q\x00(X"])
def test_read__damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no readable pickle"):
        read_pickled_arrays(path)


def test_read__no_dictionary(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a list, not a dictionary"):
        read_pickled_arrays(write(tmp_path / "a.pkl", [1, 2]))


def test_read__two_sets_of_weights_are_refused(tmp_path: Path) -> None:
    both = {"model": {"a": np.ones(2)}, "ema": {"a": np.zeros(2)}, "optimizer": {"state": {0: {"m": np.ones(2)}}}}
    with pytest.raises(CheckpointError, match=r"another set, 'ema'\. Pickle the one you want alone\."):
        read_pickled_arrays(write(tmp_path / "a.pkl", both))
    del both["ema"]
    assert read_pickled_arrays(write(tmp_path / "a.pkl", both))[0]["a"].tolist() == [1, 1]
