"""Settings of the slide networks and of MHIM; the defaults are CAMELYON-16 as released, with AB-MIL inside."""

from typing import Literal

from pydantic import Field

from vision_core.settings import Fraction, NonNegativeFloat, PositiveFloat, Section

Schedule = Literal["constant", "cosine"]
Fusion = Literal["vote", "average"]
ScoreKind = Literal["attention", "class"]


class EmbeddingSettings(Section):
    """The layer that every network begins with."""

    dim: int = Field(512, ge=1, description="Width of an embedded tile.")
    activation: Literal["relu", "gelu"] = Field("relu", description="MHIM v1 was released with relu, v2 with gelu.")
    dropout: Fraction = Field(0.25, description="Dropout after the activation.")


class AbmilSettings(Section):
    """Attention; the defaults are the plain variant inside MHIM. ABMIL on its own has tanh and bias."""

    hidden: int = Field(128, ge=1, description="Width of the attention network.")
    activation: Literal["relu", "gelu", "tanh"] = Field("relu", description="Activation of the attention network.")
    gated: bool = Field(False, description="Multiply by a sigmoid gate, as the published runs on TCGA did.")
    bias: bool = Field(False, description="Biases in the attention network.")
    dropout: Fraction = Field(0.0, description="Dropout on the hidden units of attention and gate.")


class DsmilSettings(Section):
    """Dual stream; the defaults are DSMIL inside MHIM v1."""

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
    """The network from a bag to a prediction."""

    name: Literal["abmil", "dsmil", "transmil"] = Field("abmil", description="Network.")
    embedding: EmbeddingSettings = EmbeddingSettings()
    abmil: AbmilSettings = AbmilSettings()
    dsmil: DsmilSettings = DsmilSettings()
    transmil: TransmilSettings = TransmilSettings()


class Scores(Section):
    """What the teacher ranks the tiles of a bag by."""

    kind: ScoreKind = Field(
        "attention",
        description="attention: per head. class: confidence for any class. DSMIL was released with class in v1 too.",
    )
    bias: bool = Field(False, description="Ours: add the classifier's bias to the class scores of a tile.")


class Masking(Section):
    """Which tiles the student does not see, as shares of the bag."""

    random: Fraction = Field(0.5, description="Drawn at random.")
    low: Fraction = Field(0.0, description="With the lowest scores.")
    high: Fraction = Field(0.01, description="With the highest scores: what is left is hard.")
    high_schedule: Schedule = Field("cosine", description="cosine: the share with the highest scores falls to 0.")
    high_pool: float = Field(
        0.5, gt=0, le=1, description="Draw this share of a pool as much larger; 1 takes the highest themselves."
    )
    fusion: Fusion = Field("vote", description="How several heads agree: by votes, or each takes its part.")


class Recycling(Section):
    """Which of the remaining tiles the student sees, and what becomes of the others."""

    keep: Fraction = Field(0.2, description="Share of tiles that stay tiles; the others are recycled.")
    tokens: int = Field(5, ge=1, description="Tokens that the others are recycled into.")
    keep_rate: Fraction = Field(0.9999, description="Share of themselves that the queries keep at a step.")
    restore_order: bool = Field(False, description="Ours: tiles in the order of the slide instead of shuffled.")
    at_test: bool = Field(False, description="Add the tokens of the whole bag at inference too.")


class Consistency(Section):
    """The student's bag feature follows the teacher's."""

    weight: NonNegativeFloat = Field(0.1, description="Weight of the loss.")
    temperature: PositiveFloat = Field(0.1, description="Temperature of the teacher's softmax.")


class Momentum(Section):
    """How the teacher follows the student, after every step."""

    keep_rate: Fraction = Field(0.9999, description="Share of itself that the teacher keeps.")
    schedule: Schedule = Field("constant", description="cosine: the share rises to 1.")
    mode: Literal["eval", "train"] = Field("eval", description="train: dropout in the teacher, as in released code.")


class MhimV1(Section):
    """Masked hard instance mining, ICCV 2023."""

    scores: Scores = Scores()
    masking: Masking = Masking()
    consistency: Consistency = Consistency()
    momentum: Momentum = Momentum()


class MhimV2(Section):
    """Its second version, IJCV 2025: scores by class, recycled tiles."""

    scores: Scores = Scores(kind="class")
    masking: Masking = Masking(random=0.0, high=0.03, high_schedule="constant", high_pool=1.0)
    recycling: Recycling = Recycling()
    consistency: Consistency = Consistency(weight=0.5)
    momentum: Momentum = Momentum(keep_rate=0.9997)
