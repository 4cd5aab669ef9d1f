"""Schema of the sections that all tasks share. Pydantic only: reading a configuration imports no torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

Fraction = Annotated[FiniteFloat, Field(ge=0, le=1)]
_LARGEST = 2**31 - 1  # beyond it, products and sizes overflow in libraries, which then end in errors of their own
_SMALLEST = 1e-30  # what is nearer to 0 may be 0 in float32
PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
NonNegativeFloat = Annotated[FiniteFloat, Field(ge=0)]
# YAML 1.1 reads a bare `off` as false.
Precision = Annotated[Literal["off", "bf16", "fp16"], BeforeValidator(lambda value: "off" if value is False else value)]


def _or_auto(value: object) -> object:
    try:
        is_count = value != "auto" and not isinstance(value, bool) and 0 <= int(str(value)) <= _MOST_WORKERS
    except ValueError:
        is_count = False
    if not is_count and value != "auto":
        raise ValueError(f"should be auto, or a number from 0 to {_MOST_WORKERS}")
    return value if value == "auto" else int(str(value))


_MOST_WORKERS = 1024
Workers = Annotated[int | Literal["auto"], BeforeValidator(_or_auto)]


class Section(BaseModel):
    """Frozen section of a configuration; unknown keys are refused.

    A section that is given in part takes its other keys from the default of its field, not of its class: with
    ``optim: Optim = Optim(name="adam")``, ``optim.lr=1e-4`` leaves the optimizer Adam.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add defaults that depend on other keys; given keys win."""
        return keys

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_absurd(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 (of any field)
        """Refuse numbers that no setting has; a field's own bounds are narrower, and seeds have theirs."""
        if not str(info.field_name).endswith("seed"):
            for number in _numbers(value):
                if abs(number) > _LARGEST:
                    raise ValueError(f"should be between -{_LARGEST} and {_LARGEST}, found '{number:g}'")
                if 0 < abs(number) < _SMALLEST:
                    raise ValueError(f"should be 0, or at least {_SMALLEST:g} away from it, found '{number:g}'")
        return value

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, keys: Any) -> Any:  # noqa: ANN401 (whatever was given, not yet checked)
        if not isinstance(keys, Mapping):
            return keys
        keys = cls.conditional_defaults(keys)
        return {name: _over(cls.model_fields[name].default, value) if name in cls.model_fields else value
                for name, value in keys.items()}  # fmt: skip


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)


