"""Bags: the features of a slide's tiles, read from their file when it is the slide's turn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.wsi.cohort.cohort import Cohort
from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.survey import Survey, survey_features
from vision_core.config.loading import fingerprint
from vision_core.errors import ConfigError
from vision_core.randomness import key
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import Features, check_rows
from vision_core.slides.features.hdf5 import H5Rows, Rows, blocks

Tiles = Rows | Tensor  # (N, features), in memory or on disk
_STRETCH = 4096  # tiles embedded at a time: what is read of a bag of 300,000 is never in memory as a whole


@dataclass(frozen=True, kw_only=True)
class Bag:
    """One slide as the learner gets it.

    Attributes:
        features: ``(N, D)`` float32, N from 1 on.
        label: int64 scalar.
        name: Of the slide.
        key: Seed of what is drawn for it in this epoch, whichever process and step has it; none: from torch's state.
    """

    features: Tensor
    label: Tensor
    name: str
    key: int | None = None


@dataclass(frozen=True, kw_only=True)
class TileSampling:
    """What becomes of a bag's tiles in training, drawn anew for every epoch and bag.

    Attributes:
        seed: Of the training.
        max_tiles: Most tiles of a bag; 0: all.
        shuffle: Whether their order is drawn too; else it is that of the file.
    """

    seed: int
    max_tiles: int = 0
    shuffle: bool = False

    def draw(self, num_tiles: int, epoch: int, index: int) -> NDArray[np.int64] | None:
        """Row numbers of bag ``index`` in ``epoch``; None: all rows as they stand."""
        has_too_many = 0 < self.max_tiles < num_tiles
        if not (has_too_many or self.shuffle):
            return None
        generator = np.random.default_rng(key("tiles", self.seed, epoch, index))
        rows = generator.permutation(num_tiles)[: self.max_tiles or None]
        return rows if self.shuffle else np.sort(rows)


class Bags:
    """Labelled bags by (epoch, index): a ``TrainingSet``, and what evaluation walks through.

    Args:
        records: Slides and their feature files.
        classes: Names in the order of the labels.
        survey: What looking at all files has shown; ``survey_features`` makes it.
        sampling: For training; none gives whole bags.

    Attributes:
        records: Those of the slides that can be used and have a tile.
        classes: As given.
        feature_dim: Features of a tile.
        made_with: ``encoder``, ``mpp`` and ``tile_px`` of the features, as far as the files say.
        without_tissue: Names of slides that have no tile: they are no bags, and evaluation names them.
        notes: What a person should know.
    """

    def __init__(
        self,
        records: Sequence[SlideRecord],
        classes: tuple[str, ...],
        survey: Survey,
        sampling: TileSampling | None = None,
    ) -> None:
        absent = {*survey.without_tissue, *survey.left_out}
        self.records = tuple(record for record in records if record.slide not in absent)
        self.classes, self._sampling = classes, sampling
        self.feature_dim, self.made_with = survey.feature_dim, survey.made_with
        self.without_tissue, self.notes = survey.without_tissue, survey.notes

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: tuple[int, int]) -> Bag:
        epoch, index = place
        record = self.records[index]
        rows = self.rows(index)
        chosen = self._sampling.draw(len(rows), epoch, index) if self._sampling else None
        tiles = _whole(rows) if chosen is None else np.array(rows[chosen], np.float32)
        if isinstance(rows, H5Rows):
            rows.close()
        check_rows(tiles, record.path)
        drawn = key("bag", self._sampling.seed, epoch, index) if self._sampling else None
        return Bag(features=torch.from_numpy(tiles), label=torch.tensor(record.label), name=record.slide, key=drawn)

    def features(self, index: int) -> Features:
        """The features of a slide as its file has them, with places and attributes."""
        return read_any_features(self.records[index].path, check=False)

    def rows(self, index: int) -> Rows:
        """The rows ``(N, D)`` of a slide, which stay in the file until they are indexed."""
        return self.features(index).features

    def collate(self, items: list[Bag]) -> Bag:
        """The one bag of a step."""
        if len(items) != 1:
            raise ConfigError(_one_bag(len(items)))
        return items[0]

    def names(self, indices: Sequence[int]) -> list[str]:
        """Slides."""
        return [self.records[index].slide for index in indices]


def training_bags(config: WsiConfig, cohort: Cohort) -> tuple[Bags, Bags]:
    """The bags to learn from and the whole bags to choose on.

    Raises:
        ConfigError: A step would be of more than one bag.
        DataError: Feature files cannot be used or do not fit each other; a class is left without tissue.
    """
    if config.train.batch_size != 1:
        raise ConfigError(_one_bag(config.train.batch_size))
    data = config.data
    # Those to report on too: what is wrong with them is better known before a training than behind it.
    gather_objects = survey_features((*cohort.train, *cohort.val, *cohort.test), data.on_missing, progress="features")
    sampling = TileSampling(seed=config.train.seed, max_tiles=data.max_tiles, shuffle=data.shuffle_tiles)
    train = Bags(cohort.train, cohort.classes, gather_objects.of(cohort.train), sampling)
    val = Bags(cohort.val, cohort.classes, gather_objects.of(cohort.val))
    for name, bags in {"training": train, "validation": val}.items():
        gather_objects.refuse_absent_classes(name, [record.label for record in bags.records], cohort.classes)
    return train, val


def whole_bags(
    records: Sequence[SlideRecord], classes: tuple[str, ...], config: WsiConfig, feature_dim: int | None = None
) -> Bags:
    """Bags to evaluate on, all tiles in the order of their files.

    Args:
        records: Slides and their feature files.
        classes: Of the model.
        config: Its ``data.on_missing`` says what becomes of files that cannot be used.
        feature_dim: Of the model; files of another are refused.

    Raises:
        DataError: Feature files cannot be used, or do not fit each other or the model.
    """
    survey = survey_features(records, config.data.on_missing, feature_dim=feature_dim, progress="features")
    return Bags(records, classes, survey)


def manifest(bags: Bags) -> str:
    """Changes with the slides or their labels."""
    return fingerprint([[record.slide, record.label] for record in bags.records])


def _whole(rows: Rows) -> NDArray[np.float32]:
    """All rows in memory of their own; as float32 they are there once, whatever the file holds."""
    tiles = np.empty(rows.shape, np.float32)
    for first, block in blocks(rows):
        tiles[first : first + len(block)] = block
    return tiles


def _one_bag(size: int) -> str:
    return (
        f"train.batch_size is '{size}'; a step takes one bag, as published. Set train.batch_size=1, and "
        f"train.accumulate={size} to move after so many bags."
    )


def mean_tile(features: Tiles) -> NDArray[np.float32]:
    """The mean ``(features,)`` over the tiles of a bag: what the scope guard looks at."""
    total = sum(part.double().sum(dim=0) for part in stretches(features))
    assert isinstance(total, Tensor)
    return np.asarray((total / len(features)).float().cpu().numpy(), np.float32)


def stretches(features: Tiles) -> Iterator[Tensor]:
    """Read a bag a few thousand tiles at a time."""
    for first in range(0, len(features), _STRETCH):
        part = features[first : first + _STRETCH]
        yield part.float() if isinstance(part, Tensor) else torch.from_numpy(np.array(part, np.float32))
