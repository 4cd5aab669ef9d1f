"""Inference with bundles: a screen scores every frame of a file, accepted frames are segmented."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.files import FrameFile, open_file
from pipelines.ultrasound.data.frames import MOST_REPEATS, Grey, Ranges, grey_of, has_flow, repeats, white_of
from pipelines.ultrasound.data.sector.known import KnownSectors, sectors_of_card
from pipelines.ultrasound.result_files import write_result
from pipelines.ultrasound.screening.calibration import Chosen, chosen_threshold
from pipelines.ultrasound.screening.gate import accepted
from pipelines.ultrasound.screening.scope_guard import OUTSIDE_NOTE, guard_of, outside_frames
from pipelines.ultrasound.segment import Masking, ModelMasks, masks_of, open_masking
from pipelines.ultrasound.weights.bundles import Frames, Loaded, ScreenModel, load_network, quicken, raw_outputs
from vision_core.console import Progress
from vision_core.errors import InputError, UsageError
from vision_core.files import hash_digits
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import Predictor
from vision_core.results import AS_BEFORE, CineResult
from vision_core.segmentation.stored_masks import StoredMasks
from vision_core.training.runtime import pick_device

_AT_ONCE = 16  # frames
_NO_MASKS = np.zeros((0, 0, 0), bool)
_BLANK, _FROZEN, _FLOW = "a single value", "repeats the frame before", "colours over grey"
_OUTSIDE = "outside what the model knows"


@dataclass(frozen=True, kw_only=True)
class StreamedFrame:
    """A frame of a stream and what the models make of it.

    Attributes:
        number: Number in the file, from 0.
        image: ``(H, W)`` grey.
        mask: ``(H, W)``; empty where the frame was not accepted; None without a segmenter.
        is_accepted: Whether it passed the screen and lies in the scope of the model.
        is_outside: Whether it lies outside that scope.
        score: Probability of the screen; NaN without one.
        seconds: Time from when it came, or was begun to be read, to its mask.
    """

    number: int
    image: Grey
    mask: NDArray[np.bool_] | None
    is_accepted: bool
    is_outside: bool
    score: float
    seconds: float


class UltrasoundPredictor(Predictor[CineResult]):
    """Screen, segmenter, or both with the gate between them.

    Args:
        loaded: The bundle.
        config: Its settings of inference.
        device: Device of the networks.

    Attributes:
        threshold: Score above which a frame is accepted; None for a segmenter alone.
    """

    def __init__(self, loaded: Loaded, config: UltrasoundConfig, device: torch.device) -> None:
        self.card = loaded.card
        self._model, self._guard = loaded.model, guard_of(loaded.card)
        self._masking: Masking | None = None
        self.threshold: Chosen | None = None
        if isinstance(loaded.model, ScreenModel):
            self._masking = open_masking(config.segment, device) if config.segment else None
            behind = self._masking.identity if self._masking else None
            self.threshold = chosen_threshold(loaded.card, config.gate, behind)
        else:
            refuse_gate(config)
            self._masking = ModelMasks(loaded.model, identity=loaded.card.identity())
        self._sectors = KnownSectors(config.data.outside, sectors_of_card(loaded.card))
        self._with_video = bool(config.results.video)
        self._reader = UntrustedImages()

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", config: UltrasoundConfig | None = None
    ) -> "UltrasoundPredictor":
        """Load a bundle, a folder or its zip; ``config`` may name a segmenter behind a screen.

        Raises:
            CheckpointError: A bundle is not a sound one of this task.
        """
        where = pick_device(device)
        loaded = load_network(Path(path), where)
        quicken(loaded.model)
        return cls(loaded, config or UltrasoundConfig(), where)

    def __call__(self, item: str | Path | NDArray[np.uint8]) -> CineResult:
        """Screen and segment the frames of a file, or an ``(H, W, 3)`` RGB array.

        Raises:
            InputError: The file cannot be read, its frames differ in size, are too small, or of 16 bits and too dark.
        """
        if isinstance(item, str | Path):
            file = self._sectors.applied(open_file(Path(item), self._reader))
            return replace(self._predict(Path(item).name, file), digits=hash_digits(Path(item)))
        grey = grey_of(item)
        return self._predict(
            "frame", FrameFile(texts=("frame",), read=lambda _: grey, has_flow=lambda _: has_flow(item))
        )

    def stream(self, path: str | Path, rate: float | None = None) -> Iterator[StreamedFrame]:
        """Screen and segment the frames of a file one at a time, as they come; none is left out and none is kept.

        The next frame is read meanwhile. On a CPU, small networks take a frame quicker on one thread
        (``torch.set_num_threads(1)``): several wait for each other and take cores from the decoder.

        Args:
            path: The file.
            rate: Frames a second of a camera that gives them: none is read before it comes, and one that has to wait is
                counted from when it came. None: each is read as soon as the one before is taken.

        Raises:
            InputError: As for a file; of one that is too dark behind its last frame.
        """
        file = self._sectors.applied(open_file(Path(path), self._reader))
        before: _Part | None = None
        ranges = Ranges()
        for number, image, began in _ahead(file, rate):
            ranges.add("", file.texts[number], image)
            before = part = self._part([image], [file.texts[number]], [file.has_flow(number)], before)
            yield StreamedFrame(
                number=number,
                image=image,
                mask=part.masks[0] if self._masking else None,
                is_accepted=bool(part.accepted[0]),
                is_outside=bool(part.outside[0]),
                score=float(part.scores[0]),
                seconds=time.perf_counter() - began,
            )
        self._refuse_dark(ranges, Path(path).name)

    def write(self, result: CineResult, path: str | Path, folder: str | Path) -> list[Path]:
        """Write the files of a result, see ``result_files``."""
        file = open_file(Path(path), self._reader)
        return write_result(result, file, Path(path), Path(folder), with_video=self._with_video)

    def resume_in(self, folder: Path) -> None:
        """Remember sectors beside the results, of whose unfinished ones this is the folder."""
        self._sectors.remember_in(folder.parent)

    def close(self) -> None:
        """End the child process that decodes; the next file starts another."""
        self._reader.close()

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""
        return raw_outputs(self._model, inputs)

    def _predict(self, name: str, file: FrameFile) -> CineResult:
        began, stored, parts = time.perf_counter(), StoredMasks(), []
        before: _Part | None = None
        ranges = Ranges()
        with closing(Progress(len(file.texts), name, "frame", is_passing=True)) as bar:
            for numbers in _chunks(len(file.texts)):
                images = [file.read(number) for number in numbers]
                flow = [file.has_flow(number) for number in numbers]
                for number, image in zip(numbers, images, strict=True):
                    ranges.add("", file.texts[number], image)
                found = self._part(images, [file.texts[number] for number in numbers], flow, before)
                if len(stored) and found.masks.shape[1:] != stored.shape[1:]:
                    raise InputError(f"'{name}' holds frames of several sizes. Give a file for each.")
                for mask in found.masks:
                    stored.append(mask)
                # An empty slice of its masks would keep them all.
                parts.append(replace(found, masks=_NO_MASKS, last=_NO_MASKS))
                before = found
                bar.reach(numbers.stop)
        dark = self._refuse_dark(ranges, name)
        _, height, width = stored.shape
        models = [self.card.identity(), *([self._masking.identity] if self.threshold and self._masking else [])]
        outside = np.concatenate([each.outside for each in parts])
        reasons = tuple(reason for each in parts for reason in each.reasons)
        counts = Counter(reasons)
        told = []
        if blank := counts[_BLANK]:
            told.append(f"{blank} frames hold a single value, black or saturated: not segmented.")
        times = np.concatenate([each.repeats for each in parts]).tolist()
        if copied := sum(each > 0 and why not in (_BLANK, _FROZEN) for each, why in zip(times, reasons, strict=True)):
            told.append(f"{copied} frames repeat the one before (another rate, or stored twice) and have its result.")
        if frozen := counts[_FROZEN]:
            told.append(f"{frozen} frames repeat more than {MOST_REPEATS} before (a frozen cine): not segmented.")
        if flow_frames := counts[_FLOW]:
            told.append(f"{flow_frames} frames have colours over grey, as Doppler: no B-mode frames, not segmented.")
        if outside.sum() > flow_frames:
            told.append(f"{int(outside.sum()) - flow_frames} of {len(outside)} frames are {OUTSIDE_NOTE}.")
        return CineResult(
            name=name,
            frames=file.texts,
            size=(height, width),
            classes=(self.card.classes[0],),
            scores=np.concatenate([each.scores for each in parts]),
            accepted=np.concatenate([each.accepted for each in parts]),
            outside=outside if self._guard or flow_frames else None,
            masks=stored if self._masking else None,
            confidence=np.concatenate([each.confidence for each in parts]),
            spacing_mm=file.spacing_mm,
            times_ms=file.times_ms,
            reasons=reasons,
            notes=(*file.notes, *dark, *(self.threshold.notes if self.threshold else ()), *told),
            model=" + ".join(models),
            titles=self.card.class_titles,
            seconds=time.perf_counter() - began,
        )

    def _refuse_dark(self, ranges: Ranges, name: str) -> list[str]:
        """Refuse a file of 16 bits that is as good as black, for a screen; returns it as a note for a segmenter alone.

        A z-score is the same at any brightness, so masks do not depend on it.
        """
        if (dark := ranges.dark(name)) and self.threshold:
            raise InputError(dark)
        return [f"{each} Masks of a segmenter do not depend on it; pictures are dark." for each in dark]

    def _part(
        self, images: Sequence[Grey], texts: Sequence[str], flow: Sequence[bool] = (), before: "_Part | None" = None
    ) -> "_Part":
        """Compute scope, scores, acceptance and masks of a few frames; ``before`` are the ones before."""
        if len({each.shape for each in images}) > 1:
            raise InputError(f"'{texts[0]}' and the frames after it differ in size. Give a file for each size.")
        white = [white_of(each, f"'{text}'") for each, text in zip(images, texts, strict=True)]
        frames = Frames(images=images, white=white)
        # A frame of one value, black or saturated, shows nothing, whatever a network makes of it.
        is_blank = np.array([each.min() == each.max() for each in images])
        times = repeats(images, before.last, int(before.repeats[-1])) if before else repeats(images)
        is_frozen, has_colours = (times > MOST_REPEATS) & ~is_blank, np.array(flow or [False] * len(images))
        outputs, features = self._model.with_features(frames)
        outside = outside_frames(self._guard, features) & ~is_blank | has_colours
        whys = {_BLANK: is_blank, _FLOW: has_colours, _FROZEN: is_frozen, _OUTSIDE: outside}
        reasons = [next((why for why in whys if whys[why][each]), "") for each in range(len(images))]
        scores, passed = np.full(len(images), np.nan, np.float32), np.array([not each for each in reasons])
        passed &= times == 0  # the others have a result already
        masks = np.zeros((len(images), *images[0].shape), bool)
        confidence = np.full(len(images), np.nan, np.float32)
        if self.threshold:
            scores = outputs
            passed &= accepted(scores, self.threshold.value)
        chosen = np.flatnonzero(passed).tolist()
        if self._masking and chosen:
            some = Frames(images=[images[each] for each in chosen], white=[white[each] for each in chosen])
            names = [texts[each] for each in chosen]
            found = self._masking(some, names) if self.threshold else masks_of(outputs[chosen])
            masks[chosen], confidence[chosen] = found.masks, found.confidence
        part = _Part(
            last=images[-1],
            repeats=times,
            scores=scores,
            accepted=passed,
            outside=outside,
            masks=masks,
            confidence=confidence,
            reasons=reasons,
        )
        for place in np.flatnonzero((times > 0) & ~is_frozen & ~is_blank).tolist():
            part.copy(place, part if place else before)
        return part


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A few frames, as in ``CineResult``, with the pixels of the last and how often each repeats the one before."""

    last: Grey
    repeats: NDArray[np.int64]
    scores: NDArray[np.float32]
    accepted: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    masks: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    reasons: list[str]

    def copy(self, place: int, source: "_Part | None") -> None:
        """Give a frame the result of the one before it, which is the last of ``source`` for the first."""
        assert source is not None  # a frame that repeats another has one before it
        for name in ("scores", "accepted", "outside", "masks", "confidence"):
            getattr(self, name)[place] = getattr(source, name)[place - 1]
        self.reasons[place] = source.reasons[place - 1] or AS_BEFORE


def refuse_gate(config: UltrasoundConfig) -> None:
    """Refuse a segmenter behind a segmenter, which is no gate.

    Raises:
        UsageError: ``segment`` is given.
    """
    if config.segment:
        raise UsageError(
            f"segment='{config.segment}' stands behind a screen, and --checkpoint is a segmenter. Give a screen."
        )


def _ahead(file: FrameFile, rate: float | None) -> Iterator[tuple[int, Grey, float]]:
    """Read the frames of a file, each while the one before is in use: number, frame, and when it came.

    The camera of a ``rate`` gives its second frame a step after the first was read, which starts the decoder.
    """

    def read(number: int, comes: float | None = None) -> tuple[int, Grey, float]:
        began = time.perf_counter()
        if comes is not None and comes > began:
            time.sleep(comes - began)
        return number, file.read(number), began if comes is None else comes

    with ThreadPoolExecutor(1, thread_name_prefix="frames") as thread:
        coming = thread.submit(read, 0)
        found = coming.result()
        ready = time.perf_counter()
        for number in range(1, len(file.texts)):
            coming = thread.submit(read, number, ready + number / rate if rate else None)
            yield found
            found = coming.result()
        yield found


def _chunks(count: int) -> list[range]:
    return [range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]
