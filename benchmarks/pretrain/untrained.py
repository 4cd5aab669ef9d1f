"""Where a policy ends that is never trained: what of a learned one's way is not learnt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.pretrain.runs import as_words
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.learner import PretrainLearner
from pipelines.pretrain.pipeline import PretrainPipeline
from vision_core.config.loading import load
from vision_core.training.loaders import EpochBatches, batches


@torch.no_grad()
def untrained_entropy(root: Path, seed: int, settings: Mapping[str, Any]) -> float:
    """Measure the mean entropy of the cells after the first stage of a run whose policy stays random.

    Its running bases and the statistics of its norms move as in the run, on the same images in the same order.

    Args:
        root: Folder of the images.
        seed: Of the run.
        settings: Of the run.
    """
    torch.set_num_threads(1)
    config = load(PretrainConfig, None, as_words(root, seed, settings)).expand()["pretrain"]
    assert isinstance(config, PretrainConfig)
    prepared = PretrainPipeline().prepare(config)
    learner = prepared.learner.train()
    assert isinstance(learner, PretrainLearner)
    assert learner.noise is not None
    train = config.train
    order = EpochBatches(
        num_items=len(prepared.items), batch_size=train.batch_size, epochs=train.epochs, seed=seed, drop_last=True
    )
    entropy = float("nan")
    for batch in batches(prepared.items, order, workers=0):
        drawn = learner.noise.draw(normalise(batch.images), [0] * len(batch.indices))
        entropy = float(drawn.entropy())
    return entropy
