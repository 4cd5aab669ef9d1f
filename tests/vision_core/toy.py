"""A task small enough to check by hand: one linear layer learns to double numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from vision_core.config.loading import replace
from vision_core.config.schema import Config
from vision_core.randomness import key
from vision_core.runs.folder import RunFolder
from vision_core.training.checkpoint import Counters
from vision_core.training.learner import Learner, Prepared
from vision_core.training.loaders import Place
from vision_core.training.loop import fit
from vision_core.training.mean_teacher import MeanTeacher
from vision_core.training.runtime import Runtime

RUNTIME = Runtime(device=torch.device("cpu"))


class ToyConfig(Config):
    task: ClassVar[str] = "toy"
    method: str = "toy"


class ToyItems:
    """Numbers 0 to n - 1 with a little keyed noise, each an (input, target) pair."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: Place) -> Tensor:
        epoch, index = place
        generator = torch.Generator().manual_seed(key("view", self.seed, epoch, index))
        value = index / self.count + 0.01 * torch.rand(1, generator=generator)
        return torch.cat([value, 2 * value])

    def collate(self, items: list[Tensor]) -> Tensor:
        return torch.stack(items)

    def names(self, indices: Sequence[int]) -> list[str]:
        return [f"number {index}" for index in indices]


class ToyLearner(Learner):
    """Least squares with dropout noise on the input, and a teacher that moves per epoch."""

    def __init__(
        self, empty_items: Sequence[float] = (), poison_step: int = -1, poison_steps: Sequence[int] = ()
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(1, 4)
        self.student = nn.Sequential(self.first, nn.LayerNorm(4), nn.Linear(4, 1))
        self.teacher = MeanTeacher(self.student)
        self.moves = 0
        self.rates: list[float] = []
        self.poison_steps = {poison_step, *poison_steps}
        self.skip = empty_items

    def training_step(self, batch: Tensor) -> dict[str, Tensor]:
        if self.step in self.skip:
            return {}
        noise = torch.randn(())  # drawn from the step's own seed
        error = (self.student(batch[:, :1]) - batch[:, 1:]).square().mean()
        bad = float("nan") if self.step in self.poison_steps else 0.0
        return {"loss_square": error, "loss_noise": 0.01 * noise * self.first.bias.sum() + bad}

    def after_epoch(self, epoch: int) -> None:
        self.moves += 1
        self.teacher.update(self.student, 0.75)

    def product(self) -> nn.Module:
        return self.teacher.module


def train(folder: Path, config: ToyConfig, learner: Learner | None = None, count: int = 7) -> tuple[Learner, Counters]:
    """One call of ``fit`` into ``folder``."""
    learner = learner or ToyLearner()
    folder.mkdir(parents=True, exist_ok=True)
    return learner, fit(Prepared(learner=learner, items=ToyItems(count)), config, RUNTIME, RunFolder(folder))


def toy_config(**changes: object) -> ToyConfig:
    """Settings with dotted changes: ``toy_config(**{"train.epochs": 3})``."""
    return replace(ToyConfig(), changes)
