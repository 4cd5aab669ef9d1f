"""Division of the classes of a data set into base and novel ones, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.ovd.image_text.vocabulary import name_key
from vision_core.detection.datasets.checks import near_name
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.errors import ConfigError, DataError
from vision_core.evaluation.class_names import variant_key

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Split:
    """Classes of a task in the order of the logits, base and novel ones mixed.

    Attributes:
        classes: All names.
        novel: Those whose boxes training never reads.
    """

    classes: tuple[str, ...]
    novel: tuple[str, ...]

    @property
    def base(self) -> tuple[str, ...]:
        """Names of the labelled classes, in order."""
        return tuple(name for name in self.classes if name not in self.novel)

    @property
    def is_novel(self) -> tuple[bool, ...]:
        """Whether each class is novel."""
        return tuple(name in self.novel for name in self.classes)


def split_classes(classes: Sequence[str], novel: Sequence[str]) -> Split:
    """Divide classes by name.

    Raises:
        ConfigError: A novel name is none of the classes, all or none are novel, or a novel class is a base class in
            another spelling, which leaks its boxes.
    """
    problems = [
        f"data.novel names '{name}', which is none of the classes. {near_name(name, tuple(classes))}"
        for name in novel
        if name not in classes
    ]
    split = Split(classes=tuple(classes), novel=tuple(name for name in classes if name in novel))
    leaks: dict[str, str] = {}
    for key in (name_key, variant_key):
        spelled = {key(name): name for name in split.base}
        leaks = {name: spelled[key(name)] for name in split.novel if key(name) in spelled} | leaks
    problems += [
        f"data.novel names '{name}', and '{base}' is a base class: its boxes would be read. Take one of the two out."
        for name, base in leaks.items()
    ]
    if not problems and not (split.base and split.novel):
        missing = "novel" if split.base else "base"
        problems.append(f"data.novel leaves no {missing} class of '{len(classes)}'. Name some of the classes, not all.")
    if problems:
        raise ConfigError(problems)
    return split


def base_dataset(dataset: DetectionDataset, split: Split) -> DetectionDataset:
    """Number the boxes of a data set that was read with the base classes alone by all classes of the split.

    Raises:
        DataError: The data set was read with a novel class, so that its boxes are in memory.
    """
    if leaked := [name for name in dataset.classes if name in split.novel]:
        raise DataError(f"'{dataset.name}' was read with boxes of the novel class '{leaked[0]}': a leak.")
    numbers = np.array([split.classes.index(name) for name in dataset.classes], dtype=np.int64)
    records = tuple(replace(record, labels=numbers[record.labels]) for record in dataset.records)
    return replace(dataset, classes=split.classes, records=records)


def check_no_leak(dataset: DetectionDataset, split: Split) -> None:
    """Refuse labels of novel classes among those that training reads.

    Raises:
        DataError: There is one; the message has the first image.
    """
    is_novel = np.array(split.is_novel)
    for record in dataset.records:
        if is_novel[record.labels].any():
            name = split.classes[int(record.labels[is_novel[record.labels]][0])]
            raise DataError(f"'{record.path.name}' has a box of the novel class '{name}' among its labels: a leak.")


def group_means(per_class: Mapping[str, float | None], split: Split) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Average a score by class over novel, base and all classes.

    Args:
        per_class: Score by name; None where no object is labelled.
        split: The classes.

    Returns:
        ``novel``, ``base`` and ``all``, None where none has a score; and a warning for classes that were left out.
    """
    groups = {"novel": split.novel, "base": split.base, "all": split.classes}
    means = {}
    for name, members in groups.items():
        present = [value for member in members if (value := per_class.get(member)) is not None]
        means[name] = float(np.mean(present)) if present else None
    empty = [name for name in split.classes if per_class.get(name) is None]
    shown = ", ".join(empty[:_SHOWN]) + (", ..." if len(empty) > _SHOWN else "")
    told = f"warning: {len(empty)} classes have no labelled object and take no part in the means: {shown}."
    return means, (told,) if empty else ()
