"""What a later run of a command would be refused for, found before the first one trains."""

from collections.abc import Mapping
from functools import lru_cache

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data.splits import Read, check_training_list, scored_images, scored_splits, training_images
from pipelines.pretrain.weights.initial import backbone_of, check_side, check_start
from vision_core.errors import UserError

_REMEMBERED = 8  # lists, of which a packed array is held in memory: those of two data sets, and a little more


def check_later_runs(runs: Mapping[str, PretrainConfig]) -> None:
    """Read the lists of all runs, in their order; no image is opened.

    Args:
        runs: Settings by name, each run behind the one that it starts from; without ``data.root`` it is the demo's.

    Raises:
        UserError: As ``prepare`` of that run would, with its name unless it is the first.
    """
    read: Read = lru_cache(_REMEMBERED)(read_images)  # runs that differ in seed or part share their lists
    for name, config in runs.items():
        if config.data.root is None:
            continue
        try:
            _check(config, runs, read)
        except UserError as error:
            if name == next(iter(runs)):
                raise
            raise type(error)([f"Run '{name}': {problem}" for problem in error.problems]) from error


def _check(config: PretrainConfig, runs: Mapping[str, PretrainConfig], read: Read) -> None:
    images = training_images(config, read)
    check_training_list(config, images)
    for split in scored_splits(config):
        scored_images(config, images.classes, split, read)
    if config.source.run is None:
        check_start(config, images)
    check_side(backbone_of(_first_of(config, runs)), config.data.image_px)


def _first_of(config: PretrainConfig, runs: Mapping[str, PretrainConfig]) -> PretrainConfig:
    """The run that brings the network in, from which this one starts by others or at once."""
    while (before := config.source.run) and before in runs:
        config = runs[before]
    return config
