"""What a step of noise-mask pretraining costs beside a plain one, on ResNet-18 at 224 x 224 pixels.

A step is forward, backward and both optimizers, on random images. The three kinds run in turn: plain, with the policy
as published (it sees 224 pixels), and with a policy that sees 112; a ratio is the median over the rounds. What is
counted are seconds of processor time, which other programs on the machine disturb less than the clock's.
``make bench-pretrain-step``.
"""

import argparse
import statistics
import sys
import time

import torch

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.views import Batch
from pipelines.pretrain.learner import Goal, make_learner
from vision_core.backbones.networks import build_backbone
from vision_core.config.loading import replace
from vision_core.environment import quiet_libraries
from vision_core.training.optimizers import Optimizer, make_optimizers

CLASSES = 165
IMAGE_PX = 224
TARGETS = {"faithful": 2.0, "policy_input_112": 1.3}
KINDS: dict[str, dict[str, object]] = {
    "plain": {"policy": "none", "averaging.last_epochs": 0},
    "faithful": {},
    "policy_input_112": {"policy_input": 112},
}


class Stepper:
    """A learner with its optimizers.

    Args:
        changes: What its settings have beside the published ones.
    """

    def __init__(self, changes: dict[str, object]) -> None:
        config = replace(PretrainConfig(), {"classifier": "resnet18", "then": (), **changes})
        torch.manual_seed(0)
        network = build_backbone("resnet18", CLASSES)
        goal = Goal(backbone="resnet18", classes=tuple(map(str, range(CLASSES))))
        self.learner = make_learner(config, network, goal).train()
        self.optimizers: list[Optimizer] = make_optimizers(self.learner.trained(config.optim))

    def step(self, batch: Batch) -> float:
        """Take one step; returns its processor seconds."""
        start = time.process_time()
        torch.stack(list(self.learner(batch).values())).sum().backward()
        for optimizer in self.optimizers:
            optimizer.torch.step()
            optimizer.torch.zero_grad(set_to_none=True)
        self.learner.after_step(self.learner.step)
        self.learner.step += 1
        return time.process_time() - start


def random_batch(size: int) -> Batch:
    """Draw images that look like nothing, with labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, IMAGE_PX, IMAGE_PX), generator=generator, dtype=torch.uint8)
    return Batch(images=images, labels=torch.arange(size) % CLASSES, indices=torch.arange(size))


def main() -> int:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32, help="images of a step")
    arguments = parser.parse_args()
    quiet_libraries()
    batch = random_batch(arguments.batch_size)
    steppers = {name: Stepper(changes) for name, changes in KINDS.items()}
    for stepper in steppers.values():
        stepper.step(batch)  # memory is taken and kernels are chosen
    rounds = [{name: stepper.step(batch) for name, stepper in steppers.items()} for _ in range(arguments.rounds)]
    told = ", ".join(f"{name} {statistics.median(each[name] for each in rounds):.2f} s" for name in KINDS)
    print(f"ResNet-18, {arguments.batch_size} images of {IMAGE_PX} px, {torch.get_num_threads()} threads: {told}")
    missed = False
    for name, target in TARGETS.items():
        ratios = [each[name] / each["plain"] for each in rounds]
        ratio = statistics.median(ratios)
        missed |= ratio > target
        print(f"pretrain_step {name}: {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) (target <= {target})")
    return int(arguments.check and missed)


if __name__ == "__main__":
    sys.exit(main())
