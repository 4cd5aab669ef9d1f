"""Settings of noise-mask pretraining; the defaults are the released recipe at 224 pixels. Imports no torch."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from pipelines.pretrain.data_settings import StageData
from vision_core.backbones.settings import BackboneName
from vision_core.config.loading import replace
from vision_core.config.schema import Config, Fraction, NonNegativeFloat, Optim, PositiveFloat, Section, Train, merged
from vision_core.errors import ConfigError

_PolicyMode = Literal["released", "reinforce", "unlearned", "none"]
_PolicyInput = Literal[224, 112]
_Part = Literal["linear", "full"]
_PUBLISHED_OPTIM = Optim(lr=0.1, decay_norms=True, schedule_by="epoch")
POLICY_OPTIM = _PUBLISHED_OPTIM.model_copy(update={"lr": 0.01, "schedule": "cosine"})
_WITHOUT_BATCH_NORMS = frozenset({"convnext_tiny", "vit_small"})


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("should be odd")
    return value


class Mask(Section):
    """Noise mask: its grid of cells and its blur."""

    grid: int = Field(64, ge=1, description="Cells along a side of the mask.")
    kernel: Annotated[int, AfterValidator(_odd)] = Field(13, ge=1, description="Side of the blur, in pixels; odd.")
    sigma: PositiveFloat = Field(6.0, description="Standard deviation of the blur, in pixels.")
    unlearned_concentration: PositiveFloat = Field(
        1.6, description="Both Beta concentrations of every cell where the policy is unlearned."
    )


class Bases(Section):
    """Running bases of the policy: moving averages of its outputs."""

    share: Fraction = Field(
        0.9, description="Share of the running bases in a concentration; the rest is the network's output."
    )
    keep_rate: Fraction = Field(0.99, description="Share of themselves that the running bases keep at a step.")


class Released(Section):
    """Objective of the released implementation."""

    scale_classifier: bool = Field(
        True,
        description="Scale the classifier's gradient by the mask's density, about 8.5 times at grid 64, as released. "
        "False is the control.",
    )


class Reinforce(Section):
    """Score-function estimator (ours), with a reward for each image."""

    baseline: Literal["none", "batch_mean", "leave_one_out", "ema"] = Field(
        "leave_one_out", description="Baseline that is subtracted from the reward of an image."
    )
    baseline_keep_rate: Fraction = Field(0.9, description="Share of itself that the ema baseline keeps at a step.")
    normalise: bool = Field(False, description="Divide the advantages by their standard deviation.")
    per_cell: bool = Field(
        True,
        description="Average the log-densities over the cells, not sum them: the same scale at every grid.",
    )
    entropy_weight: NonNegativeFloat = Field(0.0, description="Weight of the entropy bonus.")


class Mixing(Section):
    """Mixing of pairs of training images; off in the published recipe."""

    mixup: NonNegativeFloat = Field(0.0, description="Beta parameter of mixup's mixing share; 0 is off.")
    cutmix: NonNegativeFloat = Field(0.0, description="Beta parameter of cutmix's mixing share; 0 is off.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Probability taken from the label and spread over all classes."
    )


class Alarm(Section):
    """Bounds beyond which the policy is stopped; the classifier then trains under the unlearned mask."""

    lowest_entropy: FiniteFloat = Field(
        -2.0, description="Smallest mean entropy of the cells; below it the masks hardly vary."
    )
    highest_entropy: FiniteFloat = Field(
        -1e-6,
        le=0,
        description="Largest mean entropy of the cells, at most 0; above it the masks are uniform noise.",
    )

    @model_validator(mode="after")
    def _check_order(self) -> "Alarm":
        if self.lowest_entropy >= self.highest_entropy:
            raise ValueError(
                f"lowest_entropy should be below highest_entropy '{self.highest_entropy:g}', "
                f"got '{self.lowest_entropy:g}'"
            )
        return self


class Averaging(Section):
    """Averaging of the weights that a run delivers."""

    last_epochs: int = Field(
        0, ge=0, description="Deliver the mean of the weights after this many last epochs; 0: the last weights."
    )
    reestimate_norms: int = Field(
        0, ge=0, description="Recompute normalisation statistics on this many batches of clean images; 0: keep them."
    )


class Finetune(Section):
    """Fine-tuning after pretraining, on the same images without masks."""

    epochs: int = Field(10, ge=1, description="Passes over the training list.")
    batch_size: int = Field(256, ge=1, description="Images per step and process.")
    optim: Optim = _PUBLISHED_OPTIM.model_copy(
        update={
            "lr": 1e-3,
            "schedule": "warmup_multistep",
            "warmup_steps": 7,
            "warmup_start": 0.01,
            "milestones": (37, 67, 97),
        }
    )
    averaging: Averaging = Averaging(last_epochs=3)


class Transfer(Section):
    """Transfer to another data set with a new head; the best epoch on validation is delivered."""

    data: StageData = StageData()
    parts: tuple[_Part, ...] = Field(
        ("linear", "full"),
        min_length=1,
        description="Trained parts, one run each. linear: the new head on frozen features. full: the whole network.",
    )
    per_class: int = Field(
        0,
        ge=0,
        description="Training images per class, drawn by train.seed, for curves over the number of images; 0: all.",
    )
    epochs: int = Field(50, ge=1, description="Passes over the training list.")
    batch_size: int = Field(64, ge=1, description="Images per step and process.")
    optim: Optim = _PUBLISHED_OPTIM.model_copy(update={"lr": 1e-2, "schedule": "cosine"})


class PretrainConfig(Config):
    """Configuration of classifier pretraining."""

    task: ClassVar[str] = "pretrain"
    own_data: ClassVar[str] = "data.root=YOUR_IMAGES data.format=folders"
    method: Literal["pretrain", "finetune", "transfer"] = Field(
        "pretrain",
        description="Stage of the run. pretrain: from random weights, under masks. finetune: a pretrained classifier "
        "on clean images. transfer: a new head on other images. The last two start from source.weights.",
    )
    then: tuple[Literal["finetune", "transfer"], ...] = Field(
        ("finetune",),
        description="Stages that follow pretraining in the same command, each in its own folder; the sections finetune "
        "and transfer hold their settings.",
    )
    policy: _PolicyMode = Field(
        "released",
        description="Source of the masks. released: a policy under the objective of the released code. reinforce: a "
        "policy under the score-function estimator. unlearned: a fixed Beta. none: no masks, the baseline.",
    )
    classifier: BackboneName = Field(
        "resnet50", description="Classifier network; later stages take that of the bundle."
    )
    policy_input: _PolicyInput = Field(224, description="Side of the policy's input in pixels.")
    freeze_norms: bool = Field(False, description="Keep the statistics of all normalisation layers fixed.")
    data: StageData = StageData()
    train: Train = Train(epochs=90, batch_size=256, drop_last=True, eval_every=1, save_every=1000, on_bad_loss="skip")
    optim: Optim = _PUBLISHED_OPTIM.model_copy(update={"schedule": "warmup_multistep", "milestones": (30, 60)})
    policy_optim: Optim = POLICY_OPTIM
    mask: Mask = Mask()
    bases: Bases = Bases()
    released: Released = Released()
    reinforce: Reinforce = Reinforce()
    alarm: Alarm = Alarm()
    mixing: Mixing = Mixing()
    averaging: Averaging = Averaging()
    finetune: Finetune = Finetune()
    transfer: Transfer = Transfer()

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a later stage's settings from its section; the baseline is one stage, averaged over three epochs."""
        defaults: dict[str, Any] = {}
        stage = keys.get("method")
        if stage in ("finetune", "transfer"):
            given = keys.get(stage)
            section = merged(cls.model_fields[stage].default.model_dump(), given if isinstance(given, Mapping) else {})
            defaults = {"then": (), "optim": section["optim"]} | {"averaging": section.get("averaging", {})}
            defaults["train"] = {name: section[name] for name in ("epochs", "batch_size")}
            if stage == "transfer":
                defaults["train"]["drop_last"] = False
        elif keys.get("policy") == "none":
            defaults = {"averaging": {"last_epochs": 3}, "then": ()}
        return merged(defaults, keys)

    @property
    def is_masked(self) -> bool:
        """Whether this stage trains under masks."""
        return self.method == "pretrain" and self.policy != "none"

    @property
    def compares_images(self) -> bool:
        """Whether the advantage of an image depends on the other images of its step."""
        has_others = self.reinforce.baseline in ("batch_mean", "leave_one_out") or self.reinforce.normalise
        return self.is_masked and self.policy == "reinforce" and has_others

    @property
    def has_batch_norms(self) -> bool:
        """Whether a norm uses batch statistics; assumed of a bundle's network, which is not known here."""
        if self.freeze_norms or (self.method == "transfer" and self.transfer.parts == ("linear",)):
            return False
        has_policy = self.is_masked and self.policy != "unlearned"
        is_from_bundle = self.method != "pretrain" and self.source.run is None
        return has_policy or is_from_bundle or self.classifier not in _WITHOUT_BATCH_NORMS

    def expand(self) -> dict[str, Config]:
        """List one run per stage, and per part that a transfer trains.

        Raises:
            ConfigError: ``method=transfer`` with images in ``transfer.data``.
        """
        if self.method == "transfer":
            self._refuse_transfer_data()
            parts = self.transfer.parts
            return {part if len(parts) > 1 else "": self._transfer(part) for part in parts}
        if not self.then:
            return {"": self}
        runs: dict[str, Config] = {self.method: replace(self, {"then": ()})}
        if "finetune" in self.then:
            runs["finetune"] = replace(self, self._stage("finetune", self.method))
        if "transfer" in self.then:
            data = {"data": self.transfer.data.model_dump(), "transfer.data": StageData().model_dump()}
            moved = replace(self, self._stage("transfer", list(runs)[-1]) | data)
            runs |= {f"transfer-{part}": moved._transfer(part) for part in self.transfer.parts}
        return runs

    def _stage(self, name: Literal["finetune", "transfer"], start: str) -> dict[str, Any]:
        section = self.finetune if name == "finetune" else self.transfer
        averaging = section.averaging if isinstance(section, Finetune) else Averaging()
        return {
            "method": name,
            "then": (),
            "source.run": start,
            "source.weights": None,
            "train.epochs": section.epochs,
            "train.batch_size": section.batch_size,
            "train.drop_last": self.train.drop_last and name == "finetune",
            "optim": section.optim.model_dump(),
            "averaging": averaging.model_dump(),
        }

    def _transfer(self, part: _Part) -> "PretrainConfig":
        return replace(self, {"transfer.parts": (part,)})

    def _refuse_transfer_data(self) -> None:
        given = self.transfer.data
        if given in (StageData(), self.data):
            return
        key = next(name for name, value in given if value != getattr(StageData(), name))
        raise ConfigError(
            f"transfer.data.{key} '{getattr(given, key)}' is for a transfer that follows another stage (then). "
            f"With method=transfer, set data.{key}."
        )

    @model_validator(mode="after")
    def _check(self) -> "PretrainConfig":
        problems = mask_problems(self.mask, self.data.image_px) if self.is_masked else []
        if self.train.batch_size < 2 and self.has_batch_norms:
            problems.append(
                "train.batch_size '1': batch normalisation needs at least 2 images a step and process. "
                "Set it to 2 or more, or freeze_norms=true."
            )
        if self.method in self.then or (self.method == "transfer" and self.then):
            problems.append(f"then '{', '.join(self.then)}' cannot follow the stage '{self.method}'; set then=[].")
        if "transfer" in self.then and self.data.root and not self.transfer.data.root:
            problems.append(
                "transfer.data.root is empty: name the images to transfer to, or take 'transfer' out of then."
            )
        if problems:
            raise ValueError(" ".join(problems))
        return self


def mask_problems(mask: Mask, image_px: int) -> list[str]:
    """Explain why masks do not fit on images of this side, a sentence each."""
    problems = []
    if mask.grid > image_px:
        problems.append(
            f"mask.grid '{mask.grid}' is finer than the image of {image_px} pixels. Set it to {image_px} at most."
        )
    if mask.kernel >= 2 * image_px:
        problems.append(
            f"mask.kernel '{mask.kernel}' is too wide to reflect an image of {image_px} pixels. "
            f"Set it below {2 * image_px}."
        )
    return problems
