"""Pipeline of source-free adaptation, from data to bundle. Start reading here."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from pipelines.sfod.config import SUPERVISED, TEACHING, SfodConfig
from pipelines.sfod.demo.demo_data import make_demo_data
from pipelines.sfod.initial_weights import (
    DEMO_BUNDLE,
    check_eval_classes,
    check_scored_classes,
    check_source,
    in_classes,
    is_bundle,
    load_source_detector,
    new_detector,
)
from pipelines.sfod.learners.adaptation import CURVE_NAMES, adaptation_learner, few_images_note, warnings_of
from pipelines.sfod.learners.source import SourceLearner
from pipelines.sfod.methods.thresholds import resolve_threshold, threshold_of_images
from pipelines.sfod.outcome.conclusion import conclude_run
from pipelines.sfod.outcome.held_out import Split, hold_out
from pipelines.sfod.overlap import is_own_validation, note_seen_images, note_shared_images
from pipelines.sfod.predict import SfodPredictor
from pipelines.sfod.verdict.source import store_statistics
from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import Card, TrainedOn
from vision_core.bundles.export import Exportable
from vision_core.config.loading import fingerprint, replace
from vision_core.console import say
from vision_core.detection.analysis.coco_results import write_results
from vision_core.detection.datasets.coco import image_ids
from vision_core.detection.datasets.conversion.convert import Conversion, convert
from vision_core.detection.datasets.conversion.kept import Layout
from vision_core.detection.datasets.readable import Seen, readable
from vision_core.detection.datasets.reading import (
    DetectionDataset,
    content_manifest,
    drop_empty,
    format_note,
    manifest,
    read_dataset,
    read_for_findings,
    refuse_without_boxes,
    shared_images,
)
from vision_core.detection.datasets.validation import SoundImages, check_dataset
from vision_core.detection.evaluation import calibrate_bundle, detect_all, draw_comparison, list_reader, score
from vision_core.detection.model.detector import Detector
from vision_core.detection.predictor import DRAWN_SCORE, RESULT_FILES, write_coco
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.detection.views import LabelledViews, TargetViews
from vision_core.detection.weights.bundles import save_detector
from vision_core.detection.weights.detectron2_checkpoint import detector_on_backbone, import_detector
from vision_core.detection.weights.export import exportable_detector
from vision_core.errors import Checked, ConfigError, DataError
from vision_core.evaluation.rows import Row
from vision_core.files import sha256
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import OnItem, Pipeline, weights_hash
from vision_core.results import Detections
from vision_core.training import distributed
from vision_core.training.learner import Learner, Prepared, TrainingSet, refuse_still_teacher
from vision_core.training.loaders import Steps
from vision_core.training.runtime import pick_device

_OWN_LIST = "the source's own validation list"
_EPOCH = "epoch"  # name of the bundle of an epoch that is scored during training


class SfodPipeline(Pipeline[SfodConfig]):
    """Pipeline of source-free adaptation of detectors."""

    result_files = RESULT_FILES
    curve_names = CURVE_NAMES
    can_check = True
    limits = (
        "Trained or adapted on the images named here; elsewhere its scores are not known. Adaptation can also make a "
        "detector worse: compare both models on labelled images of your own before use."
    )

    def __init__(self) -> None:
        self._seen: Seen = {}  # notes on the files that were found to be sound
        self._ids: Mapping[Path, int | str] | None = None  # of the inputs of predict, in the person's own index
        self._told: set[str] = set()  # notes on the scored list that the terminal shows already
        self._manifest: str | None = None  # of the images of the run that was prepared last
        self._shared: list[str] | None = None  # those of them that it scores on
        self._split: Split | None = None  # those to adapt to, and those that numbers without labels are of
        self._threshold: float | str | None = None  # of the pseudo labels of the run that was prepared last

    def check_runs(self, runs: Mapping[str, SfodConfig]) -> None:
        """Read the lists of all runs whose classes are given, so that none is refused after another has trained."""
        for config in (config for config in runs.values() if config.data.classes):
            dataset = read_dataset(config.data, config.data.split, with_labels=config.method in SUPERVISED)
            if config.method in TEACHING and config.data.on_corrupt == "refuse":  # then all images are kept
                count = len(hold_out(dataset, is_asked=config.verdict.select).adapted)
                steps = Steps(count, config.train, world_size=distributed.world_size())
                refuse_still_teacher(config.teacher.every, steps)
            if config.data.eval_split:
                self.eval_set(config, config.data.classes)

    def prepare(self, config: SfodConfig) -> Prepared:
        """Build the learner and the training views of a run."""
        return self._prepare_labelled(config) if config.method in SUPERVISED else self._prepare_target(config)

    def _prepare_labelled(self, config: SfodConfig) -> Prepared:
        dataset = read_dataset(config.data, config.data.split, with_labels=True)
        self._threshold = config.pseudo_labels.threshold
        dataset = self._sound(dataset, config.data)
        refuse_without_boxes(dataset)
        dataset = drop_empty(dataset) if config.data.filter_empty else dataset
        self._manifest = manifest(dataset)
        detector, notes = new_detector(config, dataset.classes)
        items = build_views(LabelledViews, config, in_classes(dataset, detector.classes), detector)
        return Prepared(
            learner=SourceLearner(detector, average=config.teacher, seed=config.train.seed),
            items=items,
            manifest=content_manifest(dataset),
            manifest_before=_names_hash(items),
            notes=(
                format_note(dataset, config.data),
                *warnings_of(config),
                *dataset.notes,
                *notes,
                *self._scored_notes(config, detector.classes, dataset),
            ),
        )

    def _prepare_target(self, config: SfodConfig) -> Prepared:
        start = load_source_detector(config)
        config, told = resolve_threshold(config, start.path)
        data = config.data.model_copy(update={"classes": start.module.classes})
        dataset = self._sound(read_dataset(data, data.split, with_labels=False), data)
        told = (format_note(dataset, data), *told)
        self._split = hold_out(dataset, is_asked=config.verdict.select)
        dataset = self._split.adapted
        self._manifest = manifest(dataset)
        config, from_images = threshold_of_images(config, dataset, start.path)
        self._threshold = config.pseudo_labels.threshold
        scored = self._scored_notes(config, data.classes, dataset)
        items = build_views(TargetViews, config, dataset, start.module)
        return Prepared(
            learner=adaptation_learner(
                config, start.module, start.path, num_images=len(items), looked_at=self._split.compared
            ),
            items=items,
            manifest=content_manifest(dataset),
            manifest_before=_names_hash(items),
            notes=(
                *start.notes,
                *told,
                *from_images,
                *few_images_note(config, len(items)),
                *warnings_of(config),
                *dataset.notes,
                *self._split.notes,
                *scored,
            ),
            start=start.path,
        )

    def _sound(self, dataset: DetectionDataset, data: DetectionData) -> DetectionDataset:
        """Leave out or refuse files that cannot be read; the first process checks for all."""
        if distributed.world_size() == 1:
            return readable(dataset, data, self._seen)
        checked = readable(dataset, data, self._seen) if distributed.rank() == 0 else dataset
        changed = distributed.broadcast_from_first(None if checked is dataset else checked)
        return dataset if changed is None else changed

    def _scored_notes(self, config: SfodConfig, classes: tuple[str, ...], dataset: DetectionDataset) -> list[str]:
        """Read the list to score on before anything runs, and return what is to be said beside the scores."""
        if not config.data.eval_split:
            return []
        scored = self._sound(self.eval_set(config, classes), config.data)
        self._shared = shared_images(dataset, scored)
        shared = note_shared_images(config, self._shared, scored)
        notes = [*shared, *(f"{scored.name}: {note}" for note in scored.notes)]
        self._told.update(notes)
        return notes

    def deliver(self, config: SfodConfig, learner: Learner, folder: Path) -> Card:
        """Write the trained or adapted detector as a bundle."""
        detector = learner.product()
        if not isinstance(detector, Detector):
            raise TypeError(f"expected a Detector, got {type(detector).__name__}")
        if self._threshold is not None:
            config = replace(config, {"pseudo_labels.threshold": self._threshold})
        data = config.data
        trained_on = TrainedOn(
            description=_describe_data(config), synthetic=data.synthetic, licence=data.licence, manifest=self._manifest
        )
        return save_detector(
            folder,
            detector,
            self.card(
                config,
                config.method,
                trained_on=trained_on,
                parent=_parent_hash(config),
                limits=" ".join([self.limits, *(each for each in learner.notes if each.startswith("ALARM"))]),
            ),
        )

    def conclude_run(self, config: SfodConfig, folder: Path, start: Path | None) -> tuple[str, ...]:
        """Select a teacher where that is asked for; compare before and after where no labelled list does."""
        return conclude_run(config, folder, start, self._split) if start and self._split else ()

    def evaluate(self, config: SfodConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``."""
        if config.data.format == "images":  # as the run of a bundle found its own folder; what is scored has labels
            config = replace(config, {"data.format": "auto"})
        device = pick_device(config.train.device)
        read = list_reader(config.data)
        predictors = {model: SfodPredictor.from_checkpoint(path, device, read=read) for model, path in bundles.items()}
        for model, each in predictors.items():
            check_scored_classes(model, each.card.classes, config.data.classes)
        classes = next(iter(predictors.values())).card.classes
        dataset = readable(self.eval_set(config, classes), config.data, self._seen)
        self._tell([f"{dataset.name}: {note}" for note in dataset.notes])
        found = {model: detect_all(each, dataset, f"evaluate {model}") for model, each in predictors.items()}
        if folder:
            draw_comparison(dataset, found, folder, config.data.eval_classes or None, read)
            self._tell(write_results(folder, config.data, dataset, found))
        rows = []
        for model, detections in found.items():
            is_passing = bundles[model].name == _EPOCH  # the best one is scored again when it is delivered
            if is_own_validation(predictors[model].card, config, dataset) and not is_passing:
                self._tell(calibrate_bundle(bundles[model], dataset, detections, _OWN_LIST))
                if predictors[model].card.method == "source":
                    self._tell(store_statistics(bundles[model], dataset, config.verdict.source_images, device))
            notes = self._seen_notes(bundles[model], dataset)
            self._tell(notes)
            rows.append(score(model, dataset, detections, config.data.eval_classes or None, notes))
        return rows

    def _seen_notes(self, path: Path, scored: DetectionDataset) -> tuple[str, ...]:
        """Say what a bundle has seen of a scored list; the run that was prepared last has compared its lists."""
        card = read_card(path)
        compared = self._shared if card.trained_on.manifest == self._manifest else None
        return note_seen_images(path, card, scored, compared)

    def _tell(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                say(note)

    def eval_set(self, config: SfodConfig, classes: tuple[str, ...]) -> DetectionDataset:
        """Read the labelled list to evaluate on, in the detector's classes."""
        if not config.data.eval_split:
            raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
        data = config.data.model_copy(update={"classes": config.data.classes or classes})
        check_eval_classes(data)
        return read_dataset(data, config.data.eval_split, with_labels=True)

    def predictor(self, bundle: Path, device: torch.device, config: SfodConfig | None = None) -> SfodPredictor:
        """Load a bundle; a child process decodes files of unknown origin."""
        return SfodPredictor.from_checkpoint(bundle, device, read=UntrustedImages().noted_image)

    def remarks(self, path: Path, inputs: Sequence[Path], config: SfodConfig | None = None) -> Sequence[str]:
        """Remark as every task; also find the ids of the inputs in ``results.index``."""
        index = config.results.index if config else None
        self._ids = image_ids(index, inputs) if index else None
        return super().remarks(path, inputs, config)

    def columns(self, result: Detections) -> dict[str, str | int]:
        """Count the objects above the drawing threshold, in words and by class, beside the notes on the file."""
        counts = Counter(result.classes[label] for label in result.above(DRAWN_SCORE).labels)
        found = ", ".join(f"{counts[name]} {result.titles.get(name, name)}" for name in result.classes if counts[name])
        shown = {f"{name} (score > {DRAWN_SCORE:g})": counts[name] for name in result.classes}
        verdict = found or f"no object with a score above {DRAWN_SCORE:g}"
        return {"verdict": verdict, "notice": " ".join(result.notes), **shown}

    def conclude(self, folder: Path, inputs: Sequence[Path]) -> None:
        """Write all detections as one COCO file, which labelling tools open."""
        write_coco(folder, inputs, self._ids)

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """Build the module and example inputs of an export."""
        return exportable_detector(bundle, SfodConfig.task, size)

    def demo_data(self, folder: Path) -> str:
        """Write tiles of the tree-crown images, clean and under rendered shifts."""
        make_demo_data(folder)
        return (
            "Demo data: real aerial images of tree crowns (of the package deepforest, MIT), cut into tiles; "
            "night and fog are rendered."
        )

    def convert_data(
        self, config: SfodConfig, layout: str, folder: Path, *, lossy: bool = False, links: bool = False
    ) -> list[str]:
        """Write ``data.split`` and ``data.eval_split`` as COCO, VOC or YOLO; see ``datasets.conversion.convert``."""
        splits = tuple(filter(None, (config.data.split, config.data.eval_split)))
        order = Conversion(splits=splits, layout=cast(Layout, layout), lossy=lossy, links=links)
        return convert(config.data, order, folder)

    def validate(self, config: SfodConfig, sample: int | None, on_item: OnItem) -> list[Checked]:
        """Read every image of training and evaluation list once; faults of one list do not hide those of the other."""
        is_source = config.method in SUPERVISED
        data = config.data
        if not is_source and (config.source.weights or not data.classes):
            data = data.model_copy(update={"classes": load_source_detector(config).module.classes})
        train = read_for_findings(data.split, lambda: read_dataset(data, data.split, with_labels=is_source))
        if is_source and not train.problems:
            train = train.checked(refuse_without_boxes)
            check_source(config, train.classes)
        lists = [train]
        if data.eval_split:
            classes = data.classes or train.classes
            scored = read_for_findings(data.eval_split, lambda: self.eval_set(config, classes))
            lists.append(scored.noting(*note_shared_images(config, shared_images(train, scored), scored)))
        sound, workers = SoundImages(self.checking.cache), self.checking.workers
        return [
            check_dataset(
                each, sample, max_megapixels=data.max_megapixels, workers=workers, sound=sound, progress=on_item
            )
            for each in lists
        ]

    def import_weights(self, file: Path, config: SfodConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        """Convert a checkpoint of detectron2 or torchvision into a bundle; return notes on inferred settings."""
        if config.method == "source":
            return self._import_backbone(file, config, out, trusted=trusted)
        source = config.source
        foreign = import_detector(file, source.config, config.data.classes, trust=trusted, key=source.weights_key)
        detector = Detector(foreign.settings, foreign.classes)
        detector.load_state_dict(foreign.tensors)
        description = f"unknown: imported from '{file.name}' (sha256 {sha256(file)})"
        trained_on = TrainedOn(description=description, synthetic=False)
        labelled = self._labelled_list(config, foreign.classes)
        card = save_detector(out, detector, self.card(config, "imported", trained_on=trained_on))
        if labelled is None:
            return foreign.notes
        predictor = SfodPredictor(detector.freeze(), card, pick_device(config.train.device), list_reader(config.data))
        found = detect_all(predictor, labelled, "calibrate")
        return (*foreign.notes, *calibrate_bundle(out, labelled, found, "given with import-weights"))

    def _labelled_list(self, config: SfodConfig, classes: tuple[str, ...]) -> DetectionDataset | None:
        """Read the list to calibrate imported weights on, where one is given."""
        if config.data.root is None or config.data.eval_split is None:
            return None
        labelled = readable(self.eval_set(config, classes), config.data, self._seen)
        check_scored_classes("the checkpoint", classes, labelled.classes)
        return labelled

    def _import_backbone(self, file: Path, config: SfodConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        if not config.data.classes:
            raise ConfigError("data.classes is empty: name the classes that the detector will learn.")
        settings, key = config.detector or DetectorSettings(), config.source.weights_key
        detector, notes = detector_on_backbone(settings, config.data.classes, file, trust=trusted, key=key)
        description = f"backbone of '{file.name}' (sha256 {sha256(file)}), untrained heads"
        trained_on = TrainedOn(description=description, synthetic=False)
        save_detector(out, detector, self.card(config, "backbone", trained_on=trained_on))
        return notes


def build_views(
    kind: type[LabelledViews | TargetViews], config: SfodConfig, dataset: DetectionDataset, detector: Detector
) -> LabelledViews | TargetViews:
    """Build the training views of a data set.

    Raises:
        DataError: The data set has no image.
    """
    if not dataset.records:
        raise DataError(f"'{dataset.name}' lists no image to train on.")
    return kind(
        dataset,
        detector.settings,
        strong_view=config.strong_view,
        seed=config.train.seed,
        max_megapixels=config.data.max_megapixels,
    )


def _names_hash(items: TrainingSet) -> str:
    """Hash the names of the images, by which earlier versions knew the list of a run."""
    return fingerprint(items.names(range(len(items))))


def _describe_data(config: SfodConfig) -> str:
    labels = "with its labels" if config.method in SUPERVISED else "without labels"
    about = config.data.about or f"{config.data.format} list '{config.data.split}' of '{config.data.root}'"
    return f"{about}, {labels}"


def _parent_hash(config: SfodConfig) -> str | None:
    if config.method in SUPERVISED and not (config.source.weights and is_bundle(config.source.weights)):
        return None
    return weights_hash(config.source.weights or DEMO_BUNDLE)
