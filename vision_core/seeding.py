"""Seeding torch's global generators, once a step."""

import torch


def seed_torch(seed: int) -> None:
    """As ``torch.manual_seed``, for the CPU and, where GPUs are in use, for all of them.

    Until a GPU is first used, ``torch.manual_seed`` keeps for each call where it was called from: milliseconds a step,
    and a list that grows.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
