"""Settings of noise-mask pretraining; the defaults are the released recipe at 224 pixels. Pydantic only."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from pipelines.pretrain.data_settings import StageData
from vision_core.backbones.settings import BackboneName
from vision_core.config.loading import replace
from vision_core.config.schema import Config, Fraction, NonNegativeFloat, Optim, PositiveFloat, Section, Train, merged
from vision_core.errors import ConfigError

PolicyMode = Literal["released", "reinforce", "unlearned", "none"]
PolicyInput = Literal[224, 112]
Part = Literal["linear", "full"]
_AS_PUBLISHED = Optim(lr=0.1, decay_norms=True, schedule_by="epoch")
_WITHOUT_BATCH_NORMS = frozenset({"convnext_tiny", "vit_small"})


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("should be odd")
    return value


class Mask(Section):
    """From sampled cells to the mask that multiplies the image."""

    grid: int = Field(64, ge=1, description="Cells along a side of the mask.")
    kernel: Annotated[int, AfterValidator(_odd)] = Field(13, ge=1, description="Side of the blur, in pixels; odd.")
    sigma: PositiveFloat = Field(6.0, description="Standard deviation of the blur, in pixels.")
    unlearned_concentration: PositiveFloat = Field(
        1.6, description="Both Beta concentrations of every cell where the policy is unlearned."
    )


class Bases(Section):
    """The running means that anchor the policy's outputs."""

    share: Fraction = Field(
        0.9, description="Share of the running mean in a concentration; the network gives the rest."
    )
    keep_rate: Fraction = Field(0.99, description="Share of itself that the running mean keeps at a step.")


class Released(Section):
    """The objective of the released implementation."""

    scale_classifier: bool = Field(
        True,
        description="Scale the classifier's gradient by the mask's density, about 8.5 times at grid 64, as released. "
        "False is the control.",
    )


class Reinforce(Section):
    """Ours: the score-function estimator with a reward for each image."""

    baseline: Literal["none", "batch_mean", "leave_one_out", "ema"] = Field(
        "leave_one_out", description="What is subtracted from the reward of an image."
    )
    baseline_keep_rate: Fraction = Field(0.9, description="Share of itself that the ema baseline keeps at a step.")
    normalise: bool = Field(False, description="Divide the advantages by their standard deviation.")
    per_cell: bool = Field(
        True, description="Mean of the cells' log-densities in place of their sum: the same for every grid."
    )
    entropy_weight: NonNegativeFloat = Field(0.0, description="Weight of the entropy bonus.")


class Mixing(Section):
    """Mixing pairs of training images; off in the published recipe."""

    mixup: NonNegativeFloat = Field(0.0, description="Beta parameter of mixup's shares; 0 is off.")
    cutmix: NonNegativeFloat = Field(0.0, description="Beta parameter of cutmix's shares; 0 is off.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Probability that is taken from the label and spread over all classes."
    )


