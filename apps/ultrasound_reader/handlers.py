"""Handlers of the ultrasound reader. Each case has one folder, which is deleted when the case is cleared."""

import html
import json
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from apps import ui
from apps.cases import Example, Files, new_folder, shown_name
from apps.cine import CineFrame, legend, shown_numbers
from apps.ultrasound_reader.drawing import as_picture, outlines_layer
from apps.ultrasound_reader.wording import Reading, facts, frame_words, headline, lines, numbers_table
from apps.viewer import Figure, empty_place
from pipelines.ultrasound.data.files import FrameFile, is_dicom_input, open_file
from vision_core.csv_tables import to_csv
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
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
    ".masks.nii.gz": "The masks of all frames, for 3D Slicer or ITK-SNAP.",
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
        may_name: Whether the pixels may hold text that names a person.
        why: Why the example is offered; empty for an upload.
    """

    name: str
    reading: Reading
    files: Files
    shown: tuple[int, ...]
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
            reading = Reading(
                gated=self.gate(path), alone=self.alone(path), may_call=example.is_own or not self.is_made_only
            )
            case = Case(
                name=shown_name(example.name),
                reading=reading,
                files=Files(folder=folder, uploaded=uploaded, digits=ui.hash_digits(path)),
                shown=tuple(shown_numbers(len(reading.gated))),
                may_name=not example.is_own and self._may_name(path),
                why=example.why,
            )
            opened = open_file(path, self.decoder)
            _write_frames(case, opened)
            if reading.may_call:
                self.gate.write(reading.gated, path, case.files.downloads)
            else:
                _write_uncalled(case, path.stem)
            downloads = _name_downloads(case, path.stem)
            return case, *_outputs(case, view, downloads)

    def _may_name(self, path: Path) -> bool:
        """Tell whether text may be burned into a file: it may, unless DICOM denies it."""
        return not is_dicom_input(path) or self.decoder.view(path)[0].facts.may_name


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
        numbers_table(reading, case.shown) + ui.facts_list(facts(reading, case.name, case.files.digits)),
        ui.downloads(downloads, ui.stem_of("ultrasound", case.files.digits), may_name=case.may_name),
    )


def _figure(case: Case, view: str | None) -> str:
    reading, size = case.reading, case.reading.gated.size
    frames = [
        CineFrame(
            number=number,
            base=_picture(case, number),
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


def _picture(case: Case, number: int) -> Path:
    return case.files.folder / f"frame-{number:05d}.png"


def _write_frames(case: Case, opened: FrameFile) -> None:
    for number in case.shown:
        write_png(_picture(case, number), as_picture(opened.read(number)))


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
        "model": found.model,
        "notice": RESEARCH_NOTICE,
    }
    write_atomic(folder / f"{stem}.json", json.dumps(record, indent=1, ensure_ascii=False))
    table = [[name, "" if each is None else int(each), RESEARCH_NOTICE] for name, each in rows]
    write_atomic(folder / f"{stem}.frames.csv", to_csv(("frame", "outside", "notice"), table))


def _name_downloads(case: Case, stem: str) -> dict[Path, str]:
    """Name the files of a result by task, date and hash; returns them with what each is for."""
    folder, named = case.files.downloads, ui.stem_of("ultrasound", case.files.digits)
    found = {}
    for written in sorted(folder.iterdir()):
        ending = written.name.removeprefix(stem)
        if ending not in _ABOUT_FILES:  # the small picture of a batch's summary
            written.unlink()
            continue
        found[written.rename(folder / f"{named}{ending}")] = _ABOUT_FILES[ending]
    return found
