"""Pipeline of pretraining: runs of images, classifier and policy, and their bundles. Read this file first."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.checks.readable import checked_by_first
from pipelines.pretrain.data.checks.safe_reading import list_inputs
from pipelines.pretrain.data.checks.validation import check_lists
from pipelines.pretrain.data.mixing import record_draws
from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.reading import Images, frozen_classes, read_images, write_classes
from pipelines.pretrain.data.splits import (
    check_training_list,
    content_manifest,
    in_classes,
    manifest,
    overlaps,
    remarks,
    scored_images,
    scored_splits,
    training_images,
    with_new_statistics,
)
from pipelines.pretrain.data.views import CentreViews, TrainingViews
from pipelines.pretrain.demo.demo_data import make_demo_data
from pipelines.pretrain.evaluation.overlap import note_seen_images
from pipelines.pretrain.evaluation.run_scores import check_classes, load_training_masks, score_bundle, validate_learner
from pipelines.pretrain.evaluation.scores import align_metrics
from pipelines.pretrain.learner import CleanLearner, Goal, PretrainLearner, make_learner
from pipelines.pretrain.noise_mask.history import choose_probes
from pipelines.pretrain.noise_mask.pictures import Picture, draw_history
from pipelines.pretrain.predict import RESULT_FILES, PolicyPredictor, PretrainPredictor, columns
from pipelines.pretrain.stages import check_later_runs
from pipelines.pretrain.weights.bundles import (
    IMPORTED,
    POLICY,
    TASK,
    build_classifier,
    check_independence,
    describe_classifier,
    load_classifier,
    save_classifier,
    save_policy,
)
from pipelines.pretrain.weights.classes import match_classes, relabelled, scored_classes
from pipelines.pretrain.weights.export import exportable
from pipelines.pretrain.weights.initial import InitialClassifier, initial_classifier, placeholder_classifier
from pipelines.pretrain.weights.released import read_released
from vision_core.bundles.bundle import read_card
from vision_core.bundles.card import Card, TrainedOn
from vision_core.bundles.export import Exportable
from vision_core.console import say
from vision_core.errors import Checked, ConfigError, DataError, Finding
from vision_core.evaluation.rows import Row
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import OnItem, Pipeline, weights_hash
from vision_core.results import ClassScores
from vision_core.training.batch_norms import synchronised
from vision_core.training.learner import Learner, Prepared
from vision_core.training.runtime import pick_device


class PretrainPipeline(Pipeline[PretrainConfig]):
    """Pretraining of classifiers, with or without a learned noise mask."""

    result_files = RESULT_FILES
    limits = (
        "Trained on the images named here; elsewhere its scores are not known. Images of one patient or one scanner "
        "can be in training and test where a data set does not tell them apart."
    )

    def __init__(self) -> None:
        self._printed: set[str] = set()  # notes: a run is scored in every epoch on the same list
        self._compared: set[str] = set()  # names of lists in which equal images were looked for

    def check_runs(self, runs: Mapping[str, PretrainConfig]) -> None:
        """Refuse what a later run of the command would be refused for."""
        check_later_runs(runs)

    def prepare(self, config: PretrainConfig) -> Prepared:
        """Build learner, training views and validation of a run; all lists that are scored are read now."""
        return self._prepared(config, initial_classifier)

    def rehearse(self, config: PretrainConfig) -> Prepared:
        """Prepare a run; a random classifier stands in for the result of an earlier run of the command."""
        is_result_missing = config.source.run and not config.source.weights
        return self._prepared(config, placeholder_classifier if is_result_missing else initial_classifier)

    def _prepared(
        self, config: PretrainConfig, initialise: Callable[[PretrainConfig, Images], InitialClassifier]
    ) -> Prepared:
        with checked_by_first():
            images = training_images(config)
            check_training_list(config, images)
            scored = {split: scored_images(config, images.classes, split) for split in scored_splits(config)}
        start, list_hash = initialise(config, images), manifest(images)
        goal = Goal(
            backbone=start.backbone,
            classes=images.classes,
            are_independent=images.is_multi_label,
            manifest=list_hash,
        )
        probes = normalise(choose_probes(CentreViews(images, config.data))) if config.is_masked else None
        learner = make_learner(config, start.module, goal, probes)
        record_draws(learner, config)
        learner = synchronised(learner, pick_device(config.train.device))
        score = None
        if config.data.val_split and config.train.eval_every:
            score = partial(validate_learner, config, learner, scored[config.data.val_split])
        lists = [images, *scored.values()]
        notes = [*remarks(config), *start.notes, *(note for each in lists for note in each.notes), *overlaps(lists)]
        self._printed.update(notes)
        self._compared.update(each.name for each in lists)
        return Prepared(
            learner=learner,
            items=TrainingViews(images, config.data, config.train.seed),
            notes=tuple(dict.fromkeys(notes)),
            start=start.path if config.method == "finetune" else None,
            manifest=content_manifest(images),
            manifest_before=list_hash,
            score=score,
        )

    def deliver(self, config: PretrainConfig, learner: Learner, folder: Path) -> Card:
        """Write the classifier's bundle; at the end of a run also its policy, mask pictures and class list."""
        if not isinstance(learner, CleanLearner):
            raise TypeError(f"expected a CleanLearner, got {type(learner).__name__}")
        network, goal, is_last = learner.product(), learner.goal, folder.name == "model"
        notes = [learner.average.incomplete_warning()] if is_last and learner.average else []
        if config.averaging.reestimate_norms:
            network = build_classifier(goal.backbone, len(goal.classes), network.state_dict())  # training goes on
            notes.append(with_new_statistics(network, config))
        learner.notes += [note for note in notes if note and note not in learner.notes]
        card = describe_classifier(
            self._card(config, config.method, goal), goal.backbone, config.data, are_independent=goal.are_independent
        )
        card = save_classifier(folder, network, card)
        write_classes(folder.parent / "classes.json", goal.classes)
        if is_last:
            self._deliver_policy(config, learner, folder.parent)
        return card

    def _deliver_policy(self, config: PretrainConfig, learner: CleanLearner, run: Path) -> None:
        shutil.rmtree(run / POLICY, ignore_errors=True)  # of an earlier run in the same folder
        if not isinstance(learner, PretrainLearner):
            return
        if learner.noise and not learner.alarm.is_stopped:
            save_policy(run / POLICY, learner.noise, config, self._card(config, POLICY, learner.goal))
        if learner.history:
            draw_history(learner.history, learner.mask, run / "pictures")

    def _card(self, config: PretrainConfig, method: str, goal: Goal) -> Card:
        data = config.data
        about = data.about or f"{data.format} list '{data.split}' of '{data.root and data.root.name}'"
        masks = f", under masks of policy '{config.policy}'" if config.is_masked else ""
        trained_on = TrainedOn(
            description=f"{about}, with its labels{masks}",
            synthetic=data.synthetic,
            licence=data.licence,
            manifest=goal.manifest,
        )
        parent = weights_hash(config.source.weights)
        return self.card(config, method, trained_on=trained_on, classes=goal.classes, parent=parent)

    def evaluate(self, config: PretrainConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``: on clean images, and under the masks of their training.

        Raises:
            CheckpointError: A bundle has no classes, or is for images of another kind.
            ConfigError: ``data.eval_split`` is empty, or masks do not fit on its images.
        """
        if not config.data.eval_split:
            raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
        device = pick_device(config.train.device)
        models = {name: load_classifier(path, device) for name, path in bundles.items()}
        check_classes(bundles, models)
        classes, numbering = scored_classes(config, next(iter(models.values())).card.classes)
        for name, each in models.items():
            match_classes(bundles[name], each.card.classes, classes, "Give data.classes by the names of the bundle.")
        images = scored_images(config, classes, config.data.eval_split)
        for name, each in models.items():
            check_independence(bundles[name], each.card, are_independent=images.is_multi_label)
        if images.name not in self._compared:
            self._compared.add(images.name)
            images = replace(images, notes=(*images.notes, *overlaps([images])))
        lists = {name: relabelled(images, each.card.classes) for name, each in models.items()}
        seen = {
            name: (*numbering, *note_seen_images(bundles[name], each.card, config, lists[name]))
            for name, each in models.items()
        }
        for note in dict.fromkeys([*images.notes, *(note for notes in seen.values() for note in notes)]):
            if note not in self._printed:
                say(f"  {note}")
                self._printed.add(note)
        side = config.data.image_px
        rows = [
            score_bundle(
                config,
                name,
                each,
                CentreViews(lists[name], config.data),
                load_training_masks(bundles[name], each.card, side),
            )
            for name, each in models.items()
        ]
        return [replace(row, notes=(*images.notes, *seen[row.model])) for row in align_metrics(rows)]

    def predictor(
        self, bundle: Path, device: torch.device, config: PretrainConfig | None = None
    ) -> PretrainPredictor | PolicyPredictor:
        """Load a bundle for inference; child processes decode the files, since their origin is unknown."""
        kind = PolicyPredictor if read_card(bundle, TASK).method == POLICY else PretrainPredictor
        return kind.from_checkpoint(bundle, device, read=UntrustedImages().noted)

    def inputs(self, path: Path) -> list[Path]:
        """List the images of a folder, DICOM files too.

        Raises:
            DataError: The folder has no image, or ``path`` is no folder.
        """
        if path.is_file():
            raise DataError(f"--input '{path}' is a list; give an image, or a folder of images.")
        return list_inputs(path)

    def columns(self, result: ClassScores | Picture) -> Mapping[str, str | float]:
        """Return category, notes and highest scores; nothing for the masks of a policy."""
        return columns(result) if isinstance(result, ClassScores) else {}

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """Prepare the classifier, with probabilities as output, for export."""
        return exportable(bundle, size)

    def demo_data(self, folder: Path) -> str:
        """Write the demo's images; returns a sentence on them."""
        return make_demo_data(folder)

    def validate(self, config: PretrainConfig, sample: int | None, on_item: OnItem) -> Sequence[Checked]:
        """Read every image of the training list and of the scored lists once; a refused list hides no other."""
        data, lists, refused = config.data, [], []
        for split in (data.split, *scored_splits(config)):
            try:
                lists.append(read_images(data, split))
            except DataError as error:
                findings = tuple(Finding(severity="refuse", text=text) for text in error.problems)
                refused.append(Checked(name=split, unit="images", findings=findings))
                continue
            data = in_classes(config.data, lists[0].classes)
        if not lists:
            return refused
        if config.source.weights and config.data.split not in {each.name for each in refused}:
            initial_classifier(config, lists[0])
        checked, between = check_lists(lists, sample, cache=config.data.cache, on_item=on_item)
        return [*checked, *refused, between]

    def import_weights(self, file: Path, config: PretrainConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        """Make a bundle of a released classifier; returns the key map and all inferred facts."""
        key = config.source.weights_key
        found = read_released(file, frozen_classes(config.data), trust=trusted, weights_key=key)
        notes = [*found.notes]
        if config.averaging.reestimate_norms:
            notes.append(with_new_statistics(found.network, config))
        goal = Goal(backbone=found.backbone, classes=found.classes)
        trained_on = TrainedOn(description=found.origin, synthetic=False)
        card = self._card(config, IMPORTED, goal).model_copy(update={"trained_on": trained_on, "parent": None})
        save_classifier(out, found.network, describe_classifier(card, found.backbone, config.data))
        return tuple(notes)
