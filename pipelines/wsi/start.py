"""The trained plain network that a run of MHIM begins with."""

from pathlib import Path

from pipelines.wsi.bundles import TASK, network_of, settings_of
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.learner import BagLearner, MhimLearner
from vision_core import bundle
from vision_core.bundle import Card
from vision_core.errors import CheckpointError, ConfigError
from vision_core.slides.feature_dims import described

_OF_TRAINING = {"dropout", "combine", "instance_weight"}  # no tensor hangs on them


def begin(config: WsiConfig, learner: BagLearner, classes: tuple[str, ...], feature_dim: int) -> tuple[str, ...]:
    """Give a learner of MHIM its trained teacher; a plain one goes on from a bundle, if there is one.

    Returns:
        What the run starts from, in words.

    Raises:
        ConfigError: MHIM without a teacher, which nobody asked for.
        CheckpointError: The bundle is of another network, other features or other classes.
    """
    path = config.source.weights
    if path is None:
        return _without(config)
    content = bundle.load(path, TASK)
    _check(path, content.card, config, classes, feature_dim)
    network = network_of(content, path).aggregator.state_dict()
    if isinstance(learner, MhimLearner):
        learner.begin(network)
    else:
        learner.student.aggregator.load_state_dict(network)
    return (f"Starts from {content.card.identity()}, {content.card.trained_on.description}.",)


def weights_hash(config: WsiConfig) -> str | None:
    """sha256 of the weights in the bundle that a run starts from."""
    path = config.source.weights
    return bundle.read_card(path, TASK).hashes["weights.safetensors"] if path else None


def _without(config: WsiConfig) -> tuple[str, ...]:
    if config.method == "plain":
        return ()
    if config.random_teacher:
        return ("The teacher begins with random weights (random_teacher).",)
    if config.source.run:  # a rehearsal: that run has not been trained yet
        return (f"Starts from what the run '{config.source.run}' will leave.",)
    raise ConfigError(
        f"method={config.method} needs a trained teacher: give the bundle of a plain run as source.weights, leave "
        "source.weights empty to have it trained first, or ask for random_teacher=true."
    )


def _check(path: Path, card: Card, config: WsiConfig, classes: tuple[str, ...], feature_dim: int) -> None:
    found = settings_of(card)
    if found.name != config.model.name:
        raise CheckpointError(
            f"'{path}' is a bundle of {found.name}, model.name is {config.model.name}. "
            f"Give one of {config.model.name}, or set model.name={found.name}."
        )
    differing = [
        f"model.{section}.{key} is {getattr(getattr(config.model, section), key)!r}, the bundle's is {value!r}"
        for section in ("embedding", found.name)
        for key, value in getattr(found, section).model_dump().items()
        if value != getattr(getattr(config.model, section), key) and key not in _OF_TRAINING
    ]
    if differing:
        raise CheckpointError([f"'{path}': {each}. Set it as the bundle has it." for each in differing])
    if card.architecture.get("feature_dim") != feature_dim:
        theirs = described(int(card.architecture.get("feature_dim") or 0))
        raise CheckpointError(
            f"'{path}' takes features of {theirs}, the data's are of {described(feature_dim)}. "
            "Use features of the encoder that the bundle was trained with."
        )
    if card.classes != classes:
        raise CheckpointError(
            f"'{path}' has the classes {', '.join(card.classes)}, the data {', '.join(classes)}. "
            f"Give data.classes=[{', '.join(card.classes)}]."
        )
