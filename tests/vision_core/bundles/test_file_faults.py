from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vision_core.bundles.file_faults import find_fault

TENSORS = {
    "a": torch.ones(200_000),
    "b": torch.ones(300, 400).half(),
    "c": torch.arange(7),
    "a_again": torch.ones(3),
}


def zipped(folder: Path) -> Path:
    torch.save({"model": TENSORS, "best": 0.5}, folder / "a.pth")
    return folder / "a.pth"


def test_fault__none_in_sound_files(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (zipped(tmp_path), tmp_path / "a.safetensors", tmp_path / "old.pth"):
        assert find_fault(path) is None


@pytest.mark.parametrize(
    "page", ["<!DOCTYPE html><title>Sign in", "\n  <html lang=en>", "\ufeff<html>", "<?xml version='1.0'?><Error>"]
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.pkl"])
def test_fault__web_page(tmp_path: Path, name: str, page: str) -> None:
    (tmp_path / name).write_text(page, encoding="utf-8")
    assert str(find_fault(tmp_path / name)).startswith("is a web page, not weights")


def test_fault__pointer_of_git_lfs(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 167502836\n"
    (tmp_path / "a.pth").write_text(pointer)
    assert find_fault(tmp_path / "a.pth") == (
        "is a Git LFS pointer, not the weights of '167.5 MB'. Fetch them with: git lfs pull."
    )


@pytest.mark.parametrize("share", [0.2, 0.5, 0.97])
def test_fault__half_a_zip_says_of_how_much(tmp_path: Path, share: float) -> None:
    path = zipped(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    there = f"{int(share * len(whole)) / 1e6:.1f}"
    assert find_fault(path) == f"breaks off: '{there}' of '1.0' MB are there. Download it again."


def test_fault__a_zip_without_its_end_alone(tmp_path: Path) -> None:
    path = zipped(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "the directory at the end of a zip is missing. Download it again." in str(find_fault(path))


@pytest.mark.parametrize("keep", [0.5, 100 / 1_040_000])
def test_fault__half_a_safetensors(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    assert str(find_fault(path)).startswith("breaks off: '0.")


def test_fault__one_flipped_bit(tmp_path: Path) -> None:
    path = zipped(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    told = "is damaged: record 'a/data/0' does not have the sum (CRC-32) that the file states. Download it again."
    assert find_fault(path) == told