def _over(default: Any, given: Any) -> Any:  # noqa: ANN401
    """Complete a section given in part from the default of its field."""
    if not (isinstance(default, Section) and isinstance(given, Mapping)):
        return given
    return merged(default.model_dump(), given)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested keys; those of ``above`` win."""
    both = dict(below)
    for name, value in above.items():
        inner = both.get(name)
        both[name] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return both


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"should name each class once, found '{repeated}' more than once")
    return names


class Data(Section):
    """Settings of the data set; a task adds its formats."""

    root: Path | None = Field(None, description="Folder of the data set; empty: the demo data, made by the command.")
    split: str = Field("train", description="Name of the list to train on.")
    eval_split: str | None = Field(
        None,
        description="Labelled list to evaluate on. Adaptation never uses it; supervised training with train.eval_every "
        "keeps the best epoch on it, so report on another.",
    )
    classes: Annotated[tuple[str, ...], AfterValidator(_each_once)] = Field(
        (), description="Class names in the order of the model's logits."
    )
    about: str = Field("", description="A sentence on the data for the card; empty: its list and folder.")
    licence: str | None = Field(None, description="Licence of the data, for the card.")
    synthetic: bool = Field(False, description="Made images only; the card and the apps then say so.")


class Source(Section):
    """Settings of the model that a run starts from."""

    run: str | None = Field(
        None, description="Name of an earlier run of the same command to start from; methods of several stages set it."
    )

    weights: Path | None = Field(
        None, description="Bundle to start from (import-weights makes one); empty: the one shipped with the demo."
    )
    weights_key: str | None = Field(
        None,
        description="For a checkpoint with several sets of weights: the one to take, such as model; empty: the average "
        "(ema, teacher) where there is one.",
    )
    config: Path | None = Field(
        None,
        description="For import-weights: the checkpoint's detectron2 config.yaml, when not beside the file; of "
        "torchvision, a YAML of its model's arguments, where they are not the defaults.",
    )


class Train(Section):
    """Settings of the training loop."""

    epochs: int = Field(10, ge=1, le=1_000_000, description="Passes over the training list.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps, even in mid-epoch.")
    batch_size: int = Field(1, ge=1, description="Items per step and process.")
    drop_last: bool = Field(False, description="Leave out the last step of an epoch when it has fewer items.")
    accumulate: int = Field(1, ge=1, description="Steps whose gradients are added up before the optimizer moves.")
    seed: int = Field(0, ge=0, lt=2**63, description="All randomness follows from it.")
    workers: Workers = Field(
        "auto",
        description="Loader processes; 0 reads in the training process. auto: 0 on a CPU, up to 8 for a GPU.",
    )
    save_every: int = Field(200, ge=1, description="Steps between two checkpoints.")
    keep_teachers: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Keep so many states of what the run would deliver (an adaptation: its teachers), evenly spaced, "
        "the last one at the end, in fp16; empty: none.",
    )
    eval_every: int = Field(
        0, ge=0, description="Epochs between two evaluations on data.eval_split; 0 evaluates at the end only."
    )
    patience: int = Field(
        0,
        ge=0,
        description="Evaluations in a row below the best before after which supervised training stops; 0 never stops.",
    )
    patience_from: int = Field(0, ge=0, description="Number, from 0, of the last evaluation that is made in any case.")
    log_every: int = Field(20, ge=1, description="Steps between two lines of metrics.")
    on_bad_loss: Literal["stop", "skip"] = Field(
        "stop",
        description="A loss that is not finite. stop: the run ends, and names the items. skip: the step moves nothing "
        "and is counted; ten in a row end the run.",
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    precision: Precision = Field("off", description="Automatic mixed precision.")
    compile: bool = Field(False, description="Compile the learner with torch.compile.")
    deterministic: bool = Field(
        False, description="Give the same bits in each run on a GPU too, slower; on a CPU they always are."
    )
    storage: Literal["fp32", "fp16"] = Field("fp32", description="Precision in which the bundle stores weights.")
    tensorboard: bool = Field(False, description="Write TensorBoard events beside metrics.jsonl.")


class Optim(Section):
    """Settings of optimizer and learning rate."""

    name: Literal["sgd", "adam", "adamw"] = Field(
        "sgd", description="Optimizer. adam: weight decay is part of the gradient (L2); adamw: it is not."
    )
    lr: PositiveFloat = Field(1e-3, le=1000, description="Base learning rate.")
    momentum: Fraction = Field(0.9, description="Momentum of SGD.")
    weight_decay: NonNegativeFloat = Field(1e-4, le=1000, description="Weight decay.")
    decay_norms: bool = Field(False, description="Normalisation layers decay too, as in much published code.")
    schedule: Literal["constant", "cosine", "warmup_cosine", "warmup_multistep"] = Field(
        "constant", description="Learning rate over time."
    )
    schedule_by: Literal["step", "epoch"] = Field(
        "step",
        description="Unit of schedule, warm-up and milestones; epoch: the rate changes between epochs only.",
    )
    warmup_steps: int = Field(0, ge=0, description="Length of linear warm-up, for the schedules that have one.")
    warmup_start: Fraction = Field(1e-3, description="Share of the rate that warm-up begins with.")
    milestones: tuple[int, ...] = Field((), description="Where warmup_multistep divides the rate by ten.")
    lr_end: NonNegativeFloat = Field(0.0, le=1000, description="Where a cosine ends.")
    clip_norm: NonNegativeFloat = Field(0.0, description="Largest gradient norm; 0 leaves gradients as they are.")


class Teacher(Section):
    """Settings of the mean teacher, which makes pseudo labels."""

    keep_rate: Fraction = Field(0.75, description="Share of its weights that the teacher keeps at an update.")
    every: Literal["epoch", "step"] = Field("epoch", description="When the teacher is updated.")


class Config(Section):
    """Configuration of a task, which adds its own sections and defaults.

    Attributes:
        task: Name of the pipeline, set by its own class.
        at_inference: Prefixes of the keys that ``predict`` accepts; empty: the bundle's settings are used.
        predict_options: Options of ``predict`` that stand for a key: the key, and a line for ``--help``.
        by_name: Prefixes of those among them whose files are found by the names of the inputs.
        input_list: Key that takes a CSV given as ``predict --input``; empty: the task takes none.
        data_keys: Sets of keys of which one names a person's own data.
        demo_format: Value of ``data.format`` that the demo's own settings may give; empty: its default alone.
        own_data: Words of ``train`` for a person's own data, shown by ``--help`` and at the end of a run.
        own_source: Commands that make the BUNDLE that these start from: the words behind ``python -m
            pipelines.<task>``; empty where they start from none.
    """

    task: ClassVar[str]
    method: str = Field(description="Method of the task.")
    data: Data = Data()
    source: Source = Source()
    train: Train = Train()
    optim: Optim = Optim()

    at_inference: ClassVar[tuple[str, ...]] = ()
    predict_options: ClassVar[Mapping[str, tuple[str, str]]] = {}
    by_name: ClassVar[tuple[str, ...]] = ()
    input_list: ClassVar[str] = ""
    data_keys: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"data.root"}),)
    demo_format: ClassVar[str] = ""
    own_data: ClassVar[str] = ""
    own_source: ClassVar[tuple[str, ...]] = ()

    def has_data(self) -> bool:
        """Tell whether the settings name a person's own data; else the demo's are made."""
        given = {f"data.{name}" for name, value in self.data if value}
        return any(keys <= given for keys in self.data_keys)

    def expand(self) -> "dict[str, Config]":
        """List the runs of these settings by name: folds, or stages in order."""
        return {"": self}


ConfigT = TypeVar("ConfigT", bound=Config)
