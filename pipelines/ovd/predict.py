"""Inference with a detector of names: those of its training, or others that a person types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.bundles import OpenBundle, load_open_detector
from pipelines.ovd.config import ImageText, OvdConfig
from pipelines.ovd.config import Predict as PredictSettings
from pipelines.ovd.detector import join_rivals
from pipelines.ovd.image_text.loading import load_image_text
from pipelines.ovd.image_text.model import TextModel
from pipelines.ovd.image_text.vocabulary import (
    Vocabulary,
    check_memory,
    embed_vocabulary,
    name_key,
    parse_names,
    read_names,
    spoken_name,
)
from vision_core.bundles.card import Card
from vision_core.detection.predictor import DetectorPredictor, Read
from vision_core.errors import CheckpointError, ConfigError
from vision_core.images.reading import read_noted_image, shrink_notes
from vision_core.pipeline import Predictor
from vision_core.results import Detections
from vision_core.training.runtime import pick_device

_QUANTILE = 0.995  # of a name's scores on background
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Typed:
    """Names to detect instead of those of the training.

    Attributes:
        names: The names.
        embeddings: ``(K, D)``.
        rivals: ``(N, D)``, of names that compete unseen.
        thresholds: ``(K,)``, scores up to which a name fires on what it does not mean.
        notes: A sentence each.
        far: Those of the names that resemble no name of the training.
    """

    names: tuple[str, ...]
    embeddings: Tensor
    rivals: Tensor
    thresholds: Tensor
    notes: tuple[str, ...] = ()
    far: tuple[str, ...] = ()


class OvdPredictor(DetectorPredictor, Predictor[Detections]):
    """Detector of this task's bundles: ``OvdPredictor.from_checkpoint("model")("image.png")``.

    Args:
        content: The bundle.
        device: Where it computes.
        read: Reads an image file and the notes on it.
        typed: Names to detect; None: those of the training.
    """

    def __init__(
        self,
        content: OpenBundle,
        device: torch.device,
        read: Read = read_noted_image,
        typed: Typed | None = None,
    ) -> None:
        super().__init__(content.detector, content.card, device, read)
        self._content, self._typed = content, typed
        self._notes = typed.notes if typed else ()
        _look_for(content, typed)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device = "auto",
        read: Read = read_noted_image,
        config: OvdConfig | None = None,
    ) -> Self:
        """Load a detector from a bundle, a folder or its zip.

        Args:
            path: The bundle.
            device: ``auto``, or a device of torch.
            read: As of the class.
            config: Typed names and the model that embeds them; None: the names of the training.

        Raises:
            CheckpointError: The path is no sound bundle of this task, or its image–text model is another one.
            ConfigError: Names are typed twice over, or there is no model to embed them.
        """
        content = load_open_detector(Path(path))
        typed = type_names(content, config) if config else None
        return cls(content, pick_device(device), read, typed)

    def __call__(self, item: str | Path | NDArray[np.uint8]) -> Detections:
        """Detect objects in an image file or an ``(H, W, 3)`` RGB array; as of the class above."""
        found = super().__call__(item)
        return replace(found, notes=(*found.notes, *self._notes))

    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answer as every detector, by the names of the training, whatever is looked for."""
        _look_for(self._content, None)
        found = super().answer(inputs)
        _look_for(self._content, self._typed)
        return found


class WordDetector:
    """Detector of words that change from image to image, for pages: ``detector.look_for("disc, ring")``.

    Args:
        content: The bundle.
        model: The image–text model of its training.
        device: Where the detector computes.

    Raises:
        CheckpointError: The model is another one.
    """

    def __init__(self, content: OpenBundle, model: TextModel, device: torch.device) -> None:
        _check_model(model, content.card)
        self.card, self.split = content.card, content.split
        self._content, self._model, self._device = content, model, device
        self._turn = Lock()  # the detector holds one vocabulary at a time

    @classmethod
    def from_checkpoint(cls, path: str | Path, image_text: ImageText, device: str | torch.device = "auto") -> Self:
        """Load a detector from a bundle, and the image–text model that embeds the words."""
        return cls(load_open_detector(Path(path)), load_image_text(image_text), pick_device(device))

    def look_for(self, words: str, negatives: str = "") -> Typed:
        """Embed words separated by commas; without any, those of the training, which then compete with one another.

        Raises:
            ConfigError: Words are not wanted, and none is.
        """
        config = OvdConfig(predict=PredictSettings(classes=words.strip() or None, negatives=negatives.strip() or None))
        given = _given(config)
        with self._turn:
            if given:
                return embed_names(self._content, self._model, given, is_open=True)
            names, embeddings = self.card.classes, self._content.embeddings
            thresholds = background_thresholds(self._content, embeddings, embeddings[:0])
        return Typed(names=names, embeddings=embeddings, rivals=embeddings[:0], thresholds=thresholds)

    def remarks_on(self, size: tuple[int, int]) -> tuple[str, ...]:
        """Note on an image of ``(height, width)`` that is shrunk much: the rest of a sentence that begins with it."""
        settings = self._content.detector.settings
        return shrink_notes(size, settings.shortest_edge_px, settings.longest_edge_px)

    def __call__(self, image: NDArray[np.uint8], typed: Typed) -> Detections:
        """Detect the words in an ``(H, W, 3)`` RGB array."""
        with self._turn:
            return OvdPredictor(self._content, self._device, typed=typed)(image)


