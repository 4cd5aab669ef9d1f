"""Bags of tile features, read from their file when needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.wsi.cohort.cohort import Cohort
from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.cohort.same_slides import judge_same
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.survey import Survey, survey_features
from vision_core.config.loading import fingerprint
from vision_core.errors import ConfigError, DataError
from vision_core.randomness import key
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import Features, check_finite
from vision_core.slides.features.hdf5 import H5Rows, Rows, row_blocks

Tiles = Rows | Tensor  # (N, features), in memory or on disk
_CHUNK_TILES = 4096  # tiles embedded at a time, so that a bag of 300,000 tiles need not fit into memory


@dataclass(frozen=True, kw_only=True)
class Bag:
    """Input of one training step: the tiles of a slide and its label.

    Attributes:
        features: ``(N, D)`` float32, N from 1 on.
        label: int64 scalar.
        name: Name of the slide.
        key: Seed of masks and dropout for this bag and epoch, the same in any process and step; None: torch's state.
    """

    features: Tensor
    label: Tensor
    name: str
    key: int | None = None


@dataclass(frozen=True, kw_only=True)
class TileSampling:
    """Random choice and order of a bag's tiles in training, new in every epoch.

    Attributes:
        seed: Seed of the training.
        max_tiles: Largest number of tiles; 0: all.
        shuffle: Whether to shuffle the tiles instead of keeping the order of the file.
    """

    seed: int
    max_tiles: int = 0
    shuffle: bool = False

    def draw(self, num_tiles: int, epoch: int, index: int) -> NDArray[np.int64] | None:
        """Draw the row numbers of a bag in an epoch; None: all rows in order."""
        has_too_many = 0 < self.max_tiles < num_tiles
        if not (has_too_many or self.shuffle):
            return None
        generator = np.random.default_rng(key("tiles", self.seed, epoch, index))
        rows = generator.permutation(num_tiles)[: self.max_tiles or None]
        return rows if self.shuffle else np.sort(rows)


class Bags:
    """Labelled bags by (epoch, index), for training (a ``TrainingSet``) and evaluation.

    Args:
        records: Slides and their feature files.
        classes: Names in the order of the labels.
        survey: Result of ``survey_features`` on these files.
        sampling: Choice of tiles in training; None: whole bags.

    Attributes:
        records: Slides that have a usable file with at least one tile.
        classes: Names in the order of the labels.
        feature_dim: Features of a tile.
        made_with: ``encoder``, ``mpp`` and ``tile_px`` of the features, as far as the files state them.
        without_tissue: Names of slides without tiles, which are no bags.
        notes: Notes to the user.
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
        self._contents = survey.contents

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: tuple[int, int]) -> Bag:
        epoch, index = place
        record = self.records[index]
        rows = self.rows(index)
        chosen = self._sampling.draw(len(rows), epoch, index) if self._sampling else None
        tiles = _read_all(rows) if chosen is None else np.array(rows[chosen], np.float32)
        if isinstance(rows, H5Rows):
            rows.close()
        check_finite(tiles, record.path)
        drawn = key("bag", self._sampling.seed, epoch, index) if self._sampling else None
        return Bag(features=torch.from_numpy(tiles), label=torch.tensor(record.label), name=record.slide, key=drawn)

    def features(self, index: int) -> Features:
        """Open the features of a slide with coordinates and attributes."""
        return read_any_features(self.records[index].path, check=False)

    def rows(self, index: int) -> Rows:
        """Open the rows ``(N, D)`` of a slide; they are read when indexed."""
        return self.features(index).features

    @property
    def contents(self) -> list[str]:
        """Return the sum of each slide's features, as they were when the run began."""
        return [self._contents.get(record.slide, "") for record in self.records]

    def collate(self, items: list[Bag]) -> Bag:
        """Return the only bag of a step.

        Raises:
            ConfigError: The step has more than one bag.
        """
        if len(items) != 1:
            raise ConfigError(_batch_size_problem(len(items)))
        return items[0]

    def names(self, indices: Sequence[int]) -> list[str]:
        """Return the names of slides."""
        return [self.records[index].slide for index in indices]


