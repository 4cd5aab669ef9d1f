"""Memory of WSCoL: a queue of region maps for each class, and a prototype of each class that follows their mean.

Source: arXiv 2410.05557 and the behaviour of the code released with its third version. Both are buffers, so that a run
resumes with them; the released code loses them. Reading gives the whole queue: the released code draws as many items
as a queue holds, without replacement, which is the queue in another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vision_core.training.runtime import full_float32


class MemoryBank(nn.Module):
    """Queue of the newest maps of each class.

    Args:
        num_classes: Foreground classes.
        shape: ``(C, H, W)`` of a map.
        capacity: Maps kept of a class.

    Attributes:
        maps: ``(classes, capacity, C, H, W)``.
        pushed: ``(classes,)`` int64, maps pushed so far; the next of a class goes to this place, modulo the capacity.
    """

    maps: Tensor
    pushed: Tensor

    def __init__(self, num_classes: int, shape: tuple[int, int, int], capacity: int = 10) -> None:
        super().__init__()
        self.register_buffer("maps", torch.zeros(num_classes, capacity, *shape))
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def push(self, maps: Tensor, labels: Tensor) -> None:
        """Append ``maps`` ``(n, C, H, W)`` of the classes ``labels`` ``(n,)``, in order; a full queue drops its oldest.

        The host does not wait for the device.
        """
        num_classes, capacity = self.maps.shape[:2]
        classes = torch.arange(num_classes, device=labels.device)
        # No more at once than a queue holds, so that no two maps meet in one place.
        for some, theirs in zip(maps.split(capacity), labels.split(capacity), strict=True):
            earlier = (theirs[:, None] == theirs).tril(-1).sum(dim=1)  # (n,) of the same class
            self.maps[theirs, (self.pushed[theirs] + earlier) % capacity] = some.to(self.maps.dtype)
            self.pushed += (theirs[:, None] == classes).sum(dim=0)

    def read(self) -> tuple[Tensor, Tensor]:
        """Read all maps ``(B, C, H, W)`` with their classes ``(B,)``, classes ascending."""
        places = torch.arange(self.maps.shape[1], device=self.pushed.device)
        held = (places < self.pushed[:, None]).nonzero()  # the host waits for their number
        classes, place = held.unbind(dim=1)
        return self.maps[classes, place], classes


class Prototypes(nn.Module):
    """Prototype of each class, a moving average of the mean of its mapped features; not normalised.

    Args:
        num_classes: Foreground classes.
        dim: Width of the features.
        rate: Share of the new mean; the first mean is taken whole.

    Attributes:
        vectors: ``(classes, dim)``.
        known: ``(classes,)`` bool: whether a class has been seen.
    """

    vectors: Tensor
    known: Tensor

    def __init__(self, num_classes: int, dim: int, rate: float = 0.4) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("vectors", torch.zeros(num_classes, dim))
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def move(self, features: Tensor, labels: Tensor) -> None:
        """Move the prototypes of the classes ``labels`` ``(B,)`` towards the means of ``features`` ``(B, dim)``."""
        vectors, known = move_prototypes(self.vectors, self.known, features, labels, self.rate)
        self.vectors.copy_(vectors)
        self.known.copy_(known)


class ClassMemory(nn.Module):
    """Memory bank and prototypes of one training.

    Args:
        num_classes: Foreground classes.
        shape: ``(C, H, W)`` of a map.
        dim: Width of the mapped features.
        capacity: Maps kept of a class.
        rate: Share of the new mean in a prototype.
    """

    def __init__(
        self, num_classes: int, shape: tuple[int, int, int], dim: int, capacity: int = 10, rate: float = 0.4
    ) -> None:
        super().__init__()
        self.bank = MemoryBank(num_classes, shape, capacity)
        self.prototypes = Prototypes(num_classes, dim, rate)

    @torch.no_grad()
    def take_in(self, maps: Tensor, labels: Tensor, mapping: Callable[[Tensor], Tensor]) -> Tensor:
        """Push ``maps`` ``(n, C, H, W)`` of the classes ``labels`` ``(n,)``, and move the prototypes once.

        Args:
            maps: Of the pseudo labels.
            labels: Their classes.
            mapping: The mapping network as it is now; it maps the whole bank.

        Returns:
            All maps of the bank ``(B, C, H, W)``.
        """
        self.bank.push(maps, labels)
        held, classes = self.bank.read()
        self.prototypes.move(mapping(held), classes)
        return held


def move_prototypes(
    prototypes: Tensor, known: Tensor, features: Tensor, labels: Tensor, rate: float = 0.4
) -> tuple[Tensor, Tensor]:
    """Compute ``p_c = mu_c`` where a class is new, ``p_c = (1 - rate) * p_c + rate * mu_c`` where it is known.

    Args:
        prototypes: ``(classes, dim)``.
        known: ``(classes,)`` bool.
        features: ``(B, dim)``, mapped maps of the memory bank.
        labels: ``(B,)`` int64; classes that are absent keep their prototypes.
        rate: Share of the class mean ``mu_c``.

    Returns:
        The prototypes, and which of them are known now.
    """
    classes = torch.arange(len(prototypes), device=labels.device)
    members = (labels == classes[:, None]).to(prototypes.dtype)  # (classes, B)
    counts = members.sum(dim=1, keepdim=True)
    with full_float32(features.device):
        means = (members @ features.to(prototypes.dtype)) / counts.clamp(min=1)
    moved = torch.where(known[:, None], prototypes.lerp(means, rate), means)
    is_present = counts[:, 0] > 0
    return torch.where(is_present[:, None], moved, prototypes), known | is_present
