"""Handlers of the ultrasound reader. Each case has one folder, which is deleted when the case is cleared."""

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np

from apps import ui
from apps.cases import Example, Files, new_folder, shown_name, write_picture, write_values
from apps.cine import CineFrame, legend, shown_numbers
from apps.ultrasound_reader.drawing import as_picture, outlines_layer
from apps.ultrasound_reader.wording import Reading, facts, frame_words, headline, lines, numbers_table
from apps.viewer import Figure, Grey, empty_place
from pipelines.ultrasound.data.files import FrameFile, is_dicom_input, open_file
from vision_core.csv_tables import to_csv
from vision_core.dicom.view import ImageView, range_preset
from vision_core.files import hash_digits, write_atomic
from vision_core.images.drawing import write_png
from vision_core.images.reading import is_image_name
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import Predictor
from vision_core.results import RESEARCH_NOTICE, CineResult

View = Literal["With the gate", "Segmenter alone"]
VIEWS: tuple[View, ...] = get_args(View)
PROMPT = "Give a cine or an image, or try an example."
_MAX_MEGAPIXELS = 50.0
_MAX_SECONDS = 60.0
_UM_PER_MM = 1e3
_ABOUT_FILES = {  # by the end of the name
    ".frames.csv": "A row for each frame: presence, scores, area and diameters.",
    ".json": "The result with its notes.",
    ".masks.nii.gz": "The masks of all frames, for ITK-SNAP or nibabel.",
    ".seg.nrrd": "The same as a segmentation of 3D Slicer, with name and colour.",
    ".seg.dcm": "The masks as a DICOM segmentation of this file.",
    ".overlay.png": "Some frames with the outline of their masks.",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file and what the models make of it.

    Attributes:
        name: File name, or name of the example.
        reading: Results with the gate and without.
        files: Folder, upload and hash.
        shown: Numbers of the frames that the browser gets.
        grey: Values for window and level of the frames; None: they have no more than 8 bits.
        series: Modality and description of the series; empty without.
        may_name: Whether the pixels may hold text that names a person.
        why: Why the example is offered; empty for an upload.
    """

    name: str
    reading: Reading
    files: Files
    shown: tuple[int, ...]
    grey: Grey | None
    series: str
    may_name: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Handlers of the page.

    Each returns case, picture, words, details and downloads; ``show`` returns the picture alone. A new case deletes the
    files of the one before.

    Attributes:
        gate: Screen and segmenter.
        alone: The segmenter without the gate.
        decoder: Reads pictures for the page, in a child process.
    """

    gate: Predictor[CineResult]
    alone: Predictor[CineResult]
    decoder: UntrustedImages = field(
        default_factory=lambda: UntrustedImages(max_megapixels=_MAX_MEGAPIXELS, seconds=_MAX_SECONDS)
    )
    _turn: Lock = field(default_factory=Lock)  # a predictor reads one file at a time

    @property
    def is_made_only(self) -> bool:
        """Whether one of the models has only seen made images."""
        return any(each.card.trained_on.synthetic for each in (self.gate, self.alone))

    def upload(self, path: str | None, view: str | None, before: Case | None = None) -> tuple[Any, ...]:
        """Read an uploaded file; without one, clear the page."""
        uploaded = Path(path) if path else None
        forget(before, kept=uploaded)
        if uploaded is None:
            return None, *cleared()
        given = Example(name=uploaded.name, path=uploaded, origin="uploaded", is_own=False)
        return self._new(given, view, uploaded)

    def take(self, example: Example, view: str | None, before: Case | None = None) -> tuple[Any, ...]:
        """Read an example."""
        forget(before)
        return self._new(example, view)

    def show(self, case: Case | None, view: str | None) -> tuple[Any, ...]:
        """Show the masks of another view, without running a model."""
        return (_figure(case, view) if case and case.files.folder.exists() else empty_place(PROMPT),)

    def _new(self, example: Example, view: str | None, uploaded: Path | None = None) -> tuple[Any, ...]:
        path = example.path
        with new_folder(uploaded) as folder, self._turn:
            digits = hash_digits(path)
            gated, alone = (replace(each(path), digits=digits) for each in (self.gate, self.alone))
            reading = Reading(gated=gated, alone=alone, may_call=example.is_own or not self.is_made_only)
            seen, shown = self._view(path), tuple(shown_numbers(len(reading.gated)))
            case = Case(
                name=shown_name(example.name),
                reading=reading,
                files=Files(folder=folder, uploaded=uploaded, digits=digits),
                shown=shown,
                grey=_write_frames(folder, shown, open_file(path, self.decoder), seen),
                series=seen.facts.description if seen else "",
                may_name=not example.is_own and (seen is None or not is_dicom_input(path) or seen.facts.may_name),
                why=example.why,
            )
            if reading.may_call:
                self.gate.write(reading.gated, path, case.files.downloads)
            else:
                _write_uncalled(case, path.stem)
            downloads = _name_downloads(case, path.stem)
            return case, *_outputs(case, view, downloads)

    def _view(self, path: Path) -> ImageView | None:
        """Read an image, or the first frame of DICOM, as a viewer shows it; None: another kind of file."""
        return self.decoder.view(path)[0] if is_dicom_input(path) or is_image_name(path.name) else None


def forget(case: Case | None, kept: Path | None = None) -> None:
    """Delete every file of a case but an upload that is ``kept``."""
    if case is not None:
        case.files.delete(kept)


def cleared() -> tuple[Any, ...]:
    """Return the outputs of a page without a case."""
    return empty_place(PROMPT), html.escape(PROMPT), "", ""


def _outputs(case: Case, view: str | None, downloads: dict[Path, str]) -> tuple[Any, ...]:
    reading = case.reading
    told = [*lines(reading), case.why or f"{case.name}.", *reading.gated.notes]
    is_cine = len(reading.gated) > 1
    return (
        _figure(case, view),
        ui.in_words(headline(reading), *told) + (legend(reading.marks()) if is_cine else ""),
        numbers_table(reading, case.shown) + ui.facts_list(facts(reading, case.name, case.series, case.files.digits)),
        ui.downloads(downloads, ui.stem_of("ultrasound", case.files.digits), may_name=case.may_name),
    )


def _figure(case: Case, view: str | None) -> str:
    reading, size = case.reading, case.reading.gated.size
    frames = [
        CineFrame(
            number=number,
            base=_picture(case.files.folder, number),
            values=_values(case.files.folder, number) if case.grey else None,
            over=_layer(reading, number, size, is_alone=view == VIEWS[1]),
            words=frame_words(reading, number),
            mark=reading.mark(number),
        )
        for number in case.shown
    ]
    first = min(range(len(frames)), key=lambda place: abs(frames[place].number - reading.first()))
    spacing = reading.gated.spacing_mm
    is_square = spacing is not None and spacing[0] == spacing[1] and reading.may_call
    return Figure(
        key=case.files.folder.name,
        base=frames[first].base,
        size=size,
        alt=f"{case.name}. {headline(reading)}",
        over=frames[first].over,
        um_per_px=spacing[0] * _UM_PER_MM if spacing and is_square else None,
        grey=case.grey and replace(case.grey, path=_values(case.files.folder, frames[first].number)),
        words=f"{case.name} ({case.files.digits}). {reading.gated.model}.",
        frames=frames,
        first=first,
        num_frames=len(reading.gated),
    ).html()


def _layer(reading: Reading, number: int, size: tuple[int, int], *, is_alone: bool) -> str:
    if not reading.may_call:
        return ""
    if is_alone:
        return outlines_layer(reading.alone.masks[number], None, size)
    removed = reading.alone.masks[number] if reading.removed(number) else None
    return outlines_layer(reading.gated.masks[number], removed, size)


def _picture(folder: Path, number: int) -> Path:
    return folder / f"frame-{number:05d}.png"


def _values(folder: Path, number: int) -> Path:
    return folder / f"values-{number:05d}.png"


def _write_frames(folder: Path, shown: Sequence[int], opened: FrameFile, view: ImageView | None) -> Grey | None:
    """Write the pictures of the frames; values too where they have more than 8 bits, which window and level then show.

    A single frame has the windows of its file. Frames of several are shown between the ends of all.
    """
    if len(shown) == 1 and view and view.values and (grey := write_picture(folder, view)):
        (folder / "image.png").rename(_picture(folder, shown[0]))
        grey.path.rename(_values(folder, shown[0]))
        return grey
    if opened.read(shown[0]).dtype != np.uint16:
        for number in shown:
            write_png(_picture(folder, number), as_picture(opened.read(number)))
        return None
    ends = [(int(image.min()), int(image.max())) for image in map(opened.read, shown)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    for number in shown:
        image = opened.read(number)
        write_png(_picture(folder, number), as_picture(image, (low, high)))
        write_values(_values(folder, number), np.asarray(image, np.uint16))
    windows = range_preset("Whole range", low, high), range_preset("Range of 16 bits", 0, 2**16 - 1)
    presets = [(each.name, each.centre, each.width) for each in windows]
    return Grey(path=_values(folder, shown[0]), lowest=0.0, step=1.0, presets=presets)


def _write_uncalled(case: Case, stem: str) -> None:
    """Write what may be told of a file that is not called: scope and notes, no masks and no sizes."""
    found, folder = case.reading.gated, case.files.downloads
    outside = [None] * len(found) if found.outside is None else [bool(each) for each in found.outside]
    rows = list(zip(found.frames, outside, strict=True))
    record = {
        "file": found.name,
        "category": headline(case.reading).rstrip("."),
        "frames": [{"frame": name, "outside": each} for name, each in rows],
        "notes": list(found.notes),
        "notice": RESEARCH_NOTICE,
    }
    write_atomic(folder / f"{stem}.json", json.dumps(record, indent=1, ensure_ascii=False))
    table = [[name, "" if each is None else int(each), RESEARCH_NOTICE] for name, each in rows]
    write_atomic(folder / f"{stem}.frames.csv", to_csv(("frame", "outside", "notice"), table))


def _name_downloads(case: Case, stem: str) -> dict[Path, str]:
    """Name the files of a result by task, date and hash, and say so in them; returns them with what each is for."""
    folder, named = case.files.downloads, ui.stem_of("ultrasound", case.files.digits)
    of = {"series": case.series, "input_sha256": case.files.digits, "model": case.reading.gated.model}
    found = {}
    for written in sorted(folder.iterdir()):
        ending = written.name.removeprefix(stem)
        if ending not in _ABOUT_FILES:  # the small picture of a batch's summary
            written.unlink()
            continue
        _label(written, of)
        found[written.rename(folder / f"{named}{ending}")] = _ABOUT_FILES[ending]
    return found


def _label(written: Path, of: Mapping[str, str]) -> None:
    """Write into a record, or as columns of a table, what they are of."""
    if written.suffix == ".json":
        content = {**json.loads(written.read_text(encoding="utf-8")), **of}
        write_atomic(written, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    elif written.suffix == ".csv":
        header, *rows = csv.reader(io.StringIO(written.read_text(encoding="utf-8")))
        write_atomic(written, to_csv([*header, *of], [[*row, *of.values()] for row in rows]))
