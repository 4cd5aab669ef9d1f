"""Images of unknown origin, decoded in a sandbox: image files and DICOM."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vision_core.dicom.reader import (
    DICOM_SUFFIXES,
    is_dicom,
    read_dicom_view,
    read_noted_dicom,
)
from vision_core.dicom.view import GreyValues, ImageFacts, ImageView, Preset, range_preset
from vision_core.errors import InputError
from vision_core.images.folders import suffix_notes
from vision_core.images.notes import tell
from vision_core.images.reading import is_image_name, read_deep_grey, read_noted_image
from vision_core.sandbox import Limits, Sandbox

_BYTES_PER_PIXEL = 3
_IMAGE = "vision_core.images.untrusted:image_in_child"
_SIZE = "vision_core.images.untrusted:size_in_child"
_VIEW = "vision_core.images.untrusted:view_in_child"
_PLAIN_VIEW = "vision_core.images.untrusted:plain_view_in_child"
_DICOM = "vision_core.images.untrusted:dicom_in_child"


class UntrustedImages:
    """Reader of images of unknown origin, in a child process.

    A decoder may end its process: of 1 100 random damages to two lossless JPEG files, nine ended GDCM with a signal
    instead of an error; behind the checks of ``vision_core/dicom/codestream.py``, one of 1 800 still does.

    Args:
        max_megapixels: Larger images are refused by their header.
        key: Setting of the running verb that raises this limit, for the message; empty: it has none.
        seconds: Wall time for one image.
        memory_mib: Memory for one image on top of the child's own size.
    """

    def __init__(
        self, *, max_megapixels: float = 100.0, key: str = "", seconds: float = 60.0, memory_mib: int = 4096
    ) -> None:
        answer_mib = int(max_megapixels * 1e6 * _BYTES_PER_PIXEL / 2**20) + 1
        self.max_megapixels, self._key = max_megapixels, key
        self.sandbox = Sandbox(Limits(seconds=seconds, memory_mib=memory_mib, answer_mib=answer_mib))

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Read an image, or DICOM for any other suffix: ``(H, W, 3)`` uint8, RGB; notes are warnings.

        Raises:
            InputError: The file cannot be read, or decoding crashed, hung or needed too much memory.
            OSError: The disk or share failed while reading; trying again may help.
        """
        pixels, notes = self.noted(path)
        tell(path, notes)
        return pixels

    def noted(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Read as ``__call__``; return pixels and notes, which begin with the file's name."""
        return self.noted_image(path) if is_image_name(path.name) else self.noted_dicom(path)

    def read(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Read an upload, as DICOM where it has the mark of DICOM; return pixels and notes, each a sentence.

        Raises:
            InputError: The file is neither an image nor DICOM, or damaged, or too large.
        """
        has_mark = path.suffix.lower() in DICOM_SUFFIXES or (path.is_file() and is_dicom(path))
        pixels, notes = self.noted_dicom(path) if has_mark else self.noted_image(path)
        return pixels, tuple(f"The file {note}." for note in (*suffix_notes(path), *notes))

    def view(self, path: Path) -> tuple[ImageView, tuple[str, ...]]:
        """Read an upload as ``read``, with what a viewer needs beyond the picture; raises as ``read``."""
        has_mark = path.suffix.lower() in DICOM_SUFFIXES or (path.is_file() and is_dicom(path))
        answer = self.sandbox.run(_VIEW if has_mark else _PLAIN_VIEW, path, max_megapixels=self.max_megapixels)
        told, arrays = dict(answer.value), answer.arrays
        pixels = self._checked(path, arrays.get("", np.empty(0)))
        grey = told["values"]
        presets = tuple(Preset(**each) for each in grey.pop("presets", ()))
        values = (
            GreyValues(codes=arrays["codes"], is_image=arrays["is_image"], presets=presets, **grey) if grey else None
        )
        notes = (*suffix_notes(path), *(str(note) for note in told["notes"]))
        view = ImageView(pixels=pixels, values=values, facts=ImageFacts(**told["facts"]))
        return view, tuple(f"The file {note}." for note in notes)

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Read an image as ``images.reading.read_image``; raises as ``__call__``."""
        pixels, notes = self.noted_image(path)
        tell(path, notes)
        return pixels

    def read_dicom(self, path: Path, frame: int | None = None) -> NDArray[np.uint8]:
        """Read DICOM as ``dicom.reader.read_dicom_image``; raises as ``__call__``."""
        pixels, notes = self.noted_dicom(path, frame)
        tell(path, notes)
        return pixels

    def noted_image(self, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Read an image and its notes; raises as ``__call__``."""
        return self._pixels(_IMAGE, path, max_megapixels=self.max_megapixels, key=self._key)

    def noted_size(self, path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
        """Decode an image whole, but return its ``(height, width)`` alone, and notes; raises as ``__call__``."""
        answer = self.sandbox.run(_SIZE, path, max_megapixels=self.max_megapixels, key=self._key)
        height, width, notes = answer.value
        return (int(height), int(width)), tuple(map(str, notes))

    def noted_dicom(self, path: Path, frame: int | None = None) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Read DICOM and its notes; of several frames the first where ``frame`` is None; raises as ``__call__``."""
        return self._pixels(_DICOM, path, frame=frame, max_megapixels=self.max_megapixels, key=self._key)

    def close(self) -> None:
        """End the child process; the next image starts another."""
        self.sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _pixels(
        self, function: str, path: Path, **arguments: float | int | str | None
    ) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        answer = self.sandbox.run(function, path, **arguments)
        return self._checked(path, answer.array), tuple(str(note) for note in answer.value or ())

    def _checked(self, path: Path, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != _BYTES_PER_PIXEL or not pixels.size:
            raise InputError(
                f"'{path}' was not decoded to an RGB image. Open it in a viewer you trust and save it again."
            )
        return pixels


def image_in_child(path: Path, **arguments: Any) -> tuple[Mapping[str, NDArray[np.uint8]], tuple[str, ...]]:  # noqa: ANN401
    """Read an image as the sandbox answers."""
    pixels, notes = read_noted_image(path, **arguments)
    return {"": pixels}, notes


def size_in_child(path: Path, **arguments: Any) -> tuple[Mapping[str, NDArray[np.uint8]], list[Any]]:  # noqa: ANN401
    """Decode an image, and answer its height, width and notes."""
    pixels, notes = read_noted_image(path, **arguments)
    return {}, [pixels.shape[0], pixels.shape[1], notes]


def dicom_in_child(path: Path, **arguments: Any) -> tuple[Mapping[str, NDArray[np.uint8]], tuple[str, ...]]:  # noqa: ANN401
    """Read DICOM as the sandbox answers."""
    pixels, notes = read_noted_dicom(path, **arguments)
    return {"": pixels}, notes


def view_in_child(path: Path, **arguments: Any) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:  # noqa: ANN401
    """Read the view of a DICOM image as the sandbox answers."""
    return _told(*read_dicom_view(path, **arguments))


def plain_view_in_child(path: Path, **arguments: Any) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:  # noqa: ANN401
    """Read the view of any other image as the sandbox answers: its grey values where it has more than 8 bits."""
    pixels, notes = read_noted_image(path, **arguments)
    deep = read_deep_grey(path, **arguments)
    if deep is None:
        return _told(ImageView(pixels=pixels), notes)
    low, high = float(deep.values.min()), float(deep.values.max())
    values = GreyValues(
        codes=deep.values,
        is_image=np.ones(deep.values.shape, bool),
        lowest=0.0,
        step=1.0,
        presets=(range_preset("Range of the bits", 0, 2**deep.bits - 1), range_preset("Whole range", low, high)),
        is_inverted=deep.is_inverted,
    )
    return _told(ImageView(pixels=pixels, values=values), notes)


def _told(view: ImageView, notes: tuple[str, ...]) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    arrays: dict[str, NDArray[Any]] = {"": view.pixels}
    grey: dict[str, Any] = {}
    if view.values:
        arrays |= {"codes": view.values.codes, "is_image": view.values.is_image}
        grey = {name: value for name, value in asdict(view.values).items() if name not in arrays}
    return arrays, {"notes": list(notes), "facts": asdict(view.facts), "values": grey}


def read_any_noted(path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read an image, or DICOM for any other suffix: ``(H, W, 3)`` uint8, RGB, and notes that begin with its name."""
    return read_noted_image(path) if is_image_name(path.name) else read_noted_dicom(path)
