"""Extraction of features from the tiles of a slide, in bounded memory."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vision_core.errors import InputError
from vision_core.files import stamp
from vision_core.signals import raise_if_stopped
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.features.adaptive_batches import AdaptiveBatches
from vision_core.slides.features.files import Features, read_features, write_features
from vision_core.slides.features.journal import RowJournal
from vision_core.slides.features.tile_batches import TileBatch, batch_ranges, read_batches
from vision_core.slides.reading.slide import Slide
from vision_core.slides.settings import ReadSettings
from vision_core.slides.tiling import Tiles

TileProgress = Callable[[int, int], None]
_DTYPES: Mapping[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


@dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    """Settings of an extraction.

    Attributes:
        read: Reading threads, and the number of tiles that may be unreadable.
        batch_size: Number of tiles in a batch.
        storage: Precision of the file.
        max_bad_tiles: Takes precedence over ``read.max_bad_tiles``.
        path: File to write, ``.h5``; None for a temporary file, deleted when the features are no longer used.
        fingerprint: Of the settings of tissue, grid and encoder; stored in the file.
        on_tiles: Called after each batch with the number of tiles done and of all tiles.
    """

    read: ReadSettings = field(default_factory=ReadSettings)
    batch_size: int = 64
    storage: Literal["fp16", "fp32"] = "fp16"
    max_bad_tiles: int | None = None
    path: Path | None = None
    fingerprint: str = ""
    on_tiles: TileProgress | None = None


def extract_features(
    slide: Slide, tiles: Tiles, encoder: Encoder, settings: ExtractionSettings | None = None
) -> Features:
    """Extract the features of a slide's tiles, in their order.

    With a path, finished batches of a killed process are kept beside it, and the same call resumes after them, to the
    same bytes. A tile that cannot be read after two tries is left out and listed, or fails the slide.

    Args:
        slide: The slide.
        tiles: Its tiles.
        encoder: The encoder.
        settings: Settings; their defaults if None.

    Returns:
        Rows in a file, with timings in ``facts`` (``summarise_times`` describes them).

    Raises:
        InputError: More tiles than allowed cannot be read, the encoder returns NaN or infinity for one, or half a batch
            is too large for the memory.
        EnvironmentFault: The disk is full.
    """
    settings = settings or ExtractionSettings()
    if settings.path is not None:
        return _extract(slide, tiles, encoder, settings, settings.path)
    with TemporaryDirectory(prefix="features-") as folder:  # the file stays readable while it is open
        return _extract(slide, tiles, encoder, settings, Path(folder, "features.h5"))


def expected_attributes(slide_path: Path, encoder: Encoder, settings: ExtractionSettings) -> dict[str, Any]:
    """Collect the attributes that a reusable file of this slide must have.

    Raises:
        InputError: The slide does not exist.
    """
    now = stamp(slide_path)
    return {
        "slide": slide_path.name,
        "slide_size": now.size,
        "slide_ends": now.ends,
        "encoder": encoder.identity,
        "storage": settings.storage,
        "fingerprint": settings.fingerprint,
    }


def summarise_times(facts: Mapping[str, float]) -> str:
    """Describe the seconds of each step, and which bounds the speed."""
    parts = {name: facts[f"{key}_seconds"] for name, key in _PARTS.items()}
    if not facts["tiles"] and not facts.get("taken_over"):
        return "0 tiles."
    listed = ", ".join(f"{seconds:.1f} s {name}" for name, seconds in parts.items())
    bound = max(parts, key=lambda name: parts[name])
    before = facts.get("taken_over", 0.0)
    resumed = f" {before:,.0f} more were taken over from an interrupted run." if before else ""
    return (
        f"{facts['tiles']:,.0f} tiles in {facts['seconds']:.1f} s ({facts['tiles_per_second']:.0f} a second): "
        f"{listed}; {_BOTTLENECKS[bound]}.{resumed}"
    )


_PARTS = {"waiting for tiles": "waiting", "encoding": "encoding", "writing": "writing"}
_BOTTLENECKS = {
    "waiting for tiles": "reading bounds the speed",
    "encoding": "the encoder bounds the speed",
    "writing": "writing bounds the speed",
}


def _extract(slide: Slide, tiles: Tiles, encoder: Encoder, settings: ExtractionSettings, path: Path) -> Features:
    started = time.perf_counter()
    attributes = expected_attributes(slide.path, encoder, settings) | _grid_attributes(slide, tiles)
    batches = batch_ranges(tiles, settings.batch_size)
    key = _resume_key(attributes, tiles, batches)
    with RowJournal(path, key, encoder.dim, _DTYPES[settings.storage]) as journal:
        extraction = _Extraction(slide, tiles, encoder, settings, journal)
        try:
            extraction.run(batches)
        except InputError:
            journal.remove()
            raise
        with extraction.timed("writing"):
            write_features(path, extraction.features(attributes))
        journal.remove()
    facts = extraction.facts(time.perf_counter() - started)
    return replace(read_features(path, check=False), facts=facts, notes=extraction.notes())


class _Extraction:
    """State of one extraction."""

    def __init__(
        self, slide: Slide, tiles: Tiles, encoder: Encoder, settings: ExtractionSettings, journal: RowJournal
    ) -> None:
        self._slide, self._tiles, self._settings, self._journal = slide, tiles, settings, journal
        self._encode = AdaptiveBatches(encoder)
        self._encoder = encoder
        self._taken_over = sum(batch.tiles for batch in journal.committed)
        self._bad = [index for batch in journal.committed for index in batch.bad]
        self._seconds = dict.fromkeys(("reading", "waiting", "encoding", "writing"), 0.0)

    def run(self, batches: Sequence[range]) -> None:
        """Read, encode and commit the batches that are not committed yet."""
        remaining = batches[len(self._journal.committed) :]
        with closing(read_batches(self._slide, self._tiles, remaining, self._settings.read.threads)) as reader:
            while True:
                with self.timed("waiting"):
                    batch = next(reader, None)
                if batch is None:
                    return
                raise_if_stopped()
                self._process(batch)
                if self._settings.on_tiles:
                    self._settings.on_tiles(batch.indices.stop, len(self._tiles))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds of a block to those of a step."""
        started = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - started

    def features(self, attributes: Mapping[str, Any]) -> Features:
        """Return all rows with the corners of their tiles."""
        corners = np.delete(self._tiles.corners, self._bad, axis=0)
        left_out = self._tiles.corners[self._bad].tolist()
        return Features(features=self._journal.rows(), coords=corners, attributes={**attributes, "left_out": left_out})

    def facts(self, seconds: float) -> dict[str, float]:
        """Collect seconds and counts of this run, without tiles done before."""
        done = len(self._tiles) - self._taken_over
        return {
            "tiles": float(done),
            "taken_over": float(self._taken_over),
            "left_out": float(len(self._bad)),
            **{f"{part}_seconds": round(spent, 4) for part, spent in self._seconds.items()},
            "seconds": round(seconds, 4),
            "tiles_per_second": round(done / max(seconds, 1e-9), 2),
        }

    def notes(self) -> tuple[str, ...]:
        """Collect remarks on the encoder, on memory and on unreadable tiles."""
        notes = [*self._encoder.notes(self._tiles.mpp), *self._encode.notes]
        if self._bad:
            notes.append(f"{len(self._bad)} of {len(self._tiles)} tiles cannot be read and are left out.")
        return tuple(notes)

    def _process(self, batch: TileBatch) -> None:
        self._seconds["reading"] += batch.seconds
        self._bad += sorted(batch.bad)
        self._check_bad_tiles(batch)
        with self.timed("encoding"):
            try:
                rows = self._encode(batch.pixels).cpu().numpy()
            except MemoryError as error:
                raise InputError(f"'{self._slide.path}': {error}") from error
        with self.timed("writing"):
            self._journal.commit(self._to_storage(rows, batch), len(batch.indices), sorted(batch.bad))

    def _check_bad_tiles(self, batch: TileBatch) -> None:
        own = self._settings.max_bad_tiles
        allowed = self._settings.read.max_bad_tiles if own is None else own
        if len(self._bad) <= allowed:
            return
        reason = next(iter(batch.bad.values()))
        count = f"'{self._slide.path}': {len(self._bad)} tiles cannot be read, read.max_bad_tiles allows {allowed}. "
        raise InputError(reason if allowed == 0 else count + reason)

    def _to_storage(self, rows: NDArray[np.float32], batch: TileBatch) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            stored: NDArray[Any] = rows.astype(_DTYPES[self._settings.storage])
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if not len(bad):
            return stored
        index = [index for index in batch.indices if index not in batch.bad][bad[0]]
        x, y = self._tiles.corners[index]
        is_large = np.isfinite(rows[bad[0]]).all()
        what = "more than fp16 holds; set encoder.storage=fp32" if is_large else "NaN or infinity; look at that tile"
        raise InputError(f"'{self._slide.path}': encoder '{self._encoder.name}' gives for x {x}, y {y} {what}.")


def _grid_attributes(slide: Slide, tiles: Tiles) -> dict[str, Any]:
    return {
        "mpp": tiles.mpp,
        "tile_px": tiles.tile_px,
        "tile_side": tiles.side,
        "slide_mpp": slide.mpp,
        "software": f"domainsight {version('domainsight')}",
    }


def _resume_key(attributes: Mapping[str, Any], tiles: Tiles, batches: Sequence[range]) -> str:
    """Compute the digest of inputs that a resumed extraction must share."""
    read = [tiles.level, tiles.read_px, [len(batches), len(batches[0]) if batches else 0]]
    digest = blake2b(json.dumps([attributes, read], sort_keys=True).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(tiles.corners).tobytes())
    return digest.hexdigest()
