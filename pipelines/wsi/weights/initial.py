"""Initial weights: the trained plain network that MHIM begins with."""

from collections.abc import Mapping
from pathlib import Path

from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.bags import Bags, manifest
from pipelines.wsi.features.origin import differences, trained_with
from pipelines.wsi.learner import BagLearner, MhimLearner
from pipelines.wsi.weights.bundles import TASK, build_network, model_settings
from pipelines.wsi.weights.classes import in_order, match_classes
from vision_core.bundles import bundle
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError, ConfigError
from vision_core.slides.features.files import describe_encoder

_LIST = {"root", "labels", "features"}
_OTHER_SLIDES = (
    "It was trained on other slides than this run: if slides of the validation or test list were among them, the "
    "scores of this run are too good."
)
_OF_TRAINING = {"dropout", "combine", "instance_weight"}  # settings without effect on the weights


def load_initial_weights(config: WsiConfig, learner: BagLearner, train: Bags) -> tuple[str, ...]:
    """Load ``source.weights`` into a learner; MHIM takes them as its teacher.

    Returns:
        Notes on the initial weights.

    Raises:
        ConfigError: MHIM without a teacher, unless ``random_teacher`` is set.
        CheckpointError: The bundle differs in network, features or classes, or is of another fold.
    """
    path = config.source.weights
    if path is None:
        return _note_without_bundle(config)
    content = bundle.load(path, TASK)
    _check(path, content.card, config, train)
    warnings: tuple[str, ...] = ()
    if content.card.trained_on.manifest not in {None, manifest(train)}:
        refuse_other_fold(path, content.card, config)
        warnings = (_OTHER_SLIDES,)
    network = in_order(content.card, build_network(content, path).aggregator.state_dict(), train.classes)
    if content.card.classes != train.classes:
        warnings += (
            f"Classes: the data's are '{', '.join(train.classes)}', those of the bundle '"
            f"{', '.join(content.card.classes)}': matched by name.",
        )
    if isinstance(learner, MhimLearner):
        learner.begin(network)
    else:
        learner.student.aggregator.load_state_dict(network)
    return (f"Starts from {content.card.identity()}, {content.card.trained_on.description}.", *warnings)


def check_source(config: WsiConfig, classes: tuple[str, ...]) -> None:
    """Refuse what a run cannot start from, in ``source.weights``, as far as it shows without the features.

    Args:
        config: Configuration of the run.
        classes: Those of the data; empty: they are not known.

    Raises:
        CheckpointError: The bundle is damaged or of another task, or differs in network or classes.
    """
    if path := config.source.weights:
        content = bundle.load(path, TASK)
        _check_card(path, content.card, config)
        if classes:
            match_classes(path, content.card.classes, classes)
        build_network(content, path)


def _note_without_bundle(config: WsiConfig) -> tuple[str, ...]:
    if config.method == "plain":
        return ()
    if config.random_teacher:
        return ("The teacher begins with random weights (random_teacher).",)
    if config.source.run:  # in a rehearsal that run has not been trained yet
        return (f"Starts from what the run '{config.source.run}' will leave.",)
    raise ConfigError(
        f"method={config.method} needs a trained teacher: give the bundle of a plain run as source.weights, leave "
        "source.weights empty to have it trained first, or ask for random_teacher=true."
    )


def refuse_other_fold(path: Path, card: Card, config: WsiConfig) -> None:
    """Refuse a teacher of another fold, which may have learnt from this fold's test slides.

    Args:
        path: Bundle trained on other slides than this run.
        card: Its card.
        config: Configuration of the run.

    Raises:
        CheckpointError: Bundle and run share a CSV, and the run is one of folds.
    """
    theirs = card.config.get("data")
    is_same_list = isinstance(theirs, Mapping) and all(
        theirs.get(name) == value for name, value in config.data.model_dump(mode="json", include=_LIST).items()
    )
    if is_same_list and config.data.fold is not None:
        raise CheckpointError(
            f"'{path}' was trained on other slides of the same list ({card.trained_on.description}): those that fold "
            f"{config.data.fold} is tested on may be among them. Leave source.weights empty, so that each fold trains "
            "its own teacher, or give the teacher of this fold and name the fold as data.fold."
        )


def _check_card(path: Path, card: Card, config: WsiConfig) -> None:
    found = model_settings(card)
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


def _check(path: Path, card: Card, config: WsiConfig, train: Bags) -> None:
    _check_card(path, card, config)
    feature_dim, classes = train.feature_dim, train.classes
    if card.architecture.get("feature_dim") != feature_dim:
        theirs = describe_encoder(int(card.architecture.get("feature_dim") or 0))
        raise CheckpointError(
            f"'{path}' takes features of {theirs}, the data's are of {describe_encoder(feature_dim)}. "
            "Use features of the encoder that the bundle was trained with."
        )
    if told := differences(trained_with(card.preprocessing), train.made_with):
        raise CheckpointError(
            f"'{path}' was trained on other features: the data's are {'; '.join(told)}. Use features as "
            "it was trained on."
        )
    match_classes(path, card.classes, classes)