class Alarm(Section):
    """When the policy is stopped; the classifier goes on under the unlearned mask."""

    lowest_entropy: FiniteFloat = Field(
        -2.0, description="Mean entropy of the cells below which the masks hardly vary any more."
    )
    highest_entropy: FiniteFloat = Field(
        -1e-6,
        le=0,
        description="Mean entropy of the cells above which they are flat and the policy says nothing; at most 0.",
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
    """What leaves a run."""

    last_epochs: int = Field(0, ge=0, description="Mean of the weights after so many last epochs; 0: the last weights.")
    reestimate_norms: int = Field(
        0, ge=0, description="Batches of clean images from which normalisation statistics are computed anew; 0: none."
    )


class Finetune(Section):
    """The stage after pretraining: the same images, clean."""

    epochs: int = Field(10, ge=1, description="Passes over the training list.")
    batch_size: int = Field(256, ge=1, description="Images per step and process.")
    optim: Optim = _AS_PUBLISHED.model_copy(
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
    """A new head on another data set; the best epoch on validation leaves the run."""

    data: StageData = StageData()
    parts: tuple[Part, ...] = Field(
        ("linear", "full"),
        min_length=1,
        description="What trains, a run each. linear: the new head on frozen features. full: everything.",
    )
    per_class: int = Field(
        0, ge=0, description="Training images of each class, drawn by train.seed, for curves over sizes; 0: all."
    )
    epochs: int = Field(50, ge=1, description="Passes over the training list.")
    batch_size: int = Field(64, ge=1, description="Images per step and process.")
    optim: Optim = _AS_PUBLISHED.model_copy(update={"lr": 1e-2, "schedule": "cosine"})


class PretrainConfig(Config):
    """Pretraining of image classifiers."""

    task: ClassVar[str] = "pretrain"
    method: Literal["pretrain", "finetune", "transfer"] = Field(
        "pretrain",
        description="The stage of a run. pretrain: from random weights, under masks. finetune: a pretrained classifier "
        "on clean images. transfer: a new head on other images. The last two start from source.weights.",
    )
    then: tuple[Literal["finetune", "transfer"], ...] = Field(
        ("finetune",),
        description="Stages that follow pretraining in the same command, each in a folder of its own; their settings "
        "are the sections of their names.",
    )
    policy: PolicyMode = Field(
        "released",
        description="What draws the masks. released: a policy under the objective of the released code. reinforce: a "
        "policy under the score-function estimator. unlearned: a fixed Beta. none: no masks, the baseline.",
    )
    classifier: BackboneName = Field("resnet50", description="The network; later stages take that of the bundle.")
    policy_input: PolicyInput = Field(224, description="Pixels along a side of what the policy sees.")
    freeze_norms: bool = Field(False, description="Keep the statistics of all normalisation layers as they are.")
    data: StageData = StageData()
    train: Train = Train(epochs=90, batch_size=256, drop_last=True, eval_every=1, save_every=1000)
    optim: Optim = _AS_PUBLISHED.model_copy(update={"schedule": "warmup_multistep", "milestones": (30, 60)})
    policy_optim: Optim = _AS_PUBLISHED.model_copy(update={"lr": 0.01, "schedule": "cosine"})
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
        """A later stage has the settings of its section; the baseline is one stage, a mean of its last three epochs."""
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
        """Whether this stage hides parts of its images."""
        return self.method == "pretrain" and self.policy != "none"

    @property
    def compares_images(self) -> bool:
        """Whether the reward of an image is measured by those of the others in its step."""
        has_others = self.reinforce.baseline in ("batch_mean", "leave_one_out") or self.reinforce.normalise
        return self.is_masked and self.policy == "reinforce" and has_others

    @property
    def has_batch_norms(self) -> bool:
        """Whether norms compute with the images of a step; assumed of a bundle's network, which is not known here."""
        if self.freeze_norms or (self.method == "transfer" and self.transfer.parts == ("linear",)):
            return False
        has_policy = self.is_masked and self.policy != "unlearned"
        is_from_bundle = self.method != "pretrain" and self.source.run is None
        return has_policy or is_from_bundle or self.classifier not in _WITHOUT_BATCH_NORMS

    def expand(self) -> dict[str, Config]:
        """A run per stage, and per part that a transfer trains.

        Raises:
            ConfigError: A transfer by itself, and its images in ``transfer.data``.
        """
        if self.method == "transfer":
            self._check_place_of_data()
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

    def _transfer(self, part: Part) -> "PretrainConfig":
        return replace(self, {"transfer.parts": (part,)})

    def _check_place_of_data(self) -> None:
        given = self.transfer.data
        if given in (StageData(), self.data):
            return
        key = next(name for name, value in given if value != getattr(StageData(), name))
        raise ConfigError(
            f"transfer.data.{key} '{getattr(given, key)}' is for a transfer that follows another stage (then). "
            f"With method=transfer give data.{key}."
        )

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
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
    """Why such masks cannot lie on images of this side, a sentence each."""
    problems = []
    if mask.grid > image_px:
        problems.append(
            f"mask.grid '{mask.grid}' is finer than the image of {image_px} pixels. Set it to {image_px} at most."
        )
    if mask.kernel >= 2 * image_px:
        problems.append(
            f"mask.kernel '{mask.kernel}' reaches beyond the mirror image of {image_px} pixels. "
            f"Set it below {2 * image_px}."
        )
    return problems