def _look_for(content: OpenBundle, typed: Typed | None) -> None:
    """Give the detector of a bundle typed names, or those of its training."""
    if typed is None:
        content.detector.set_vocabulary(content.card.classes, content.embeddings)
        return
    rivals = typed.rivals if len(typed.rivals) else None
    content.detector.set_vocabulary(typed.names, typed.embeddings, rivals, typed.thresholds)


def type_names(content: OpenBundle, config: OvdConfig) -> Typed | None:
    """Embed the names of ``predict.classes`` or ``predict.classes_file``; None where neither is given.

    Raises:
        ConfigError: Both are given, or no image–text model.
        CheckpointError: The model is another one than that of the training.
    """
    if (given := _given(config)) is None:
        return None
    model = load_image_text(config.image_text)
    _check_model(model, content.card)
    settings = config.predict
    is_open, on_objects = settings.vocabulary == "open", settings.threshold_on == "objects"
    return embed_names(content, model, given, is_open=is_open, on_objects=on_objects)


def _given(config: OvdConfig) -> tuple[Vocabulary, Vocabulary] | None:
    """Read the names and those that are not wanted; None without names."""
    settings = config.predict
    if settings.classes is not None and settings.classes_file:
        raise ConfigError("predict.classes and predict.classes_file are both given. Give one of them.")
    if settings.classes is None and settings.classes_file is None:
        if settings.negatives:
            raise ConfigError("predict.negatives names what is not wanted, and predict.classes is empty. Name both.")
        return None
    names = read_names(settings.classes_file) if settings.classes_file else parse_names(settings.classes or "")
    negatives = parse_names(settings.negatives) if settings.negatives else Vocabulary(names=(), synonyms=())
    wanted, unwanted = ({name_key(word) for words in each.synonyms for word in words} for each in (names, negatives))
    if both := wanted & unwanted:
        raise ConfigError(f"'{min(both)}' is to be detected, and is among what is not wanted. Take it out of one.")
    return names, negatives


def embed_names(
    content: OpenBundle,
    model: TextModel,
    words: tuple[Vocabulary, Vocabulary],
    *,
    is_open: bool,
    on_objects: bool = False,
) -> Typed:
    """Embed names and negatives, choose the rivals, and set a threshold for each name.

    In an open vocabulary the names compete with those of the training, which stay unseen: else one name alone would
    fire on anything. A name's threshold is the 99.5 % quantile of its scores on background regions.

    Args:
        content: The bundle.
        model: The image–text model of its training.
        words: Names, and names that compete and are not shown.
        is_open: Whether the training's names compete.
        on_objects: Whether the threshold is also the quantile on labelled objects, but for those of the trained name
            that a name is or resembles most.

    Raises:
        ConfigError: The thresholds are to be set on objects, and the bundle stores none.
    """
    names, negatives = words
    if on_objects and not len(content.regions.objects):
        raise ConfigError(
            "predict.threshold_on: this bundle stores no labelled objects, as those of older versions. Leave it empty."
        )
    trained, regions = content.embeddings, content.detector.settings.rpn_post_nms_test
    counted = check_memory(len(names) + len(negatives) + len(trained), regions, trained.shape[1])
    embeddings = embed_vocabulary(model, replace(names, beside=content.card.classes))
    read = model.read_names(names.names), model.read_names(content.card.classes)
    spoken = embeddings if read[0] is None else read[0], trained if read[1] is None else read[1]
    meant = _meant(names, content.card.classes)  # (K, classes)
    strange = set(far_names(names.names, *spoken))
    far = tuple(name for name, own in zip(names.names, meant, strict=True) if name in strange and not own.any())
    is_rival = ~meant.any(dim=0) & is_open
    # A rival that is not wanted competes already; a second time it would take twice as much.
    is_new = ~(_meant(negatives, content.card.classes) & is_rival).any(dim=1)
    rivals = torch.cat([trained[is_rival], embed_vocabulary(model, negatives)[is_new]])
    thresholds = background_thresholds(content, embeddings, rivals)
    if on_objects:
        nearest = functional.one_hot((spoken[0] @ spoken[1].T).argmax(dim=1), len(trained)).bool()
        is_near = torch.tensor([name not in far for name in names.names])
        own = meant | (nearest & is_near[:, None] & ~meant.any(dim=1, keepdim=True))
        thresholds = thresholds.maximum(object_thresholds(content, embeddings, rivals, own))
    return Typed(
        names=names.names,
        embeddings=embeddings,
        rivals=rivals,
        thresholds=thresholds,
        notes=(*names.notes, *negatives.notes, *counted, *_far_notes(far)),
        far=far,
    )


