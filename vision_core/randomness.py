"""Keyed randomness: every draw is seeded by its purpose, so that no worker or process holds random state.

The number of workers, a resume in mid-epoch or another split over processes therefore changes no draw.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b


def key(*parts: object) -> int:
    """Hash ``parts`` to a 63-bit seed: ``key("view", seed, epoch, index)``."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(seed: int) -> None:
    """Seed torch on the CPU and on all GPUs in use.

    Unlike this, ``torch.manual_seed`` records the stack of each call until a GPU is first used: milliseconds a step,
    and a list that grows.
    """
    import torch  # here, as commands read keys before they load it

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU within a block; its state is restored behind it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
