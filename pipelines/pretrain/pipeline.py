"""The page to read first: how images, classifier and policy become the runs of pretraining, and what leaves them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.checks.safe_reading import list_inputs
from pipelines.pretrain.data.checks.validation import CrossListFindings, Validation, check_lists
from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.reading import Images, frozen_classes, read_images, write_classes
from pipelines.pretrain.data.splits import (
    check_training_list,
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
from pipelines.pretrain.evaluation.run_scores import check_scored, hiding_beside, score_bundle, validate_learner
from pipelines.pretrain.evaluation.scores import with_same_metrics
from pipelines.pretrain.learner import CleanLearner, Goal, HeadLearner, PretrainLearner
from pipelines.pretrain.noise_mask.history import choose_probes
from pipelines.pretrain.noise_mask.pictures import Picture, draw_history
from pipelines.pretrain.predict import PolicyReader, PretrainPredictor
from pipelines.pretrain.stages import check_later_runs
from pipelines.pretrain.weights import released as importing
from pipelines.pretrain.weights.bundles import (
    IMPORTED,
    POLICY,
    TASK,
    built_classifier,
    check_independence,
    describe_classifier,
    load_classifier,
    save_classifier,
    save_policy,
)
from pipelines.pretrain.weights.export import exportable
from pipelines.pretrain.weights.initial import Start, expected_start, head_of, starting_classifier
from vision_core.bundles import bundle
from vision_core.bundles.card import Card, TrainedOn
from vision_core.bundles.export import Exportable
from vision_core.console import say
from vision_core.errors import ConfigError, DataError
from vision_core.evaluation.rows import Row
from vision_core.images.untrusted import UntrustedImages
from vision_core.pipeline import OnItem, Pipeline, weights_hash
from vision_core.results import ClassScores
from vision_core.training.batch_norms import synchronised
from vision_core.training.learner import Learner, Prepared
from vision_core.training.runtime import pick_device

Begin = Callable[[PretrainConfig, Images], Start]


class PretrainPipeline(Pipeline[PretrainConfig]):
    """Pretraining of classifiers, with or without a learned noise mask."""

    own_data = "data.root=YOUR_IMAGES data.format=folders"
    limits = (
        "Trained on the images named here; elsewhere its scores are not known. Images of one patient or one scanner "
        "can be in training and test where a data set does not tell them apart."
    )

    def __init__(self) -> None:
        self._told: set[str] = set()

    def check_runs(self, runs: Mapping[str, PretrainConfig]) -> None:
        """Refuse what a later run of the command would be refused for."""
        check_later_runs(runs)

    def prepare(self, config: PretrainConfig) -> Prepared:
        """Learner, training views and validation of a run; lists that are scored later are looked at now."""
        return self._prepared(config, starting_classifier)

    def rehearse(self, config: PretrainConfig) -> Prepared:
        """As ``prepare``; a random classifier stands in for what an earlier run of the command will leave."""
        is_left_later = config.source.run and not config.source.weights
        return self._prepared(config, expected_start if is_left_later else starting_classifier)

    def _prepared(self, config: PretrainConfig, begin: Begin) -> Prepared:
        images = training_images(config)
        check_training_list(config, images)
        scored = {split: scored_images(config, images.classes, split) for split in scored_splits(config)}
        start = begin(config, images)
        learner = synchronised(self._learner(config, images, start), pick_device(config.train.device))
        score_it = None
        if config.data.val_split and config.train.eval_every:
            score_it = partial(validate_learner, config, learner, scored[config.data.val_split])
        told = [*remarks(config), *start.notes, *images.notes]
        told += [note for each in scored.values() for note in each.notes]
        notes = dict.fromkeys([*told, *overlaps([images, *scored.values()])])
        self._told.update(notes)
        return Prepared(
            learner=learner,
            items=TrainingViews(images, config.data, config.train.seed),
            notes=tuple(notes),
            start=start.path if config.method == "finetune" else None,
            manifest=manifest(images),
            score=score_it,
        )

    def _learner(self, config: PretrainConfig, images: Images, start: Start) -> CleanLearner:
        goal = Goal(
            backbone=start.backbone,
            classes=images.classes,
            are_independent=images.is_multi_label,
            manifest=manifest(images),
        )
        if config.is_masked:
            probes = choose_probes(CentreViews(images, config.data))
            return PretrainLearner(config, start.classifier, goal, normalise(probes))
        if config.method == "transfer" and config.transfer.parts == ("linear",):
            return HeadLearner(config, start.classifier, goal, head_of(start.backbone))
        return CleanLearner(config, start.classifier, goal)

    def deliver(self, config: PretrainConfig, learner: Learner, folder: Path) -> Card:
        """Write the classifier; beside the last one of a run its policy, the pictures of its masks, its classes."""
        if not isinstance(learner, CleanLearner):
            raise TypeError(f"expected a CleanLearner, got {type(learner).__name__}")
        network, goal = learner.product(), learner.goal
        if folder.name == "model" and learner.average and (told := learner.average.shortfall()):
            learner.notes += [told] if told not in learner.notes else []
        if config.averaging.reestimate_norms:
            network = built_classifier(goal.backbone, len(goal.classes), network.state_dict())  # training goes on
            told = with_new_statistics(network, config)
            learner.notes += [told] if told not in learner.notes else []
        card = self._card(config, config.method, goal)
        card = describe_classifier(card, goal.backbone, config.data, are_independent=goal.are_independent)
        card = save_classifier(folder, network, card)
        write_classes(folder.parent / "classes.json", goal.classes)
        if folder.name == "model":
            self._deliver_policy(config, learner, folder.parent)
        return card

    def _deliver_policy(self, config: PretrainConfig, learner: CleanLearner, run: Path) -> None:
        shutil.rmtree(run / POLICY, ignore_errors=True)  # of a run that was overwritten
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
        """Score bundles on ``data.eval_split``, clean and, where a policy stands beside, under its masks.

        Raises:
            CheckpointError: A bundle has no classes, or is for images of another kind.
            ConfigError: There is no such list, or masks do not fit on its images.
        """
        if not config.data.eval_split:
            raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
        device = pick_device(config.train.device)
        models = {name: load_classifier(path, device) for name, path in bundles.items()}
        check_scored(bundles, models)
        classes = next(iter(models.values())).card.classes
        images = scored_images(config, classes, config.data.eval_split)
        for name, each in models.items():
            check_independence(bundles[name], each.card, are_independent=images.is_multi_label)
        self._tell(images.notes)
        views, side = CentreViews(images, config.data), config.data.image_px
        rows = [
            score_bundle(config, name, each, views, hiding_beside(bundles[name], each.card, side))
            for name, each in models.items()
        ]
        return with_same_metrics(rows)

    def _tell(self, notes: Sequence[str]) -> None:
        """Say what has not been said; a run is scored in every epoch on the same list."""
        for note in notes:
            if note not in self._told:
                say(f"  {note}")
        self._told.update(notes)

    def predictor(
        self, bundle: Path, device: torch.device, config: PretrainConfig | None = None
    ) -> PretrainPredictor | PolicyReader:
        """Load a bundle for inference on files of unknown origin: child processes decode them."""
        reader = PolicyReader if _is_policy(bundle) else PretrainPredictor
        return reader.from_checkpoint(bundle, device, read=UntrustedImages())

    def inputs(self, path: Path) -> list[Path]:
        """The images in a folder, DICOM files too.

        Raises:
            DataError: There is none, or ``path`` is no folder.
        """
        if path.is_file():
            raise DataError(f"--input '{path}' is a list; give an image, or a folder of images.")
        return list_inputs(path)

    def columns(self, result: ClassScores | Picture) -> Mapping[str, str | float]:
        """What is called, and its score; of a policy's masks nothing."""
        if not isinstance(result, ClassScores):
            return {}
        best, value = result.ranked()[0]
        return {"called": "; ".join(result.called()), "best class": best, "best score": round(value, 4)}

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """The classifier with its probabilities."""
        return exportable(bundle, size)

    def demo_data(self, folder: Path) -> str:
        """Write the demo's images."""
        return make_demo_data(folder)

    def validate(
        self, config: PretrainConfig, sample: int | None, on_item: OnItem
    ) -> Sequence[Validation | CrossListFindings]:
        """Read every image of the training list, and of those that are scored, once."""
        lists = [read_images(config.data, config.data.split)]
        data = in_classes(config.data, lists[0].classes)
        lists += [read_images(data, split) for split in scored_splits(config)]
        return check_lists(lists, sample, cache=config.data.cache, on_item=on_item)

    def import_weights(self, file: Path, config: PretrainConfig, out: Path, *, trusted: bool) -> tuple[str, ...]:
        """Make a bundle of a released classifier; returns the key map and what was inferred."""
        found = importing.read_released(file, frozen_classes(config.data), trust=trusted)
        notes = [*found.notes]
        if config.averaging.reestimate_norms:
            notes.append(with_new_statistics(found.network, config))
        goal = Goal(backbone=found.backbone, classes=found.classes)
        trained_on = TrainedOn(description=found.origin, synthetic=False)
        card = self._card(config, IMPORTED, goal).model_copy(update={"trained_on": trained_on, "parent": None})
        save_classifier(out, found.network, describe_classifier(card, found.backbone, config.data))
        return tuple(notes)


def _is_policy(path: Path) -> bool:
    return bundle.read_card(path, TASK).method == POLICY