def background_thresholds(content: OpenBundle, embeddings: Tensor, rivals: Tensor) -> Tensor:
    """Compute the score ``(K,)`` of each name that 99.5 % of the background regions do not exceed; 0 without any."""
    scores = _scores(content, content.regions.background, embeddings, rivals)
    return _quantile(scores) if len(scores) else torch.zeros(len(embeddings))


def object_thresholds(content: OpenBundle, embeddings: Tensor, rivals: Tensor, own: Tensor) -> Tensor:
    """Compute the score ``(K,)`` of each name that 99.5 % of the objects of other classes do not exceed.

    Args:
        content: The bundle.
        embeddings: ``(K, D)``, of the names.
        rivals: ``(N, D)``, of names that compete unseen.
        own: ``(K, classes)`` bool, the classes whose objects a name may mean; 0 where no other object is stored.
    """
    scores = _scores(content, content.regions.objects, embeddings, rivals)
    rows = [scores[~own[name, content.regions.labels], name] for name in range(len(embeddings))]
    return torch.stack([_quantile(each) if len(each) else torch.zeros(()) for each in rows])


def _scores(content: OpenBundle, regions: Tensor, embeddings: Tensor, rivals: Tensor) -> Tensor:
    """Compute the scores ``(R, K)`` of names on stored regions ``(R, D)`` as a prediction does."""
    classifier = content.detector.classifier
    before = classifier.embeddings
    classifier.set_class_embeddings(torch.cat([embeddings, rivals]))
    with torch.no_grad():
        logits = classifier.compare(regions.to(before.device))
    classifier.set_class_embeddings(before)
    return join_rivals(logits, len(embeddings)).softmax(dim=1)[:, :-1].cpu()


def _quantile(scores: Tensor) -> Tensor:
    """Compute the quantile of each column; torch's own takes no more than 16 million numbers."""
    return torch.as_tensor(np.quantile(scores.numpy(), _QUANTILE, axis=0), dtype=torch.float32)


def _meant(names: Vocabulary, classes: Sequence[str]) -> Tensor:
    """Tell which classes ``(K, classes)`` each name or one of its synonyms is.

    What stands in brackets counts only where both have some: a bow may be either bow, one bow is not the other.
    """
    written = [({name_key(word) for word in words}, set(map(_spoken_key, words))) for words in names.synonyms]
    known = [(name_key(name), _spoken_key(name)) for name in classes]
    rows = [[key in keys or spoken in keys or key in bare for key, spoken in known] for keys, bare in written]
    return torch.tensor(rows, dtype=torch.bool).reshape(len(names), len(classes))


def _spoken_key(name: str) -> str:
    return name_key(spoken_name(name))


def far_names(names: Sequence[str], embeddings: Tensor, trained: Tensor) -> tuple[str, ...]:
    """Choose the names that resemble no trained one: less than the loneliest trained name resembles another.

    Args:
        names: ``K`` typed names.
        embeddings: ``(K, E)``, theirs.
        trained: ``(N, E)``, of the training's names.
    """
    if len(trained) < 2:
        return ()
    among = (trained @ trained.T).fill_diagonal_(-1.0)
    nearest = (embeddings @ trained.T).amax(dim=1)
    return tuple(name for name, value in zip(names, nearest, strict=True) if value < among.amax(dim=1).min())


def _far_notes(far: Sequence[str]) -> tuple[str, ...]:
    told = ", ".join(f"'{name}'" for name in far[:_SHOWN]) + (", ..." if len(far) > _SHOWN else "")
    return (
        (f"warning: this model has not learned words like {told}; what it finds for them is a guess.",) if far else ()
    )


def _check_model(model: TextModel, card: Card) -> None:
    known = card.preprocessing.get("image_text")
    if known and known != model.fingerprint():
        raise CheckpointError(
            "image_text.weights: this is another image–text model than the detector was trained with, whose embeddings "
            "it cannot compare. Give the one of the training."
        )
