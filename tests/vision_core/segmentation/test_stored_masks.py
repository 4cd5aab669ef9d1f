import tracemalloc

import numpy as np
import pytest

from vision_core.segmentation.stored_masks import StoredMasks


def test_masks__come_back_one_at_a_time_and_all_at_once() -> None:
    masks = np.random.default_rng(0).random((5, 7, 9)) > 0.5
    masks[2] = False
    stored = StoredMasks()
    for mask in masks:
        stored.append(mask)
    assert (stored.shape, len(stored), stored.dtype) == ((5, 7, 9), 5, np.dtype(bool))
    for number in (4, 2, 0, -1):
        assert np.array_equal(stored[number], masks[number])
    stored[0][:] = True  # a copy: what is stored stays
    assert np.array_equal(np.asarray(stored), masks)
    with pytest.raises(ValueError, match=r"expected size \(7, 9\), found \(9, 7\)"):
        stored.append(masks[0].T)


def test_masks__memory_does_not_grow_with_their_number() -> None:
    mask = np.random.default_rng(0).random((200, 200)) > 0.5
    tracemalloc.start()
    try:
        stored = StoredMasks()
        for _ in range(500):
            stored.append(mask)
        assert sum(int(each.any()) for each in stored) == 500
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500 * mask.nbytes / 40
