"""A predictor without a bundle, for pages whose model answers what a test wants."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self, TypeVar

import torch
from torch import Tensor

from vision_core.pipeline import Predictor

R = TypeVar("R")


class StandIn(Predictor[R]):
    """Refuses what a page has no use for."""

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "auto") -> Self:
        raise NotImplementedError

    def write(self, result: R, path: str | Path, folder: str | Path) -> list[Path]:
        raise NotImplementedError

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError
