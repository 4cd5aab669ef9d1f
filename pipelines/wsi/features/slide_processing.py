"""Slide processing from tissue to features, shared by all verbs and the app."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.config import WsiConfig
from vision_core.batch.inspection import Inspected
from vision_core.batch.prefetch import Prefetcher
from vision_core.config import loading as configs
from vision_core.console import Progress
from vision_core.errors import ConfigError, DataError
from vision_core.files import Stamp, sha256, stamp
from vision_core.randomness import key
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.features.extraction import ExtractionSettings, extract_features, summarise_times
from vision_core.slides.features.files import Features
from vision_core.slides.identity import identity, other_instances
from vision_core.slides.reading.slide import Slide, TileError, open_slide
from vision_core.slides.tiling import Tiles, tile_grid
from vision_core.slides.tissue.edited_masks import check_masks, find_mask, list_masks
from vision_core.slides.tissue.segmentation import Tissue, find_tissue

_PROBED = 3
_STATED_WINS = "over the file's"  # part of the hash, since earlier versions took the file's own microns per pixel
_BYTES_PER_TILE = 150  # of the list of tiles, packed, and of a record
_BYTES_PER_SLIDE = 3_000_000  # of pictures
_LOG = logging.getLogger("domainsight")
# Of the encoders built in this process, by their settings and the stamps of their files.
_identities: dict[tuple[str, tuple[Stamp, ...]], Mapping[str, Any]] = {}


@dataclass(frozen=True, kw_only=True)
class ProcessedSlide:
    """Tissue, tiles and features of a slide.

    Attributes:
        size: ``(height, width)`` of level 0 in pixels.
        mpp: Microns per pixel at level 0.
        tissue: Tissue regions.
        tiles: Tiles on the tissue; may be empty.
        features: Features of the tiles, without unreadable tiles where ``read.max_bad_tiles`` allows them.
        notes: Warnings to the user.
    """

    size: tuple[int, int]
    mpp: float
    tissue: Tissue
    tiles: Tiles
    features: Features
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _PreparedSlide:
    """An open slide with its tissue and tiles."""

    slide: Slide
    tissue: Tissue
    tiles: Tiles

    def close(self) -> None:
        self.slide.close()


@dataclass(frozen=True)
class SlideProcessor:
    """Processor of slides; its encoder is built at first use.

    Attributes:
        config: Its ``read``, ``tissue``, ``tiles`` and ``encoder``.
        device: Device of the encoder.
        mpps: Microns per pixel at level 0 by the slide's ``identity``, as a CSV states them.
    """

    config: WsiConfig
    device: torch.device
    mpps: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def encoder(self) -> Encoder:
        """Encoder of tiles, built at first use."""
        # Convolutions by channel, of which lite0 is made, take ten times as long in bf16 on a CPU.
        is_slow = self.config.encoder.name == "lite0" and self.device.type == "cpu"
        from vision_core.slides.encoders.networks import build_encoder  # timm is loaded when an encoder is

        return build_encoder(self.config.encoder, self.device, "off" if is_slow else "auto")

    def fingerprint(self) -> str:
        """Hash everything that features depend on: settings, edited masks, the encoder's weights."""
        config, encoder = self.config, self._encoder_identity()
        made_by = {name: value for name, value in encoder.items() if name != "precision"}
        sections = [
            config.tissue.model_dump(mode="json", exclude={"regions"}),
            config.tiles.model_dump(mode="json"),
            config.encoder.model_dump(mode="json", exclude={"weights", "batch_size"}),
        ]
        read = [config.read.mpp, config.read.max_bad_tiles]
        return configs.fingerprint([sections, read, made_by, self._masks()])

    def follows(self, path: Path) -> str:
        """Hash a slide's edited mask, stated microns per pixel and further DICOM files; empty without any of them."""
        regions = self.config.tissue.regions
        mask = find_mask(regions, path, self._mask_files) if regions else None
        mpp = self._stated_mpp(path)
        found: list[object] = [sha256(mask) if mask else None, [mpp, _STATED_WINS] if mpp else None]
        # The stamp of a slide is of one file; its other levels stand in files of their own.
        levels = {name: each.model_dump(mode="json") for name, each in other_instances(path).items()}
        found += [levels] if levels else []
        return configs.fingerprint(found) if any(found) else ""

    def tile_attributes(self) -> dict[str, float]:
        """List the tile attributes that settings fix before a slide is opened."""
        tiles = self.config.tiles
        return {"tile_px": tiles.tile_px, "mpp": tiles.mpp} if tiles.layout == "mpp" else {}

    def _encoder_identity(self) -> Mapping[str, Any]:
        """Return the encoder's facts; of one that this process has built before they are known without building it."""
        settings, weights = self.config.encoder, self.config.encoder.weights
        listed = () if weights is None else weights.iterdir() if weights.is_dir() else (weights,)
        stamps = tuple(stamp(path) for path in sorted(listed) if path.is_file())
        known = (settings.model_dump_json(exclude={"batch_size"}), stamps)
        if known not in _identities:
            _identities[known] = self.encoder.identity
        return _identities[known]

    def _masks(self) -> list[tuple[str, str]]:
        regions = self.config.tissue.regions
        return [(str(mask.relative_to(regions)), sha256(mask)) for mask in self._mask_files] if regions else []

    @cached_property
    def _mask_files(self) -> list[Path]:
        """Edited masks, listed once for all slides."""
        regions = self.config.tissue.regions
        return list_masks(regions) if regions else []

    def check(self) -> None:
        """Refuse settings that would fail every slide.

        Raises:
            ConfigError: The folder of edited masks is none.
        """
        regions = self.config.tissue.regions
        if regions and not regions.is_dir():
            raise ConfigError(f"tissue.regions: '{regions}' is not a folder. Give the folder of edited masks.")

    def check_masks(self, slides: Sequence[Path]) -> list[str]:
        """Match edited masks with slides; returns notes on masks that are of none of them.

        Raises:
            ConfigError: As ``check``.
            DataError: A mask fits several slides, or several masks fit a slide.
        """
        self.check()
        return check_masks(self.config.tissue.regions, slides) if self.config.tissue.regions else []

    def open(self, path: Path) -> Slide:
        """Open a slide.

        Raises:
            InputError: It is no slide, or nobody says how many microns a pixel covers.
        """
        return open_slide(path, self.config.read, self._stated_mpp(path))

    def _stated_mpp(self, path: Path) -> float | None:
        return self.mpps.get(identity(path)) if self.mpps else None

    def tiles(self, slide: Slide) -> tuple[Tissue, Tiles]:
        """Find the tissue of a slide and lay tiles on it."""
        tissue = find_tissue(slide, self.config.tissue, self.config.read.max_bad_tiles)
        return tissue, tile_grid(slide, tissue, self.config.tiles)

    def process(self, path: Path, file: Path | None = None) -> ProcessedSlide:
        """Extract the features of a slide.

        Args:
            path: The slide.
            file: File of the features, from which an interrupted extraction resumes. None: an unnamed temporary file.

        Raises:
            InputError: The slide, or a tile of it, cannot be read.
        """
        opened = self._prefetcher.take(path)
        with opened.slide as slide:
            tissue, tiles = opened.tissue, opened.tiles
            with closing(_TileBar(path.name)) as bar:
                features = extract_features(slide, tiles, self.encoder, replace(self.extraction(file), on_tiles=bar))
            notes = (*slide.notes, *tissue.notes, *features.notes)
            return ProcessedSlide(
                size=slide.size, mpp=slide.mpp, tissue=tissue, tiles=tiles, features=features, notes=notes
            )

    def expect(self, paths: Sequence[Path]) -> None:
        """Open the next slides and find their tissue while others are encoded."""
        self._prefetcher.expect(paths)

    @cached_property
    def _prefetcher(self) -> Prefetcher[_PreparedSlide]:
        return Prefetcher(self._prepare, _PreparedSlide.close)

    def _prepare(self, path: Path) -> _PreparedSlide:
        slide = self.open(path)
        try:
            tissue, tiles = self.tiles(slide)
        except BaseException:
            slide.close()
            raise
        return _PreparedSlide(slide=slide, tissue=tissue, tiles=tiles)

    def extraction(self, file: Path | None = None) -> ExtractionSettings:
        """Return the settings of feature extraction."""
        encoder = self.config.encoder
        return ExtractionSettings(
            read=self.config.read,
            batch_size=encoder.batch_size,
            storage=encoder.storage,
            path=file,
            fingerprint=self.fingerprint(),
        )

    def inspect(self, path: Path) -> Inspected:
        """Count the tiles of a slide and read four of them, for a batch plan.

        Raises:
            InputError: The slide will fail.
        """
        try:
            with self.open(path) as slide:
                _, tiles = self.tiles(slide)
                self._probe(slide, tiles)
                count = len(tiles.corners)
                return Inspected(
                    facts={"mpp": slide.mpp, "mpp_source": slide.mpp_source, "fast": int(slide.is_fast)},
                    work={"tiles": count},
                    output_bytes=_BYTES_PER_SLIDE + count * _BYTES_PER_TILE,
                )
        except (DataError, OSError):
            raise
        except Exception:  # reported when the slide is processed: a plan must not end a batch
            _LOG.debug("'%s' could not be inspected", path, exc_info=True)
            return Inspected()

    def _probe(self, slide: Slide, tiles: Tiles) -> None:
        count = len(tiles.corners)
        if not count:
            return
        generator = np.random.default_rng(key("probe", slide.path.name))
        places = [*generator.integers(count, size=min(_PROBED, count)).tolist(), count - 1]
        for x, y in tiles.corners[places].tolist():
            try:
                slide.read(tiles.level, x, y, tiles.read_px, tiles.read_px)
            except TileError:
                if not self.config.read.max_bad_tiles:
                    raise


class _TileBar:
    """Progress bar over the tiles of a slide."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:  # counted from here: an earlier process may have done tiles
            self._bar = Progress(total, self._name, "tile", done, is_passing=True)
        self._bar.reach(done)

    def close(self) -> None:
        if self._bar:
            self._bar.close()


def mpps_of(records: Iterable[SlideRecord]) -> dict[str, float]:
    """Return the microns per pixel that a list states, by the slide's ``identity``."""
    return {identity(record.path): record.mpp for record in records if record.mpp is not None}


def unfinished_file(folder: Path, path: Path) -> Path:
    """Name the unfinished feature file of a slide."""
    return folder / f"{blake2b(os.fsencode(path), digest_size=8).hexdigest()}.h5"


def timing_summary(path: Path, processed: ProcessedSlide) -> str:
    """Summarise where the time of a slide went."""
    return f"'{path.name}': {summarise_times(processed.features.facts)}"
