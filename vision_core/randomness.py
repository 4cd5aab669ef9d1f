"""Keyed randomness: every draw follows from what it is for, so no worker or process holds random state.

The number of workers, a resume in mid-epoch or another split over processes therefore changes nothing.
"""

from hashlib import blake2b


def key(*parts: object) -> int:
    """A 63-bit seed that depends on all ``parts``: ``key("view", seed, epoch, index)``."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
