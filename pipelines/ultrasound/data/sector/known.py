"""Sectors that are remembered by machine and size, in a card, a folder of results or a run; each is shown once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.files import FrameFile
from pipelines.ultrasound.data.frames import Grey, white_of
from pipelines.ultrasound.data.sector.find import Sector, decide, motion_of, sampled, told
from vision_core.bundles.card import Card
from vision_core.console import say
from vision_core.errors import CheckpointError, DataError
from vision_core.files import parse_json, to_json, write_atomic
from vision_core.images.drawing import write_png

SECTORS, _KNOWN = "sectors", "known.json"
Outside = Literal["mask", "keep"]
_BESIDE = (90, 60, 20)  # colour of what is masked

_Key = tuple[str, tuple[int, int]]


class KnownSectors:
    """Sectors of machines, for prediction.

    Args:
        rule: ``mask`` everywhere, ``keep`` everywhere; None: mask files that machines have written, as they are.
        known: Sectors of the training.
    """

    def __init__(self, rule: Outside | None, known: Iterable[Sector] = ()) -> None:
        self._rule = rule
        self._known: dict[_Key, Sector] = {(each.machine, each.size): each for each in known if each.machine}
        self._folder: Path | None = None

    def remember_in(self, folder: Path) -> None:
        """Read what a folder of results remembers, and add to it from now on.

        Raises:
            DataError: Its file is damaged.
        """
        self._folder = folder / SECTORS
        self._known |= {(each.machine, each.size): each for each in read_sectors(self._folder)}

    def applied(self, file: FrameFile) -> FrameFile:
        """Return a file whose frames are black outside their sector, with a note; as it is where nothing is masked.

        Raises:
            InputError: A frame cannot be read.
        """
        if self._rule == "keep" or (self._rule is None and not file.is_recording):
            return file
        images = [file.read(number) for number in sampled(len(file.texts))]
        size = images[0].shape
        if any(each.shape != size for each in images):
            return file
        known = self._known.get((file.machine, size)) if file.machine else None
        found = decide(motion_of(images, white_of(images[0], "the file")), file.machine, known)
        if found.sector is None:
            why = (f"Nothing beside the sector is masked: {found.reason}.",) if found.reason else ()
            return replace(file, notes=(*file.notes, *why))
        if file.machine and known is None:
            self._remember(found.sector, images[0])
        sector, read = found.sector, file.read
        note = f"{sector.outside_share:.0%} of each frame lie outside the sector and are black for the networks."
        if known not in (None, sector):
            note += " It is of this file alone: the one that is remembered of its machine does not fit."
        return replace(file, read=lambda number: sector.shown(read(number)), notes=(*file.notes, note))

    def _remember(self, sector: Sector, image: Grey) -> None:
        self._known[sector.machine, sector.size] = sector
        if self._folder is not None:
            others = [
                each
                for each in read_sectors(self._folder)
                if (each.machine, each.size) != (sector.machine, sector.size)
            ]
            write_sectors(self._folder, {sector: image}, others)
            say(f"  {told(sector)}: look at {self._folder / picture_name(sector)}.")


def sectors_of_card(card: Card) -> list[Sector]:
    """Read the sectors of a bundle's training; none of one that was trained without.

    Raises:
        CheckpointError: They are damaged.
    """
    try:
        return [Sector.from_record(each) for each in card.preprocessing.get("sectors", ())]
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"card.json has sectors that cannot be read ({error}). Fetch the bundle again."
        ) from error


def read_sectors(folder: Path) -> list[Sector]:
    """Read remembered sectors; none where there is no file.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / _KNOWN
    if not path.exists():
        return []
    try:
        return [Sector.from_record(each) for each in parse_json(path.read_text(encoding="utf-8"))["sectors"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' is damaged. Remove it: sectors are found anew.") from error


def write_sectors(folder: Path, sectors: Mapping[Sector, Grey], others: Sequence[Sector] = ()) -> None:
    """Write sectors and a picture of each from a frame: what is masked has one colour there, so that no text is shown.

    Args:
        folder: Folder of the sectors, made where it is missing.
        sectors: Sectors with a frame.
        others: Sectors that have a picture, to remember as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / _KNOWN, to_json({"sectors": [each.to_record() for each in (*others, *sectors)]}) + "\n")
    for sector, image in sectors.items():
        write_png(folder / picture_name(sector), _picture(sector, image))


def picture_name(sector: Sector) -> str:
    """Name the picture of a sector."""
    height, width = sector.size
    machine = re.sub(r"[^A-Za-z0-9]+", "-", sector.machine).strip("-").lower() or "unknown"
    return f"{machine}-{height}x{width}.png"


def _picture(sector: Sector, image: Grey) -> NDArray[np.uint8]:
    grey = np.asarray(np.asarray(image, np.float32) * (255 / white_of(image, "the frame")), np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[~sector.inside] = _BESIDE
    return picture
