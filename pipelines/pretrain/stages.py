"""Check of all runs of a command before the first one trains."""

from collections.abc import Mapping
from functools import lru_cache

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data.splits import Read, check_training_list, scored_images, scored_splits, training_images
from pipelines.pretrain.weights.initial import backbone_of, check_image_size, check_source
from vision_core.errors import UserError

_CACHED_LISTS = 8  # lists of two data sets and a few more; the arrays of a packed one are held in memory


def check_later_runs(runs: Mapping[str, PretrainConfig]) -> None:
    """Check the lists and initial weights of all runs, in order; no image is opened.

    Args:
        runs: Settings by name, each run after the one that it starts from; a run without ``data.root`` (the demo) is
            not checked.

    Raises:
        UserError: As ``prepare`` of that run raises, with the name of the run unless it is the first.
    """
    read: Read = lru_cache(_CACHED_LISTS)(read_images)  # runs that differ in seed or part share their lists
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
        check_source(config, images)
    check_image_size(backbone_of(_initial_run(config, runs)), config.data.image_px)


def _initial_run(config: PretrainConfig, runs: Mapping[str, PretrainConfig]) -> PretrainConfig:
    """Find the run whose network this one trains, itself or through others."""
    while (before := config.source.run) and before in runs:
        config = runs[before]
    return config
