"""Classifier of slides, or of their feature files, from a bundle; it returns ``SlideResult`` and writes its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.wsi.config import WsiConfig
from pipelines.wsi.evaluation.finite import require_finite
from pipelines.wsi.features.origin import cautions, differences, origin_of, trained_with
from pipelines.wsi.features.slide_processing import ProcessedSlide, SlideProcessor, timing_summary, unfinished_file
from pipelines.wsi.result_files import SlideFiles
from pipelines.wsi.weights.bundles import BagPrediction, SlideModel, load_network
from pipelines.wsi.weights.origin import check_slides
from vision_core.bundles.card import Card
from vision_core.config.loading import of_bundle
from vision_core.console import say
from vision_core.csv_tables import Cell
from vision_core.errors import CheckpointError, InputError
from vision_core.evaluation.calibration import abstains
from vision_core.pipeline import Predictor
from vision_core.results import SlideResult, as_share, decide_category
from vision_core.slides.features.adopted import ADOPTED_SUFFIX, read_any_features
from vision_core.slides.features.files import FEATURE_SUFFIXES, Features, check_dim, describe_encoder
from vision_core.training.runtime import pick_device

_OUTSIDE = "Outside what the model knows: this slide is unlike those that it was trained on."
_NO_PLACES = "The features do not say where their tiles are: there is no heatmap."
_FROM_FEATURES = "Scored from features made before; the slide itself was not opened."


class WsiPredictor(Predictor[SlideResult]):
    """Classifier of slides from a bundle.

    Attributes:
        config: Its settings; those of inference may differ from the bundle's.
        processor: Computes features of a slide as in training.
    """

    def __init__(self, model: SlideModel, config: WsiConfig, mpps: Mapping[str, float] | None = None) -> None:
        self.card: Card = model.card
        self.processor = SlideProcessor(config, model.device, mpps or {})
        self.config, self._model = config, model
        self._is_checked = False
        self._last: tuple[Path, ProcessedSlide] | None = None
        self._unfinished: Path | None = None

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device = "auto",
        config: WsiConfig | None = None,
        mpps: Mapping[str, float] | None = None,
    ) -> "WsiPredictor":
        """Load a bundle, a folder or its zip.

        Args:
            path: The bundle.
            device: Device to compute on.
            config: Its settings with changed settings of inference; None: unchanged.
            mpps: Microns per pixel at level 0 by the slide's ``identity``; they win over those of the files.

        Raises:
            CheckpointError: It is no sound bundle of this task.
        """
        model = load_network(Path(path), pick_device(device))
        return cls(model, config or _settings_of(model.card, Path(path)), mpps)

    def __call__(self, item: str | Path | NDArray[np.uint8]) -> SlideResult:
        """Classify a slide, or a file of its features.

        Raises:
            InputError: It cannot be read.
            CheckpointError: The model was trained on features of another encoder.
            TypeError: It is not a path.
        """
        if not isinstance(item, str | Path):
            raise TypeError("expected the path of a slide, or of a file of features")
        path = Path(item)
        if is_features(path):
            return self._of_features(path)
        processed = self._processed(path)
        say(timing_summary(path, processed))
        place = _Place(path.name, processed.size, processed.mpp, processed.tiles.side, _corners(processed.features))
        return self._result(processed.features, place, processed.notes, processed.tissue.flags)

    def write(self, result: SlideResult, path: str | Path, folder: str | Path) -> list[Path]:
        """Write the files of a result, named after its input; a slide without tissue has fewer.

        ``.json``, ``.heatmap.png``, ``.jpg``, ``.heatmap.tif``, ``.tissue.geojson``, ``.tiles.geojson.gz``,
        ``.top.png``; with ``results.features`` ``.h5``.
        """
        path = Path(path)
        files = SlideFiles(Path(folder), path.stem)
        files.write_record(result)
        if not is_features(path):
            processed = self._processed(path)
            with self.processor.open(path) as slide:
                files.write_pictures(result, processed, slide, self.config)
        elif len(result) and _NO_PLACES not in result.notes:
            files.write_without_slide(result)
        return files.written

    def expect(self, paths: Sequence[Path]) -> None:
        """Announce the next inputs, so that slides are opened ahead."""
        self.processor.expect([path for path in paths if not is_features(path)])

    def resume_in(self, folder: Path) -> None:
        """Keep the features of an unfinished slide in a folder, from which the next process continues."""
        self._unfinished = folder

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the raw outputs of the golden input."""
        return self._model.answer(inputs)

    def _processed(self, path: Path) -> ProcessedSlide:
        # ``write`` follows the prediction of the same slide, which need not be processed twice.
        if self._last is None or self._last[0] != path:
            if not self._is_checked:
                _check_encoder(self._model, self.processor)
                self._is_checked = True
            self._last = None  # not two slides in memory
            self._last = path, self._process(path)
        return self._last[1]

    def _process(self, path: Path) -> ProcessedSlide:
        if self._unfinished is None:
            return self.processor.process(path)
        file = unfinished_file(self._unfinished, path)
        processed = self.processor.process(path, file)
        file.unlink()  # open, it outlives its name
        return processed

    def _of_features(self, path: Path) -> SlideResult:
        features = read_any_features(path)
        told = _check_features(features, path, self._model)
        attributes, corners = features.attributes, _corners(features)
        side = int(attributes.get("tile_side") or 1)  # of no tiles, where it is not known
        size = (int(corners[:, 1].max(initial=0)) + side, int(corners[:, 0].max(initial=0)) + side)
        place = _Place(path.name, size, float(attributes.get("slide_mpp") or 0), side, corners)
        notes = [_FROM_FEATURES] if features.coords is not None else [_FROM_FEATURES, _NO_PLACES]
        return self._result(features, place, [*told, *notes, *features.notes], {})

    def _result(
        self, features: Features, place: "_Place", notes: Sequence[str], flags: Mapping[str, float]
    ) -> SlideResult:
        """Classify features; without any, the result is that of a slide without tissue."""
        reading = self._model.predict(features.features) if len(features) else None
        if reading:
            found = torch.from_numpy(reading.probabilities)
            require_finite(found, self._model.probabilities, features.features, place.name)
        cautions = _cautions(reading, self.card) if reading else ["No tissue was found on this slide."]
        return SlideResult(
            slide=place.name,
            size=place.size,
            mpp=place.mpp,
            classes=self.card.classes,
            probabilities=reading.probabilities.astype(np.float32) if reading else np.empty(0, np.float32),
            category=category_of(reading, self.card),
            tiles=place.corners,
            tile_side=place.side,
            scores=reading.scores if reading else np.empty(0, np.float32),
            evidence=reading.evidence if reading else None,
            evidence_for=self.card.classes[reading.evidence_for] if reading and reading.evidence is not None else "",
            facts={**flags, **(_facts(reading, self._model) if reading else {})},
            notes=tuple(dict.fromkeys((*cautions, *notes))),
            model=self.card.identity(),
            titles=self.card.class_titles,
        )


