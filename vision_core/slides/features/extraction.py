"""From the tiles of a slide to a file of features, in memory that does not grow with the slide."""

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

OnTiles = Callable[[int, int], None]
_NUMBERS: Mapping[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """How features are extracted, and where they go.

    Attributes:
        read: Threads, and how many tiles may be unreadable.
        max_bad_tiles: So many may be instead of ``read.max_bad_tiles``.
        batch_size: Tiles at once.
        storage: Precision of the file.
        path: The file, ``.h5``; none is one without a name, which goes when the features are no longer used.
        fingerprint: Of the settings behind tissue, grid and encoder; it goes into the file.
        on_tiles: Is told after each batch how many tiles are done, and how many there are.
    """

    read: ReadSettings = field(default_factory=ReadSettings)
    batch_size: int = 64
    storage: Literal["fp16", "fp32"] = "fp16"
    max_bad_tiles: int | None = None
    path: Path | None = None
    fingerprint: str = ""
    on_tiles: OnTiles | None = None


def extract_features(slide: Slide, tiles: Tiles, encoder: Encoder, settings: ExtractSettings | None = None) -> Features:
    """The features of a slide's tiles, in the order of the grid.

    With a path, a process that is killed leaves beside it what it had, and the same call goes on from there to the same
    bytes. A tile that cannot be read, tried twice, is left out and listed, or fails the slide.

    Args:
        slide: The slide.
        tiles: Its grid.
        encoder: The network.
        settings: How, and where to.

    Returns:
        Rows in a file, with ``facts`` on where the time went (``summarise_times`` puts them in words).

    Raises:
        InputError: More tiles than allowed cannot be read, or the encoder gives no number for one; or a batch, halved,
            is still too large for the memory.
        EnvironmentFault: The disk is full.
    """
    settings = settings or ExtractSettings()
    if settings.path is not None:
        return _extract(slide, tiles, encoder, settings, settings.path)
    with TemporaryDirectory(prefix="features-") as folder:  # the open file outlives its name
        return _extract(slide, tiles, encoder, settings, Path(folder, "features.h5"))


def wanted_attributes(slide_path: Path, encoder: Encoder, settings: ExtractSettings) -> dict[str, Any]:
    """The attributes that a file must have to be used again for this slide; for ``why_again``.

    Raises:
        InputError: The slide is not there.
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
    """Seconds of each part, and what bounds the speed, in a sentence."""
    parts = {name: facts[f"{key}_seconds"] for name, key in _PARTS.items()}
    if not facts["tiles"] and not facts.get("taken_over"):
        return "0 tiles."
    listed = ", ".join(f"{seconds:.1f} s {name}" for name, seconds in parts.items())
    bound = max(parts, key=lambda name: parts[name])
    before = facts.get("taken_over", 0.0)
    resumed = f" {before:,.0f} more were taken over from an interrupted run." if before else ""
    return (
        f"{facts['tiles']:,.0f} tiles in {facts['seconds']:.1f} s ({facts['tiles_per_second']:.0f} a second): "
        f"{listed}; {_BOUND[bound]}.{resumed}"
    )


_PARTS = {"waiting for tiles": "waiting", "encoding": "encoding", "writing": "writing"}
_BOUND = {
    "waiting for tiles": "reading bounds the speed",
    "encoding": "the encoder bounds the speed",
    "writing": "writing bounds the speed",
}


def _extract(slide: Slide, tiles: Tiles, encoder: Encoder, settings: ExtractSettings, path: Path) -> Features:
    started = time.perf_counter()
    attributes = wanted_attributes(slide.path, encoder, settings) | _grid(slide, tiles)
    batches = batch_ranges(tiles, settings.batch_size)
    key = _key(attributes, tiles, batches)
    with RowJournal(path, key, encoder.dim, _NUMBERS[settings.storage]) as journal:
        work = _Work(slide, tiles, encoder, settings, journal)
        try:
            work.run(batches)
        except InputError:
            journal.remove()
            raise
        with work.timed("writing"):
            write_features(path, work.features(attributes))
        journal.remove()
    facts = work.facts(time.perf_counter() - started)
    return replace(read_features(path, check=False), facts=facts, notes=work.notes())


class _Work:
    """One extraction."""

    def __init__(
        self, slide: Slide, tiles: Tiles, encoder: Encoder, settings: ExtractSettings, journal: RowJournal
    ) -> None:
        self._slide, self._tiles, self._settings, self._journal = slide, tiles, settings, journal
        self._encode = AdaptiveBatches(encoder)
        self._encoder = encoder
        self._taken_over = sum(batch.tiles for batch in journal.committed)
        self._bad = [number for batch in journal.committed for number in batch.bad]
        self._seconds = dict.fromkeys(("reading", "waiting", "encoding", "writing"), 0.0)

    def run(self, batches: Sequence[range]) -> None:
        """Do the batches that are not committed yet."""
        left = batches[len(self._journal.committed) :]
        reading = read_batches(self._slide, self._tiles, left, self._settings.read.threads)
        with closing(reading):
            while (batch := self._next(reading)) is not None:
                raise_if_stopped()
                self._do(batch)
                if self._settings.on_tiles:
                    self._settings.on_tiles(batch.numbers.stop, len(self._tiles))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds of a block to a part."""
        started = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - started

    def features(self, attributes: Mapping[str, Any]) -> Features:
        """All rows, with the corners of the tiles that are among them."""
        corners = np.delete(self._tiles.corners, self._bad, axis=0)
        left_out = self._tiles.corners[self._bad].tolist()
        return Features(features=self._journal.rows(), coords=corners, attributes={**attributes, "left_out": left_out})

    def facts(self, seconds: float) -> dict[str, float]:
        """Seconds and counts; of tiles that an interrupted run had done, none."""
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
        """What the person should know beside what slide and tiles say."""
        notes = [*self._encoder.notes(self._tiles.mpp), *self._encode.notes]
        if self._bad:
            notes.append(f"{len(self._bad)} of {len(self._tiles)} tiles cannot be read and are left out.")
        return tuple(notes)

    def _next(self, reading: Iterator[TileBatch]) -> TileBatch | None:
        with self.timed("waiting"):
            return next(reading, None)

    def _do(self, batch: TileBatch) -> None:
        self._seconds["reading"] += batch.seconds
        self._bad += sorted(batch.bad)
        self._check_bad(batch)
        with self.timed("encoding"):
            try:
                rows = self._encode(batch.pixels).cpu().numpy()
            except MemoryError as error:
                raise InputError(f"'{self._slide.path}': {error}") from error
        with self.timed("writing"):
            self._journal.commit(self._stored(rows, batch), len(batch.numbers), sorted(batch.bad))

    def _check_bad(self, batch: TileBatch) -> None:
        own = self._settings.max_bad_tiles
        allowed = self._settings.read.max_bad_tiles if own is None else own
        if len(self._bad) <= allowed:
            return
        reason = next(iter(batch.bad.values()))
        count = f"'{self._slide.path}': {len(self._bad)} tiles cannot be read, read.max_bad_tiles allows {allowed}. "
        raise InputError(reason if allowed == 0 else count + reason)

    def _stored(self, rows: NDArray[np.float32], batch: TileBatch) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            stored: NDArray[Any] = rows.astype(_NUMBERS[self._settings.storage])
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if not len(bad):
            return stored
        number = [number for number in batch.numbers if number not in batch.bad][bad[0]]
        x, y = self._tiles.corners[number]
        is_large = np.isfinite(rows[bad[0]]).all()
        what = "more than fp16 holds; set encoder.storage=fp32" if is_large else "no number; look at that tile"
        raise InputError(f"'{self._slide.path}': encoder '{self._encoder.name}' gives for x {x}, y {y} {what}.")


def _grid(slide: Slide, tiles: Tiles) -> dict[str, Any]:
    return {
        "mpp": tiles.mpp,
        "tile_px": tiles.tile_px,
        "tile_side": tiles.side,
        "slide_mpp": slide.mpp,
        "software": f"domainsight {version('domainsight')}",
    }


def _key(attributes: Mapping[str, Any], tiles: Tiles, batches: Sequence[range]) -> str:
    """What the rows of an interrupted extraction must be of to be taken over."""
    read = [tiles.level, tiles.read_px, [len(batches), len(batches[0]) if batches else 0]]
    digest = blake2b(json.dumps([attributes, read], sort_keys=True).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(tiles.corners).tobytes())
    return digest.hexdigest()
