"""Export of an inference module to an ONNX file or a torch.export archive.

The file is read back before it gets its name: its outputs are compared with those of the module on the example and,
where a dimension may vary, on other sizes. Its metadata hold the intended use, the source bundle and the class names.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vision_core.bundles.bundle import Tensors, deviation
from vision_core.bundles.card import WEIGHTS_FILE, Card
from vision_core.errors import CheckpointError
from vision_core.files import atomic_path
from vision_core.optional import require

Format = Literal["onnx", "torch"]
SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
_ALLOWED_DEVIATION = 1e-4
_ALLOWED_GOLDEN_DEVIATION = 1e-3  # the pair may have been made on another machine, as for verify
_LARGEST_BYTES = 2**31 - 2**20  # of a protocol buffer; more would need a second file beside the first
_NEEDED = "the export to ONNX needs it"


@dataclass(frozen=True, kw_only=True)
class Exportable:
    """Module for inference with the inputs and texts for its export.

    Attributes:
        module: In float32 on the CPU; it takes the inputs in their order and returns a tensor or a tuple of tensors.
        inputs: An example of each input by name; a dimension that varies is at least 2 in it.
        outputs: Names of the outputs.
        dynamic: Dimensions that vary, by input or output: index and name, the same name for equal sizes. Those of
            outputs are needed only where ``is_traced``.
        others: Further inputs on which outputs are compared.
        golden: Inputs as the bundle prepares them from its golden input, and the outputs that the bundle itself gives
            for it; the file's are compared with these too.
        is_traced: Whether sizes of outputs depend on values, as with the boxes of a detector: such a module is traced
            to ONNX with all inputs at fixed sizes, and cannot go to torch.export.
        card: Card of the source bundle.
        preprocessing: Preprocessing that a user of the file has to do, in words.
        facts: Further entries of the metadata, for programs.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    others: tuple[Mapping[str, Tensor], ...] = ()
    golden: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None
    is_traced: bool = False
    card: Card
    preprocessing: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Record of an exported file.

    Attributes:
        path: The file.
        shapes: Shape of each input, with the names of the dimensions that vary.
        compared: Shapes of the inputs on which outputs of file and module were compared.
        deviation: Largest deviation, relative to the largest magnitude of an output.
        golden_deviation: That from the bundle's own outputs for its golden input; None where there is none.
    """

    path: Path
    shapes: Mapping[str, tuple[int | str, ...]]
    compared: tuple[tuple[tuple[int, ...], ...], ...]
    deviation: float
    golden_deviation: float | None = None


def export(given: Exportable, kind: Format, path: Path) -> Exported:
    """Export a module to a file atomically and compare the outputs of both.

    Raises:
        CheckpointError: The module cannot be expressed in the format, or outputs of file and module differ.
        MissingDependencyError: ONNX is not installed.
        EnvironmentFault: As for ``atomic_path``.
    """
    given.module.eval().requires_grad_(False)
    with atomic_path(path) as partial:
        answer = (_write_onnx if kind == "onnx" else _write_torch)(given, partial)
        examples = list(_sizes(given))
        worst = max(_deviation(given, example, answer) for example in examples)
        golden = _golden_deviation(given, answer) if given.golden else None
    return Exported(
        path=path,
        shapes={name: _shape(given, name) for name in given.inputs},
        compared=tuple(tuple(tuple(each.shape) for each in example.values()) for example in examples),
        deviation=worst,
        golden_deviation=golden,
    )


def metadata(given: Exportable) -> dict[str, str]:
    """Return the metadata of the exported file."""
    card = given.card
    return {
        "intended_use": card.intended_use,
        "limits": card.limits,
        "task": card.task,
        "method": card.method,
        "model": card.identity(),
        "weights_sha256": card.hashes.get(WEIGHTS_FILE, ""),
        "classes": json.dumps(card.classes),
        "preprocessing": given.preprocessing,
        "trained_on": card.trained_on.description,
        "licence": card.licence,
        "made_with": f"torch {torch.__version__}",
    } | dict(given.facts)


def _write_torch(given: Exportable, path: Path) -> "Answer":
    if given.is_traced:
        raise _impossible(given, "torch", ValueError("the size of its output depends on the values of its input."))
    program = _program(given, "torch")
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(metadata(given))})
    module = torch.export.load(path).module()
    return lambda inputs: _named(given, module(*inputs.values()))


def _write_onnx(given: Exportable, path: Path) -> "Answer":
    onnx = require("onnx", why=_NEEDED)
    runtime = require("onnxruntime", why="the exported file is compared with the module")
    model = _by_example(given, path) if given.is_traced else _by_program(given)
    onnx.helper.set_model_props(model, metadata(given))
    model.doc_string = given.card.intended_use
    if model.ByteSize() > _LARGEST_BYTES:
        raise CheckpointError(
            f"{given.card.identity()}: the model takes {model.ByteSize():,} bytes, an ONNX file holds at most 2 GB. "
            "Use --format torch."
        )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(inputs: Tensors) -> Tensors:
        found = session.run(list(given.outputs), {name: each.numpy() for name, each in inputs.items()})
        return {name: torch.from_numpy(each) for name, each in zip(given.outputs, found, strict=True)}

    return answer


def _program(given: Exportable, kind: Format) -> ExportedProgram:
    dims = {name: Dim(name, min=1) for entry in given.inputs for name in given.dynamic.get(entry, {}).values()}
    shapes = tuple(
        {axis: dims[name] for axis, name in given.dynamic.get(entry, {}).items()} or None for entry in given.inputs
    )
    try:
        with torch.no_grad(), _silence():
            return torch.export.export(given.module, tuple(given.inputs.values()), dynamic_shapes=shapes)
    # torch raises a dozen unrelated types for modules that it cannot express.
    except Exception as error:
        raise _impossible(given, kind, error) from error


def _by_program(given: Exportable) -> Any:  # noqa: ANN401 (onnx declares no type of a model)
    require("onnxscript", why=_NEEDED)
    program = _program(given, "onnx")
    _spell_out(program)
    try:
        with torch.no_grad(), _silence():
            converted = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=list(given.inputs), output_names=list(given.outputs)
            )
    except Exception as error:  # as above
        raise _impossible(given, "onnx", error) from error
    if converted is None:
        raise _impossible(given, "onnx", RuntimeError("torch gives no program"))
    model = converted.model_proto  # converted again at every access
    _name_dimensions(given, model)
    return model


def _by_example(given: Exportable, path: Path) -> Any:  # noqa: ANN401
    try:
        with torch.no_grad(), _silence():
            torch.onnx.export(
                given.module,
                tuple(given.inputs.values()),
                path,
                dynamo=False,
                input_names=list(given.inputs),
                output_names=list(given.outputs),
                dynamic_axes=given.dynamic,
            )
    except Exception as error:  # as above
        raise _impossible(given, "onnx", error) from error
    return require("onnx", why=_NEEDED).load(path)


def _spell_out(program: ExportedProgram) -> None:
    """Write out the dimensions of a maximum over all of them; the converter knows no other form."""
    largest = torch.ops.aten.amax.default
    for node in program.graph.nodes:
        if node.target is largest and len(node.args) == 1:
            node.args = (node.args[0], list(range(node.args[0].meta["val"].ndim)))


def _name_dimensions(given: Exportable, model: Any) -> None:  # noqa: ANN401 (onnx declares no type of it)
    """Replace torch's symbols by our names for the dimensions that vary."""
    graph = model.graph
    names = {
        each.type.tensor_type.shape.dim[axis].dim_param: name
        for each in graph.input
        for axis, name in given.dynamic.get(each.name, {}).items()
    }
    for each in (*graph.input, *graph.output, *graph.value_info):
        for dim in each.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


