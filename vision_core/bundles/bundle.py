"""Bundles: trained models on disk, each a folder or its zip, without pickles.

A bundle holds ``weights.safetensors`` (stored as fp16 or fp32, computed in fp32), ``card.json`` (``Card``, under a
seal), and ``golden.safetensors``: one small input as a person gives it (bytes of pixels, or features of tiles) with the
raw output of the stored weights, by which another machine verifies that it computes the same.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from vision_core.bundles.archives import extract_zip
from vision_core.bundles.card import CARD_FILE, FORMAT, GOLDEN_FILE, SEAL, UNSEALED_FORMAT, WEIGHTS_FILE, Card, seal
from vision_core.console import say
from vision_core.errors import CheckpointError, NotFiniteError, one_line
from vision_core.files import RepeatedKeyError, flush, parse_json, sha256, write_atomic

GOLDEN_FINE, GOLDEN_REFUSED = 1e-3, 1e-2
_FORMAT_KEY = "bundle_format"  # in the header of the golden pair, which the card's hashes cover
_AGAIN = "Fetch the bundle again."

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Bundle in memory, after the checks of ``load``.

    Attributes:
        card: Its card.
        tensors: The weights in fp32; integers keep their type.
        golden: ``input.*`` and ``output.*`` tensors.
    """

    card: Card
    tensors: Tensors
    golden: Tensors

    def inputs(self) -> Tensors:
        """Return the golden input by name."""
        return _under("input.", self.golden)

    def outputs(self) -> Tensors:
        """Return the golden output by name."""
        return _under("output.", self.golden)


