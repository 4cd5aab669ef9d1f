# ruff: noqa: ANN401 (torch hands over whatever its operations take)
"""A device made of CPU tensors, ``made:0``, that is as strict as a GPU, for machines without one.

Its tensors wrap tensors of the CPU: the numbers of a step are those of the CPU, to the last bit where the same
operations run. An operation fails where devices meet that a GPU would refuse, ``numpy()`` fails, and what would make
the host wait for a GPU is counted::

    with made_device() as device:
        tensor = torch.ones(3, device=device.device)
        tensor.sum().item()
    assert device.waits == {"_local_scalar_dense": 1}
"""

import collections
import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self
from unittest import mock

import torch
import torch._dynamo
import torch.distributed.tensor  # both read torch.Generator when they are imported, which is another within the block
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "made"
DEVICE_INDEX = 0
_CPU = torch.device("cpu")
_OURS = f"{Path(__file__).resolve().parents[1]}/"
# Their sizes or values must be known to the host before it can go on.
_WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "equal", "is_nonzero", "nms", "histc",
}  # fmt: skip
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "convolution"}
_lock = threading.Lock()


class MadeTensor(torch.Tensor):
    """Tensor of the made device; ``held`` has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> Self:  # noqa: ANN001
        with torch.inference_mode(False):  # else a view of a parameter would be a tensor of inference
            made: Self = torch.Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=torch.device(NAME, DEVICE_INDEX),
            )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """One wait, as of a GPU; torch's own does not know subclasses."""
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = MadeTensor(self.held.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)  # type: ignore[assignment]
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A file holds the numbers; what is read from it is on the CPU."""
        return self.held.detach().__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"made({self.held})"


class MadeDevice:
    """The device while it exists.

    Attributes:
        device: ``made:0``.
        waits: How often the host waited, by operation.
        places: How often it waited, by operation and line of this package.
        uploads: Copies to the device for which the host waited.
        tf32: Whether each product of matrices, by name, was allowed TF32.
    """

    def __init__(self) -> None:
        self.device = torch.device(NAME, DEVICE_INDEX)
        self.waits: collections.Counter[str] = collections.Counter()
        self.places: collections.Counter[str] = collections.Counter()
        self.uploads: collections.Counter[str] = collections.Counter()
        self.tf32: collections.Counter[tuple[str, bool]] = collections.Counter()

    @property
    def total(self) -> int:
        """All waits."""
        return self.waits.total()

    def reset(self) -> None:
        """Count from zero."""
        for counter in (self.waits, self.places, self.uploads, self.tf32):
            counter.clear()

    def count(self, name: str) -> None:
        """Count a wait, with the line that caused it."""
        with _lock:
            self.waits[name] += 1
            self.places[f"{name} {_place()}"] += 1

    def count_upload(self) -> None:
        """Count a copy from the host that blocks."""
        with _lock:
            self.uploads[_place()] += 1


_now: list[MadeDevice] = []


@contextlib.contextmanager
def made_device() -> Iterator[MadeDevice]:
    """The made device within the block."""
    _register()
    device = MadeDevice()
    _now.append(device)
    generator, lifts = torch.Generator, torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # ``torch.tensor`` of numbers then copies them where the mode sees it
    # Draws are those of the CPU.
    factories: Any = _Factories
    with factories(), mock.patch.object(torch, "Generator", lambda device="cpu": generator()):
        try:
            yield device
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            _now.remove(device)


class _Backend(_DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _register() -> None:
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME, _Backend())


class _Factories(TorchDispatchMode):
    """Sees also operations without a tensor of the device: those that make one, or copy one to it."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = list(_tensors((args, tuple(kwargs.values()))))
    made = [each for each in given if isinstance(each, MadeTensor)]
    asked = kwargs.get("device", next((each for each in args if isinstance(each, torch.device)), None))
    is_result_made = bool(made) if asked is None else torch.device(asked).type == NAME
    if not made and not is_result_made:
        return func(*args, **kwargs)
    name = func.overloadpacket.__name__
    _refuse_mixed(name, given)
    _note(name, args, kwargs, given, is_result_made)
    held_args, held_kwargs = _held(args), {key: _held(value) for key, value in kwargs.items()}
    if kwargs.get("device") is not None:
        held_kwargs = {**held_kwargs, "device": _CPU, "pin_memory": None} if "pin_memory" in held_kwargs else {
            **held_kwargs, "device": _CPU
        }  # fmt: skip
    found = func(*held_args, **held_kwargs)
    if name == "copy_" and not isinstance(args[0], MadeTensor):
        return args[0]
    if not is_result_made:
        return found
    # What an operation returns may be what it was given, changed in place.
    known = {id(each.held): each for each in made}
    return _wrapped(found, known)


def _tensors(given: Any) -> Iterator[Tensor]:
    for each in given:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)


def _held(given: Any) -> Any:
    if isinstance(given, MadeTensor):
        return given.held
    if isinstance(given, torch.device):  # in inference mode ``to`` comes with its device as an argument in place
        return _CPU
    return type(given)(map(_held, given)) if type(given) in {list, tuple} else given


def _wrapped(found: Any, known: Mapping[int, MadeTensor]) -> Any:
    if isinstance(found, Tensor):
        return known[id(found)] if id(found) in known else MadeTensor(found)
    return type(found)(_wrapped(each, known) for each in found) if type(found) in {list, tuple} else found


def _refuse_mixed(name: str, given: Sequence[Tensor]) -> None:
    """Fail as CUDA does; a number on the CPU may meet any tensor, and copies and indices may cross."""
    if name in {"copy_", "_to_copy", "set_"}:
        return
    others = [each for each in given if not isinstance(each, MadeTensor) and each.device.type == "cpu" and each.ndim]
    if name in {"index", "index_put", "index_put_", "_index_put_impl_"}:
        others = [each for each in others if each is given[0]]  # indices on the CPU are copied
    if others and len(others) < len(given):
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device, found {NAME}:0 and cpu of shape "
            f"{tuple(others[0].shape)}"
        )


def _note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: Sequence[Tensor], is_made: bool) -> None:
    if not _now:
        return
    device = _now[-1]
    if name in _PRODUCTS:
        device.tf32[name, torch.backends.cuda.matmul.allow_tf32] += 1
    if name in _WAITING:
        device.count(name)
    elif name in {"index", "index_put", "index_put_", "_index_put_impl_"}:
        indices = list(_tensors(args[1]))
        is_number = name != "index" and args[2].numel() == 1  # which masks fill with
        if any(each.dtype in {torch.bool, torch.uint8} for each in indices) and not is_number:
            device.count(f"{name} by a mask")
        for _ in [each for each in indices if not isinstance(each, MadeTensor)]:
            device.count_upload()
    elif name == "repeat_interleave" and kwargs.get("output_size") is None:
        device.count(name)
    elif name == "_to_copy":
        _note_copy(device, args[0], is_made, kwargs.get("non_blocking", False))
    elif name == "copy_":
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        _note_copy(device, args[1], isinstance(args[0], MadeTensor), non_blocking)


def _note_copy(device: MadeDevice, source: Tensor, is_made: bool, non_blocking: bool) -> None:
    if isinstance(source, MadeTensor) and not is_made:
        device.count("copy to the CPU")
    elif is_made and not isinstance(source, MadeTensor) and not non_blocking:
        device.count_upload()


def _place() -> str:
    """The innermost line of this package that waits."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS) and file != __file__ and "site-packages" not in file:
            return f"{file.removeprefix(_OURS)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


_register()  # when tests are collected: autograd makes its threads at the first backward pass, for the devices of then
