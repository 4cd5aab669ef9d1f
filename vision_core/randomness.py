"""Keyed randomness: every draw follows from what it is for, so no worker or process holds random state.

The number of workers, a resume in mid-epoch or another split over processes therefore changes nothing.
"""

from hashlib import blake2b

import torch


def key(*parts: object) -> int:
    """A 63-bit seed that depends on all ``parts``: ``key("view", seed, epoch, index)``."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(seed: int) -> None:
    """As ``torch.manual_seed``, for the CPU and, where GPUs are in use, for all of them.

    Until a GPU is first used, ``torch.manual_seed`` keeps for each call where it was called from: milliseconds a step,
    and a list that grows.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
