"""Masking of the tiles that a teacher scores highest or lowest, so that hard ones remain for the student.

Source: Tang et al., "Multiple Instance Learning Framework with Masked Hard Instance Mining", ICCV 2023. Symbols:
``H`` rows of scores, ``N`` tiles, ``beta`` ratio, ``q`` pool, ``k`` candidates, ``m`` masked. Ours: ties go to the
lower index, kept tiles stay in the order of the slide, and one tile is always kept.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.wsi.config import Fusion, Masking
from vision_core.errors import TrainingError


def keep_instances(scores: Tensor, masking: Masking, high: float, generator: torch.Generator | None = None) -> Tensor:
    """Select the tiles that the student sees: ascending indices, at least one.

    Args:
        scores: ``(H, N)`` of the teacher.
        masking: Ratios, each of the whole bag, including tiles that another one has masked.
        high: The ratio of the highest scores at this step.
        generator: Of the draws, first random, then high; the global one when None.

    Raises:
        TrainingError: A score is not a number.
    """
    _require_numbers(scores)
    count = scores.shape[1]
    if count == 1:
        return torch.zeros(1, dtype=torch.int64, device=scores.device)
    masks = (
        random_mask(count, masking.random, scores.device, generator),
        select_mask(scores, masking.low, largest=False, fusion=masking.fusion),
        select_mask(scores, high, largest=True, pool=masking.high_pool, fusion=masking.fusion, generator=generator),
    )
    kept = kept_indices(union_masks(masks, count))
    return kept if len(kept) else _last_resort(scores, masking, high)


def mask_counts(count: int, ratio: float, pool: float = 1.0) -> tuple[int, int]:
    """Count the candidates among ``count`` tiles, and how many of them are masked; both rounded up."""
    candidates, drawn = _shares(ratio, pool)
    num_candidates = math.ceil(count * candidates)
    return num_candidates, _num_drawn(num_candidates, drawn)


def random_mask(count: int, ratio: float, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Draw indices of a share of ``count`` tiles without replacement; none for a ratio of 0."""
    if not ratio:
        return torch.empty(0, dtype=torch.int64, device=device)
    return permutation(count, device, generator)[: math.ceil(count * ratio)]


def select_mask(  # noqa: PLR0913 (each a setting of its own)
    scores: Tensor,
    ratio: float,
    largest: bool,
    pool: float = 1.0,
    fusion: Fusion = "vote",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Select indices of the tiles with the highest or lowest scores.

    Args:
        scores: ``(H, N)``.
        ratio: Share of the bag to mask.
        largest: The highest scores, else the lowest.
        pool: Below 1, that share of ``1 / pool`` times as many candidates is drawn at random.
        fusion: How several rows agree.
        generator: Of the draw.
    """
    share, drawn = _shares(ratio, pool)
    chosen = candidates(scores, math.ceil(scores.shape[1] * share), largest, fusion)
    # Of those that there are: averaged rows share tiles, and then have fewer candidates than were asked for.
    num_masked = _num_drawn(len(chosen), drawn)
    if num_masked == len(chosen):
        return chosen
    return chosen[permutation(len(chosen), scores.device, generator)[:num_masked]]


def candidates(scores: Tensor, count: int, largest: bool, fusion: Fusion = "vote") -> Tensor:
    """Select the ``count`` tiles with the highest or lowest scores, the most extreme first.

    With several rows, ``vote`` takes those that most rows have among their own ``count``, and of equal votes those
    with the more extreme sum of scores. ``average`` joins an equal part of each row, at most ``count`` in all.

    Args:
        scores: ``(H, N)``.
        count: How many.
        largest: The highest scores, else the lowest.
        fusion: How several rows agree.
    """
    ranked = scores.sort(dim=1, descending=largest, stable=True).indices
    if len(scores) == 1:
        return ranked[0, :count]
    if fusion == "average":
        joined: Tensor = ranked[:, : count // len(scores)].unique()
        return joined
    votes = torch.zeros_like(ranked).scatter_(1, ranked[:, :count], 1).sum(dim=0)
    extreme = scores.sum(dim=0).sort(descending=largest, stable=True).indices
    return extreme[votes[extreme].sort(descending=True, stable=True).indices[:count]]


def union_masks(masks: Sequence[Tensor], count: int) -> Tensor:
    """Unite index tensors into a bool mask ``(count,)``."""
    masked = torch.zeros(count, dtype=torch.bool, device=masks[0].device)
    masked[torch.cat(list(masks))] = True
    return masked


def kept_indices(masked: Tensor) -> Tensor:
    """Return the indices of tiles that are not masked, ascending."""
    return masked.logical_not().nonzero()[:, 0]


def permutation(count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Draw a random order of ``count`` indices on the generator's device."""
    home = device if generator is None else generator.device
    return torch.randperm(count, generator=generator, device=home).to(device)


def _shares(ratio: float, pool: float) -> tuple[float, float]:
    """Compute the share of the tiles that are candidates, and the share of these that is drawn."""
    return (1.0, ratio) if ratio > pool else (ratio / pool, pool)


def _num_drawn(count: int, share: float) -> int:
    return math.ceil(count * share) if share < 1 else count


def _last_resort(scores: Tensor, masking: Masking, high: float) -> Tensor:
    """Keep the highest-scoring tile outside the high candidates, or the lowest-scoring one if none is."""
    num_candidates, _ = mask_counts(scores.shape[1], high, masking.high_pool)
    hard = candidates(scores, num_candidates, largest=True, fusion=masking.fusion)
    total = scores.sum(dim=0)
    if len(hard) == len(total):
        return total.argmin()[None]
    return total.index_fill(0, hard, -math.inf).argmax()[None]


def _require_numbers(scores: Tensor) -> None:
    missing = int(scores.isnan().any(dim=0).sum())
    if missing:
        raise TrainingError(
            f"The teacher's scores of '{missing}' of {scores.shape[1]} tiles are not numbers. "
            "Features are known to be finite: the teacher has diverged. Lower optim.lr, set optim.clip_norm, or start "
            "from another teacher."
        )
