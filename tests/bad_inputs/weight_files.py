"""Ways to spoil a checkpoint of another program, and a bundle of ours."""

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.bad_inputs.bundles import change_card, change_tensors, trust
from tests.vision_core.toy_bundle import edit_card
from vision_core.bundles.card import Card

Spoil = Callable[[Path], object]
PROOF = Path(tempfile.gettempdir()) / "proof-that-code-ran"


class _Evil:
    """Touches a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (PROOF,)


# A file of weights.


def empty(path: Path) -> None:
    """No bytes."""
    path.write_bytes(b"")


def web_page(path: Path) -> None:
    """A login page that a download saved."""
    path.write_bytes(b"<!doctype html><p>Too many requests")


def pointer(path: Path) -> None:
    """A Git LFS pointer."""
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 6200000\n")


def half(path: Path) -> None:
    """A download that broke off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped_bit(path: Path) -> None:
    """One wrong bit, which the zip's own sums show."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def code(path: Path) -> None:
    """A pickle that runs code."""
    torch.save({"model": _Evil()}, path)


def counters(path: Path) -> None:
    """Numbers of a training, without weights."""
    torch.save({"epoch": 3, "best": 0.9}, path)


def other_network(path: Path) -> None:
    """Weights of a language model."""
    names = ("encoder.layer.0.attention.query", "encoder.layer.0.attention.key", "pooler.dense")
    torch.save({f"{name}.weight": torch.ones(4, 4) for name in names}, path)


def not_a_number(path: Path) -> None:
    """A NaN in every tensor."""
    _changed(path, lambda tensor: tensor.index_fill(0, torch.tensor([0]), torch.nan))


def whole_numbers(path: Path) -> None:
    """Quantised weights without scales."""
    _changed(path, lambda tensor: (100 * tensor).to(torch.int8))


def overflowing(path: Path) -> None:
    """Finite numbers of a training that diverged."""
    _changed(path, lambda tensor: tensor * 1e30)


def _changed(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    tensors = content.get("model", content)
    changed = {
        name: change(tensor) if tensor.is_floating_point() and tensor.ndim else tensor
        for name, tensor in tensors.items()
    }
    torch.save({"model": changed} if "model" in content else changed, path)


# A bundle.


def broken_weights(bundle: Path) -> None:
    """One wrong bit in the weights."""
    flipped_bit(bundle / "weights.safetensors")


def without_weights(bundle: Path) -> None:
    """A bundle that was copied in part."""
    (bundle / "weights.safetensors").unlink()


def without_golden_pair(bundle: Path) -> None:
    """Weights and card alone."""
    (bundle / "golden.safetensors").unlink()


def without_card(bundle: Path) -> None:
    """Weights alone."""
    (bundle / "card.json").unlink()


def half_a_card(bundle: Path) -> None:
    """A card that breaks off."""
    half(bundle / "card.json")


def edited_card(bundle: Path) -> None:
    """Classes exchanged by hand."""
    edit_card(bundle, lambda card: card.update(classes=card["classes"][::-1]), sealed=False)


def newer_format(bundle: Path) -> None:
    """A bundle of a later version."""
    change_card(bundle, format=3)


def passed_off_as_format_1(bundle: Path) -> None:
    """An edited card without its seal, as format 1 had none."""
    edit_card(bundle, lambda card: card.update(format=1, sha256=None), sealed=False)


def one_class_less(bundle: Path) -> None:
    """A sealed card that does not fit the weights."""
    change_card(bundle, classes=Card.model_validate_json((bundle / "card.json").read_text()).classes[:-1])


def not_a_number_inside(bundle: Path) -> None:
    """A NaN under a hash and a seal that fit."""
    from safetensors.torch import load_file

    tensors = load_file(bundle / "weights.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim)
    change_tensors(bundle, {name: torch.full_like(tensors[name], torch.nan)})


def pickle_inside(bundle: Path) -> None:
    """Code under the name of the weights."""
    (bundle / "weights.safetensors").write_bytes(pickle.dumps(_Evil()))
    trust(bundle)