def training_bags(config: WsiConfig, cohort: Cohort) -> tuple[Bags, Bags]:
    """Make the training bags and the whole validation bags.

    Raises:
        ConfigError: ``train.batch_size`` is not 1.
        DataError: Feature files cannot be used or differ in width or origin; no slide of a class has tissue.
    """
    if config.train.batch_size != 1:
        raise ConfigError(_batch_size_problem(config.train.batch_size))
    data = config.data
    # Test files are checked too, so that their faults are known before the training, not after it.
    every = (*cohort.train, *cohort.val, *cohort.test)
    survey = survey_features(every, data.on_missing, by_first=True)
    survey = with_same_judged(survey, cohort.lists(data), cohort.classes)
    sampling = TileSampling(seed=config.train.seed, max_tiles=data.max_tiles, shuffle=data.shuffle_tiles)
    train = Bags(cohort.train, cohort.classes, survey.subset(cohort.train), sampling)
    val = Bags(cohort.val, cohort.classes, survey.subset(cohort.val))
    for name, bags in {"training": train, "validation": val}.items():
        survey.refuse_absent_classes(name, [record.label for record in bags.records], cohort.classes)
    return train, val


def with_same_judged(survey: Survey, lists: Mapping[str, Sequence[SlideRecord]], classes: Sequence[str]) -> Survey:
    """Refuse the same features under two labels or on two lists; note them otherwise.

    Raises:
        DataError: With all files that are the same.
    """
    problems, notes = judge_same(survey.same, lists, classes)
    if problems:
        raise DataError([f"Feature files: {problem}" for problem in problems])
    return replace(survey, notes=(*survey.notes, *notes))


def whole_bags(
    records: Sequence[SlideRecord],
    classes: tuple[str, ...],
    config: WsiConfig,
    feature_dim: int | None = None,
    trained: Mapping[str, Any] | None = None,
) -> Bags:
    """Make whole bags for evaluation, tiles in the order of their files.

    Args:
        records: Slides and their feature files.
        classes: Classes of the model.
        config: Its ``data.on_missing`` applies to files that cannot be used.
        feature_dim: Feature width of the model; files of another width are refused.
        trained: Origin of the features that the model was trained with; files of another are refused.

    Raises:
        DataError: Feature files cannot be used, or differ from each other or from the model in width or origin.
    """
    survey = survey_features(records, config.data.on_missing, feature_dim=feature_dim, trained=trained)
    return Bags(records, classes, with_same_judged(survey, {"evaluated": records}, classes))


def manifest(bags: Bags) -> str:
    """Hash the slides and their labels."""
    return records_manifest(bags.records)


def records_manifest(records: Sequence[SlideRecord]) -> str:
    """Hash slides and their labels."""
    return fingerprint([[record.slide, record.label] for record in records])


def content_manifest(bags: Bags) -> str:
    """Hash the slides, their labels, and the content of their features."""
    rows = [[record.slide, record.label, content] for record, content in zip(bags.records, bags.contents, strict=True)]
    return fingerprint(rows)


def _read_all(rows: Rows) -> NDArray[np.float32]:
    """Copy all rows into memory as float32, block by block."""
    tiles = np.empty(rows.shape, np.float32)
    for first, block in row_blocks(rows):
        tiles[first : first + len(block)] = block
    return tiles


def _batch_size_problem(size: int) -> str:
    return (
        f"train.batch_size is '{size}'; a step takes one bag, as published. Set train.batch_size=1, and "
        f"train.accumulate={size} to move after so many bags."
    )


def mean_tile(features: Tiles) -> NDArray[np.float32]:
    """Average the tiles of a bag ``(features,)``, the input of the scope guard."""
    total = sum(part.double().sum(dim=0) for part in tile_chunks(features))
    assert isinstance(total, Tensor)
    return np.asarray((total / len(features)).float().cpu().numpy(), np.float32)


def tile_chunks(features: Tiles) -> Iterator[Tensor]:
    """Read a bag in chunks of a few thousand tiles."""
    for first in range(0, len(features), _CHUNK_TILES):
        part = features[first : first + _CHUNK_TILES]
        yield part.float() if isinstance(part, Tensor) else torch.from_numpy(np.array(part, np.float32))
