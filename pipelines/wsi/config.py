"""Settings of slide classification; the defaults are MHIM-MIL v1 (ABMIL) as released for CAMELYON-16."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from vision_core.config.loading import replace
from vision_core.config.schema import (
    Config,
    Data,
    Fraction,
    NonNegativeFloat,
    Optim,
    PositiveFloat,
    Section,
    Train,
    merged,
)
from vision_core.slides.settings import EncoderSettings, Mpp, ReadSettings, TileSettings, TissueSettings

Schedule = Literal["constant", "cosine"]
Fusion = Literal["vote", "average"]
ScoreKind = Literal["attention", "class"]


class EmbeddingSettings(Section):
    """First layer of every network."""

    dim: int = Field(512, ge=1, description="Width of an embedded tile.")
    activation: Literal["relu", "gelu"] = Field("relu", description="MHIM v1 was released with relu, v2 with gelu.")
    dropout: Fraction = Field(0.25, description="Dropout after the activation.")


class AbmilSettings(Section):
    """Attention network; the defaults are ABMIL inside MHIM. ABMIL alone has tanh and bias."""

    hidden: int = Field(128, ge=1, description="Width of the attention network.")
    activation: Literal["relu", "gelu", "tanh"] = Field("relu", description="Activation of the attention network.")
    gated: bool = Field(False, description="Multiply by a sigmoid gate, as the published runs on TCGA did.")
    bias: bool = Field(False, description="Biases in the attention network.")
    dropout: Fraction = Field(0.0, description="Dropout on the hidden units of attention and gate.")


class DsmilSettings(Section):
    """Dual-stream network; the defaults are DSMIL inside MHIM v1."""

    query: int = Field(128, ge=1, description="Width of the queries.")
    combine: Literal["probabilities", "logits", "bag"] = Field(
        "probabilities",
        description="How bag and best instance become one prediction. probabilities: averaged after the softmax "
        "(MHIM v1). logits: averaged before it (v2). bag: the bag alone (DSMIL on its own).",
    )
    instance_weight: Fraction = Field(0.5, description="Share of the best instance in loss and average.")


class TransmilSettings(Section):
    """Two transformer layers; the defaults are TransMIL inside MHIM."""

    heads: int = Field(8, ge=1, description="Attention heads, each of an eighth of the embedding's width.")
    dropout: Fraction = Field(0.1, description="Dropout on the output of an attention layer.")
    square_first: bool = Field(
        False, description="TransMIL on its own: the copies that fill the square join the attention too."
    )


class ModelSettings(Section):
    """Architecture of the network from bag to prediction."""

    name: Literal["abmil", "dsmil", "transmil"] = Field("abmil", description="Network.")
    embedding: EmbeddingSettings = EmbeddingSettings()
    abmil: AbmilSettings = AbmilSettings()
    dsmil: DsmilSettings = DsmilSettings()
    transmil: TransmilSettings = TransmilSettings()


class Scores(Section):
    """Scores by which the teacher ranks the tiles of a bag."""

    kind: ScoreKind = Field(
        "attention",
        description="attention: per head. class: confidence for any class. DSMIL was released with class in v1 too.",
    )
    bias: bool = Field(False, description="Ours: add the classifier's bias to the class scores of a tile.")


class Masking(Section):
    """Masks that hide tiles from the student, as shares of the bag."""

    random: Fraction = Field(0.5, description="Drawn at random.")
    low: Fraction = Field(0.0, description="With the lowest scores.")
    high: Fraction = Field(0.01, description="With the highest scores: what is left is hard.")
    high_schedule: Schedule = Field("cosine", description="cosine: the share with the highest scores falls to 0.")
    high_pool: float = Field(
        0.5, gt=0, le=1, description="Draw this share of a pool as much larger; 1 takes the highest themselves."
    )
    fusion: Fusion = Field("vote", description="How several heads agree: by votes, or each takes its part.")


class Recycling(Section):
    """Recycling of remaining tiles into tokens."""

    keep: Fraction = Field(0.2, description="Share of tiles that stay tiles; the others are recycled.")
    tokens: int = Field(5, ge=1, description="Tokens that the others are recycled into.")
    keep_rate: Fraction = Field(0.9999, description="Share of themselves that the queries keep at a step.")
    restore_order: bool = Field(False, description="Ours: tiles in the order of the slide instead of shuffled.")
    at_test: bool = Field(False, description="Add the tokens of the whole bag at inference too.")


class Consistency(Section):
    """Consistency loss between the bag features of student and teacher."""

    weight: NonNegativeFloat = Field(0.1, description="Weight of the loss.")
    temperature: PositiveFloat = Field(0.1, description="Temperature of the teacher's softmax.")


class FollowingTeacher(Section):
    """Update of the teacher after every step."""

    keep_rate: Fraction = Field(0.9999, description="Share of itself that the teacher keeps.")
    schedule: Schedule = Field("constant", description="cosine: the share rises to 1.")
    mode: Literal["eval", "train"] = Field("eval", description="train: dropout in the teacher, as in released code.")
    scored: bool = Field(
        True,
        description="Score the teacher on validation too (ema_auc), and leave its bundle as 'mean_teacher'.",
    )


class MhimV1(Section):
    """Masked hard instance mining v1, ICCV 2023."""

    scores: Scores = Scores()
    masking: Masking = Masking()
    consistency: Consistency = Consistency()
    teacher: FollowingTeacher = FollowingTeacher()


class MhimV2(Section):
    """Masked hard instance mining v2, IJCV 2025: class scores, recycled tiles."""

    scores: Scores = Scores(kind="class")
    masking: Masking = Masking(random=0.0, high=0.03, high_schedule="constant", high_pool=1.0)
    recycling: Recycling = Recycling()
    consistency: Consistency = Consistency(weight=0.5)
    teacher: FollowingTeacher = FollowingTeacher(keep_rate=0.9997)


class WsiData(Data):
    """Slides, labels and splits."""

    format: Literal["slides", "features"] = Field(
        "slides",
        description="slides: slide files below data.root, whose features are made when missing. features: feature "
        "files made before (.h5, .pt or .npy, one a slide).",
    )
    labels: Path | None = Field(
        None,
        description="CSV with columns slide and label, and where known patient, split or fold, mpp; or the published "
        "ones: id,label without header, ID,Label,Split. A TCGA case stands for all of its slides. Empty: labels.csv in "
        "data.root.",
    )
    features: Path | None = Field(None, description="Folder of feature files; empty: 'features' in data.root.")
    protocol: Literal["given", "stratified", "r1", "r2"] = Field(
        "given",
        description="given: the column split of the CSV, or with folds its column fold. stratified: ours, by patient "
        "and class; without folds a fifth is held out. r1, r2: the folds of the two published code generations.",
    )
    folds: int = Field(0, ge=0, le=100, description="Folds to train one after the other; 0: one fixed division.")
    fold: int | None = Field(None, ge=0, description="The one fold of a run; folds sets it.")
    split_seed: int | None = Field(None, ge=0, description="Seed of the division; empty: train.seed.")
    val_share: Fraction = Field(
        0.15, description="Share of the training patients of each class that validates, where the CSV has no such list."
    )
    val_split: str = Field("val", description="Name of the list that chooses the epoch and the threshold.")
    eval_split: str | None = Field("test", description="Name of the list to report on; it chooses nothing.")
    select_on_test: bool = Field(
        False, description="Choose epoch and threshold on the test list, as published code did; the report says so."
    )
    on_missing: Literal["refuse", "drop"] = Field(
        "refuse",
        description="A labelled slide without a file, a file without a label, or features that cannot be used: refuse, "
        "or leave the slide out and say so.",
    )
    max_tiles: int = Field(0, ge=0, description="Tiles drawn from a bag in training, anew each epoch; 0: all.")
    shuffle_tiles: bool = Field(False, description="Shuffle the tiles of a bag in training, as advised for TransMIL.")


class ResultSettings(Section):
    """Result files of a slide."""

    heatmap_mpp: Mpp = Field(8.0, description="Microns per pixel of the heatmap TIFF.")
    top_tiles: int = Field(12, ge=0, le=200, description="Tiles on the sheet of those that the model looked at most.")
    features: bool = Field(False, description="Keep the features of each slide as a file.")


class WsiConfig(Config):
    """Classification of whole slides."""

    task: ClassVar[str] = "wsi"
    at_inference: ClassVar[tuple[str, ...]] = ("read.", "results.", "tissue.regions", "encoder.batch_size")
    own_data: ClassVar[str] = "data.root=YOUR_SLIDES data.labels=LABELS.csv data.protocol=stratified"
    by_name: ClassVar[tuple[str, ...]] = ("tissue.regions",)
    input_list: ClassVar[str] = "data.labels"
    data_keys: ClassVar[tuple[frozenset[str], ...]] = (
        frozenset({"data.root"}),
        frozenset({"data.labels", "data.features"}),
    )
    method: Literal["plain", "mhim_v1", "mhim_v2"] = Field(
        "mhim_v1",
        description="plain: the network alone. mhim_v1, mhim_v2: masked hard instance mining around it; its teacher "
        "is trained first, by plain.",
    )
    data: WsiData = WsiData()
    train: Train = Train(epochs=200, eval_every=1, patience=30, patience_from=130, save_every=1000)
    optim: Optim = Optim(
        name="adam", lr=2e-4, weight_decay=1e-5, decay_norms=True, schedule="cosine", schedule_by="epoch"
    )
    model: ModelSettings = ModelSettings()
    mhim_v1: MhimV1 = MhimV1()
    mhim_v2: MhimV2 = MhimV2()
    random_teacher: bool = Field(False, description="Begin MHIM with a random teacher instead of a trained one.")
    tissue: TissueSettings = TissueSettings()
    tiles: TileSettings = TileSettings()
    encoder: EncoderSettings = EncoderSettings()
    read: ReadSettings = ReadSettings()
    results: ResultSettings = ResultSettings()

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the released settings of MHIM v2 and of DSMIL, and the format of data without slides.

        MHIM v2 has GELU, averages DSMIL's logits, ends with a small learning rate and stops early sooner; DSMIL scores
        by class.
        """
        defaults: dict[str, Any] = {}
        if keys.get("method") == "mhim_v2":
            released = {"embedding": {"activation": "gelu"}, "dsmil": {"combine": "logits"}}
            defaults |= {"model": released, "optim": {"lr_end": 1e-7}, "train": {"patience": 20, "patience_from": 100}}
        data = keys.get("data")
        if isinstance(data, Mapping) and data.get("features") and data.get("labels") and not data.get("root"):
            defaults["data"] = {"format": "features"}  # without slides, these are all there is
        model = keys.get("model")
        if isinstance(model, Mapping) and model.get("name") == "dsmil":
            defaults["mhim_v1"] = {"scores": {"kind": "class"}}
        return merged(defaults, keys)

    def expand(self) -> dict[str, Config]:
        """Expand to a run for each fold, and one for each teacher of MHIM."""
        if not self.data.folds or self.data.fold is not None:
            return dict(self._stages(""))
        return {
            name: run
            for fold in range(self.data.folds)
            for name, run in replace(self, {"data.fold": fold})._stages(f"fold-{fold}").items()
        }

    def _stages(self, prefix: str) -> "dict[str, WsiConfig]":
        has_start = self.random_teacher or self.source.weights or self.source.run
        if self.method == "plain" or has_start:
            return {prefix: self}
        teacher = f"{prefix}-teacher".removeprefix("-")
        return {
            teacher: replace(self, {"method": "plain"}),
            f"{prefix}-{self.method}".removeprefix("-"): replace(self, {"source.run": teacher}),
        }