def save(folder: Path, tensors: Mapping[str, Tensor], card: Card, golden: "Golden") -> Card:
    """Write a bundle atomically.

    Args:
        folder: The bundle; an older one is replaced.
        tensors: The weights.
        card: Its ``storage`` decides the cast; format, hashes and seal are filled in here.
        golden: One input, and the function that computes its output with given weights.

    Returns:
        The card with hashes and seal.

    Raises:
        CheckpointError: The folder holds files of no bundle; or NaN or infinity in the weights.
        NotFiniteError: Sound weights whose golden output is NaN or infinite.
        EnvironmentFault: The disk is full or cannot be written.
    """
    folder = folder.absolute()
    _refuse_other_content(folder)
    stored = {name: _stored(tensor, card.storage) for name, tensor in tensors.items()}
    check_finite(stored, str(folder))
    outputs = golden.answer(_computed(stored), golden.inputs)
    if not all(output.isfinite().all() for output in outputs.values()):
        raise NotFiniteError("on the golden input")
    pair = _prefixed("input.", golden.inputs) | _prefixed("output.", outputs)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_atomic(beside / WEIGHTS_FILE, safetensors.save(stored))
        write_atomic(beside / GOLDEN_FILE, safetensors.save(pair, {_FORMAT_KEY: str(FORMAT)}))
        hashes = {name: sha256(beside / name) for name in (WEIGHTS_FILE, GOLDEN_FILE)}
        card = card.model_copy(update={"format": FORMAT, "hashes": hashes}).sealed()
        write_atomic(beside / CARD_FILE, card.to_json())
        beside.chmod(0o755)
        _swap(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return card


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Small input and the function ``answer(weights, inputs)`` that computes its raw output."""

    inputs: Tensors
    answer: Callable[[Tensors, Tensors], Tensors]


def read_card(path: Path, task: str | None = None) -> Card:
    """Read the card of a bundle alone; arguments as for ``load``.

    Raises:
        CheckpointError: Not a bundle, or a card that this version cannot read, or of another task.
    """
    with _opened(path) as folder:
        return _card(folder, path, task)


def add_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write scores of the weights into the card of a bundle, and seal it anew."""
    amend(folder, metrics={**read_card(folder).metrics, **metrics})


def amend(folder: Path, **fields: Any) -> None:  # noqa: ANN401 (fields of the card)
    """Replace fields of the card of a bundle, and seal it anew; a card of format 1 stays unsealed."""
    card = read_card(folder).model_copy(update=fields).sealed()
    write_atomic(folder / CARD_FILE, card.to_json())


def load(path: Path, task: str | None = None) -> Bundle:
    """Read a bundle and check its schema, hashes and numbers.

    Args:
        path: The bundle, a folder or its zip.
        task: Accept bundles of this pipeline alone.

    Raises:
        CheckpointError: Not a bundle, damaged, of another task, or with NaN in its weights.
    """
    with _opened(path) as folder:
        card = _card(folder, path, task)
        problems = _damages(folder, card)
        if problems:
            raise CheckpointError([f"'{path}': {problem} {_AGAIN}" for problem in problems])
        tensors = _computed(_tensors(folder / WEIGHTS_FILE))
        golden = _tensors(folder / GOLDEN_FILE)
    check_finite(tensors, str(path))
    bundle = Bundle(card=card, tensors=tensors, golden=golden)
    if not (bundle.inputs() and bundle.outputs()):
        raise CheckpointError(f"'{path}': {GOLDEN_FILE} has no input or no output. Fetch the bundle again.")
    return bundle


def check_finite(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights with NaN or infinity, or with nothing but zeros.

    Args:
        tensors: The weights.
        origin: Their file, for the message.

    Raises:
        CheckpointError: Says in how many tensors, and names the first.
    """
    matrices = [tensor for tensor in tensors.values() if tensor.is_floating_point() and tensor.ndim > 1]
    if matrices and not any(tensor.any() for tensor in matrices):
        raise CheckpointError(f"{origin}: all {len(matrices)} matrices of weights are zero. It is unusable.")
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{origin}: NaN or infinity in {len(bad)} tensors, first '{bad[0]}'. It is unusable.")


def check_numbers(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that are whole numbers: quantised ones without their scales.

    Args:
        tensors: The weights, without counters.
        origin: Their file, for the message.

    Raises:
        CheckpointError: Says in how many tensors, and names the first.
    """
    whole = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if whole:
        kind = str(tensors[whole[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{origin}: {len(whole)} tensors, first '{whole[0]}', hold '{kind}' and no scales: quantised weights. Give "
            "the checkpoint from before quantisation (float32 or float16)."
        )


def deviation(outputs: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Compute the largest deviation over all tensors, each relative to its own largest magnitude.

    Infinity when a tensor is missing, has another shape, or is not finite on either side.
    """
    worst = 0.0
    for name, target in expected.items():
        found = outputs.get(name)
        if found is None or found.shape != target.shape or not (found.isfinite().all() and target.isfinite().all()):
            return float("inf")
        if target.numel():
            scale = target.abs().max().clamp(min=1e-12)
            worst = max(worst, float((found.cpu() - target).abs().max() / scale))
    return worst


def check_golden(bundle: Bundle, answer: Callable[[Tensors], Tensors]) -> float:
    """Recompute the golden output and return its deviation.

    Raises:
        NotFiniteError: It is NaN or infinite: the weights have diverged, or are damaged.
        CheckpointError: It differs by more than 1e-2.
    """
    outputs = answer(bundle.inputs())
    if not all(output.isfinite().all() for output in outputs.values()):
        raise NotFiniteError("on the golden input")
    found = deviation(outputs, bundle.outputs())
    if not found <= GOLDEN_REFUSED:
        raise CheckpointError(
            f"This machine or these software versions compute another output for {bundle.card.identity()}: "
            f"relative deviation {found:.2g}, at most {GOLDEN_REFUSED:g} allowed. Made with {bundle.card.software}."
        )
    return found


def _refuse_other_content(folder: Path) -> None:
    """Refuse to write a bundle over anything but an older bundle or an empty folder."""
    if not folder.exists():
        return
    names = {item.name for item in folder.iterdir()} if folder.is_dir() else {folder.name}
    other = sorted(names - {WEIGHTS_FILE, CARD_FILE, GOLDEN_FILE})
    if other:
        raise CheckpointError(f"'{folder}' holds '{other[0]}' and is no bundle: nothing was replaced. Give a new one.")


@contextmanager
def _opened(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise CheckpointError(f"Bundle '{path}' does not exist.")
    if path.suffix.lower() != ".zip":
        raise CheckpointError(
            f"'{path}' is a file, not a bundle (a folder with {CARD_FILE}). "
            "For a foreign checkpoint use the verb import-weights first."
        )
    with tempfile.TemporaryDirectory(prefix="bundle-") as temporary:
        extract_zip(path, Path(temporary))
        inner = sorted(Path(temporary).rglob(CARD_FILE))
        if len(inner) > 1:
            raise CheckpointError(f"'{path}' holds {len(inner)} bundles. Unpack it and give one of them.")
        yield inner[0].parent if inner else Path(temporary)


def _card(folder: Path, path: Path, task: str | None = None) -> Card:
    card = _parsed_card(folder, path)
    if task:
        refuse_other_task(path, card, task)
    return card


def refuse_other_task(path: Path, card: Card, task: str) -> None:
    """Refuse a bundle of another pipeline.

    Raises:
        CheckpointError: It is one.
    """
    if card.task != task:
        raise CheckpointError(
            f"Bundle '{path}' is of pipeline '{card.task}', not '{task}'. "
            f"Give a bundle made by pipelines.{task} train, or use this one with python -m pipelines.{card.task}."
        )


def _parsed_card(folder: Path, path: Path) -> Card:
    try:
        content = parse_json((folder / CARD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        inside = ", ".join(sorted(item.name for item in folder.iterdir())[:5]) or "nothing"
        below = sorted(found.parent.name for found in folder.glob(f"*/{CARD_FILE}"))  # of a run
        near = f" Give '{path / ('model' if 'model' in below else below[0])}'." if below else ""
        raise CheckpointError(f"'{path}' has no {CARD_FILE} (found: {inside}); it is not a bundle.{near}") from error
    except RepeatedKeyError as error:
        raise CheckpointError(f"'{path}': {CARD_FILE} was changed after it was written: {error}. {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}': {CARD_FILE} is not JSON{_with_mark(error)}. {_AGAIN}") from error
    _check_format(content, path)
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "as a whole"
        raise CheckpointError(f"'{path}': {CARD_FILE}, {place}: {first['msg']}. {_AGAIN}") from error


def _with_mark(error: Exception) -> str:
    return " (it begins with a byte order mark, as some editors write)" if "BOM" in str(error) else ""


def _check_format(content: Any, path: Path) -> None:  # noqa: ANN401 (not yet checked)
    """Refuse a card of an unknown format, or one that was changed after it was sealed; tell of one without a seal.

    Raises:
        CheckpointError: As said.
    """
    found = content.get("format") if isinstance(content, dict) else None
    if type(found) is not int or not UNSEALED_FORMAT <= found <= FORMAT:
        raise CheckpointError(
            f"'{path}': {CARD_FILE} has format {found!r}, this version reads {UNSEALED_FORMAT} to {FORMAT}. "
            "Update domainsight."
        )
    stated = content.get(SEAL)
    if found == UNSEALED_FORMAT and not stated:
        _tell_unsealed(path)
    elif stated != (computed := seal(content)):
        told = f"says '{str(stated)[:12]}…'" if stated else "has none"
        raise CheckpointError(
            f"'{path}': {CARD_FILE} was changed after it was written: its content has {SEAL} '{computed[:12]}…', the "
            f"card {told}. {_AGAIN}"
        )
    elif found == UNSEALED_FORMAT:
        raise CheckpointError(
            f"'{path}': {CARD_FILE} has format {found}, which has no {SEAL}; it was changed. {_AGAIN}"
        )


_unsealed: set[Path] = set()  # bundles that were told of


def _tell_unsealed(path: Path) -> None:
    place = path.absolute()
    if place not in _unsealed:
        _unsealed.add(place)
        say(one_line(f"note: '{path}' is of format {UNSEALED_FORMAT}: its card has no seal, so edits cannot be seen."))


def _damages(folder: Path, card: Card) -> list[str]:
    if set(card.hashes) != {WEIGHTS_FILE, GOLDEN_FILE}:
        return [f"{CARD_FILE} lists hashes of {sorted(card.hashes)}, expected {[GOLDEN_FILE, WEIGHTS_FILE]}."]
    damaged = [text for name, digest in card.hashes.items() if (text := _damage(folder / name, digest))]
    if not damaged and (made := _golden_format(folder / GOLDEN_FILE)) and made != str(card.format):
        return [f"{CARD_FILE} has format {card.format}, {GOLDEN_FILE} is of format {made}: the card was changed."]
    return damaged


def _golden_format(path: Path) -> str:
    """Read the format that a golden pair was made for; empty for format 1, which did not say."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get(_FORMAT_KEY, ""))
    except (SafetensorError, OSError):
        return ""  # the damage is told when its tensors are read


def _damage(path: Path, digest: str) -> str:
    if not path.is_file():
        return f"{path.name} is missing."
    found = sha256(path)
    return "" if found == digest else f"{path.name} has sha256 {found[:12]}…, the card says {digest[:12]}…."


def _tensors(path: Path) -> Tensors:
    try:
        return safetensors.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} is damaged: {error}. Fetch the bundle again.") from error


def _stored(tensor: Tensor, storage: str) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor.clone()
    return tensor.to(torch.float16 if storage == "fp16" else torch.float32).clone()


def _computed(tensors: Tensors) -> Tensors:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _swap(beside: Path, folder: Path) -> None:
    flush(beside)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