@dataclass(frozen=True)
class _Place:
    """Name and geometry of a slide and its tiles."""

    name: str
    size: tuple[int, int]
    mpp: float
    side: int
    corners: NDArray[np.int64] = field(repr=False)


def is_features(path: Path) -> bool:
    """Tell feature files from slides by their suffix."""
    return path.suffix.lower() in FEATURE_SUFFIXES or path.name.endswith(ADOPTED_SUFFIX)


def columns(result: SlideResult) -> dict[str, Cell]:
    """Return the columns of a result in ``results.csv``."""
    shares = zip(result.classes, result.probabilities, strict=False)
    return {
        "category": result.category,
        "verdict": result.verdict,
        "notice": " ".join(result.notes),
        **{f"p_{name}": as_share(share) for name, share in shares},
        "tiles": len(result),
        "mpp": round(result.mpp, 6) or None,
        **{name: round(float(value), 6) for name, value in result.facts.items()},
        "model": result.model,
    }


def _settings_of(card: Card, path: Path) -> WsiConfig:
    return of_bundle(WsiConfig, card.config, (), f"{path}/card.json")


def _corners(features: Features) -> NDArray[np.int64]:
    return np.zeros((len(features), 2), np.int64) if features.coords is None else features.coords


def _facts(reading: BagPrediction, model: SlideModel) -> dict[str, float]:
    facts: dict[str, float] = {}
    if len(model.card.classes) == 2:
        facts["threshold"] = model.threshold
    if reading.possible is not None:
        named = zip(model.card.classes, reading.possible, strict=True)
        facts |= {f"possible_{name}": float(each) for name, each in named}
        facts["abstains"] = float(abstains(reading.possible))
    if reading.is_outside is not None:
        facts["outside"] = float(reading.is_outside)
    return facts


def category_of(reading: BagPrediction | None, card: Card) -> str:
    """Decide the category of a slide: the called class, or why there is none; None: a slide without tissue."""
    if reading is None:
        return decide_category((), has_tissue=False)
    is_undecided = reading.possible is not None and bool(abstains(reading.possible))
    called = (card.classes[reading.called],)
    return decide_category(called, is_outside=bool(reading.is_outside), is_undecided=is_undecided)


def _cautions(reading: BagPrediction, card: Card) -> list[str]:
    told = [_OUTSIDE] if reading.is_outside else []
    if reading.possible is None or not abstains(reading.possible):
        return told
    named = [name for name, each in zip(card.classes, reading.possible, strict=True) if each]
    which = f"any of {', '.join(named)} is possible" if named else "no class fits well"
    coverage = 100 * float((card.calibration or {}).get("coverage", 0))
    return [*told, f"The model does not commit itself: at {coverage:g} % coverage {which}."]


def _check_encoder(model: SlideModel, processor: SlideProcessor) -> None:
    encoder = processor.encoder
    if encoder.dim != model.feature_dim:
        raise CheckpointError(
            f"The model takes features of {describe_encoder(model.feature_dim)}; encoder '{encoder.name}' makes "
            f"{encoder.dim} a tile. Give files of the right features as --input, or a bundle trained with this encoder."
        )
    check_slides(model.card, encoder.identity, processor.config.tiles)


def _check_features(features: Features, path: Path, model: SlideModel) -> list[str]:
    """Refuse features of another origin than the model knows; return cautions."""
    check_dim(features, model.feature_dim, path)
    trained, found = trained_with(model.card.preprocessing), origin_of(features.attributes)
    if told := differences(trained, found):
        raise InputError(f"'{path}' holds features {'; '.join(told)}. Give features as the model was trained on.")
    return cautions(trained, found) if len(features) else []