Answer = Callable[[Tensors], Tensors]


def _sizes(given: Exportable) -> Iterator[Tensors]:
    """Yield all examples, then the first with its varying dimensions at 1 and at a larger size."""
    yield dict(given.inputs)
    yield from (dict(each) for each in given.others)
    if given.dynamic.keys() & given.inputs.keys():
        for size in (lambda _: 1, lambda count: 2 * count + 3):
            yield {name: _resized(each, given.dynamic.get(name, {}), size) for name, each in given.inputs.items()}


def _resized(example: Tensor, dynamic: Mapping[int, str], size: Callable[[int], int]) -> Tensor:
    for axis in dynamic:
        count = example.shape[axis]
        order = torch.arange(size(count) - 1, -1, -1) % count  # backwards, so that it differs from the example
        example = example.index_select(axis, order)
    return example.contiguous()


def _deviation(given: Exportable, inputs: Tensors, answer: Answer) -> float:
    with torch.no_grad():
        expected = _named(given, given.module(*inputs.values()))
    found = deviation(answer(inputs), expected)
    if not found <= _ALLOWED_DEVIATION:
        sizes = ", ".join(str(tuple(each.shape)) for each in inputs.values())
        raise CheckpointError(
            f"{given.card.identity()}: outputs of the exported file and the model differ on an input of {sizes}: "
            f"relative deviation {found:.2g}, at most {_ALLOWED_DEVIATION:g} allowed. Nothing was written; "
            "try the other --format, and report this with the versions of torch and onnxruntime."
        )
    return found


def _golden_deviation(given: Exportable, answer: Answer) -> float:
    """Compare the file with the bundle's own way from its golden input to a result.

    Raises:
        CheckpointError: They differ.
    """
    assert given.golden is not None
    inputs, expected = given.golden
    found = deviation(answer(dict(inputs)), expected)
    if not found <= _ALLOWED_GOLDEN_DEVIATION:
        raise CheckpointError(
            f"{given.card.identity()}: for the golden input of the bundle the exported file gives another result than "
            f"the bundle: relative deviation {found:.2g}, at most {_ALLOWED_GOLDEN_DEVIATION:g} allowed. Nothing was "
            "written; check the bundle with the verb verify."
        )
    return found


def _named(given: Exportable, found: Tensor | tuple[Tensor, ...]) -> Tensors:
    tensors = (found,) if isinstance(found, Tensor) else found
    return dict(zip(given.outputs, tensors, strict=True))


def _shape(given: Exportable, name: str) -> tuple[int | str, ...]:
    dynamic = given.dynamic.get(name, {})
    return tuple(dynamic.get(axis, count) for axis, count in enumerate(given.inputs[name].shape))


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress logs, warnings and prints of the exporters; faults are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _impossible(given: Exportable, kind: Format, error: Exception) -> CheckpointError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = " ".join(line.strip() for line in str(cause).splitlines()[:2]) or type(cause).__name__
    other = "onnx" if kind == "torch" else "torch"
    return CheckpointError(
        f"{given.card.identity()} cannot be expressed in the format '{kind}': {reason[:300].rstrip('.')}. "
        f"Try --format {other}."
    )
