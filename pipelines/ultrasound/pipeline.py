"""Pipeline of ultrasound frames: runs of screens and segmenters, their bundles, the gate. Read this file first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipelines.ultrasound.config import LEAST_SIDE, UltrasoundConfig
from pipelines.ultrasound.data.files import list_inputs
from pipelines.ultrasound.data.formats.nnunet import from_nnunet, to_nnunet
from pipelines.ultrasound.data.items import TrainingFrames
from pipelines.ultrasound.data.lists import SPLITS_FILE, FrameList, Lists, read_lists
from pipelines.ultrasound.data.sector.known import SECTORS, write_sectors
from pipelines.ultrasound.data.survey import Survey, refuse_dark, refuse_shared_frames, survey
from pipelines.ultrasound.evaluation.gate_report import report_gates
from pipelines.ultrasound.evaluation.list_report import write_list_report
from pipelines.ultrasound.evaluation.rows import (
    ListScores,
    Models,
    gate_row,
    score_list,
    screen_row,
    segment_row,
    validation_scores,
)
from pipelines.ultrasound.folds import read_run_lists
from pipelines.ultrasound.learner import FrameLearner, make_learner
from pipelines.ultrasound.phantom.study import write_demo
from pipelines.ultrasound.predict import UltrasoundPredictor, refuse_gate
from pipelines.ultrasound.result_files import RESULT_FILES, columns
from pipelines.ultrasound.screening.calibration import calibrate, chosen_threshold
from pipelines.ultrasound.screening.scope_guard import guard_of, guard_record
from pipelines.ultrasound.screening.screen import Screen
from pipelines.ultrasound.segment import ModelMasks, open_masking
from pipelines.ultrasound.weights.bundles import (
    Network,
    ScreenModel,
    SegmentModel,
    describe,
    load_network,
    model_of,
    save_networks,
)
from pipelines.ultrasound.weights.ensembles import ENSEMBLE, save_ensembles
from pipelines.ultrasound.weights.export import exportable
from pipelines.ultrasound.weights.initial import initial_network
from vision_core.bundles.bundle import add_metrics
from vision_core.bundles.card import Card, TrainedOn
from vision_core.bundles.export import Exportable
from vision_core.config import loading as configs
from vision_core.config.loading import fingerprint
from vision_core.console import command_line, say
from vision_core.errors import Checked, ConfigError, DataError, Finding
from vision_core.evaluation.rows import Row, table
from vision_core.pipeline import OnItem, Pipeline, weights_hash
from vision_core.results import CineResult
from vision_core.runs.folder import RunFolder
from vision_core.training import distributed
from vision_core.training.batch_norms import synchronised
from vision_core.training.learner import Learner, Prepared
from vision_core.training.runtime import pick_device


class UltrasoundPipeline(Pipeline[UltrasoundConfig]):
    """Screens and segmenters of ultrasound frames, and the gate that joins them."""

    result_files = RESULT_FILES
    limits = (
        "Trained on the frames named here; on other probes, settings and organs its scores are not known. Observers "
        "disagree at the contour, and the masks are as uncertain as they are."
    )

    def __init__(self) -> None:
        self._surveyed: dict[str, dict[str, Survey]] = {}  # runs of a command share their lists
        self._told: set[str] = set()  # of the data, by the runs of this command

    def check_runs(self, runs: Mapping[str, UltrasoundConfig]) -> None:
        """Read the lists of all runs before the first trains."""
        is_pair = len({config.is_screen for config in runs.values()}) > 1
        for config in runs.values():
            self._check(config)
            if is_pair and config.data.folds:
                read_lists(config.data, [config.data.val_split])  # no fold reads it, the gate's threshold will

    def prepare(self, config: UltrasoundConfig) -> Prepared:
        """Build learner, training frames and validation of a run, whose frames are all read once."""
        if config.segment:
            raise ConfigError("segment is for predict, evaluate and calibrate: networks are trained one by one.")
        lists, surveys = self._check(config)
        start = initial_network(config)
        chosen = _chosen_frames(config, lists, surveys)
        learner = synchronised(make_learner(config, start.module), pick_device(config.train.device))
        _check_sizes(config, start.module, surveys.values())
        items = TrainingFrames(lists[config.data.split], chosen, config)
        _check_last_step(config, len(items))
        val = lists[config.data.val_split]
        score = partial(_validate, config, learner, val) if config.train.eval_every else None
        self._told |= set(lists.notes)
        fold = config.data.fold
        parts = f"Fold {fold} of {config.data.folds}: {len(set(val.subjects or ()))} subjects of '{config.data.split}'"
        told = [] if fold is None else [f"{parts} choose the epoch."]
        notes = [*told, *start.notes, *(note for each in surveys.values() for note in each.notes), *lists.notes]
        if items.is_one_a_subject:
            notes.append("An epoch has one random frame of each subject (data.frames_per_subject).")
        return Prepared(
            learner=learner,
            items=items,
            notes=tuple(dict.fromkeys(notes)),
            start=start.path,
            manifest=fingerprint([surveys[name].manifest for name in (config.data.split, config.data.val_split)]),
            score=score,
        )

    def deliver(self, config: UltrasoundConfig, learner: Learner, folder: Path) -> Card:
        """Write the network as a bundle; in a run, also the lists of subjects."""
        if not isinstance(learner, FrameLearner):
            raise TypeError(f"expected a FrameLearner, got {type(learner).__name__}")
        lists, surveys = self._check(config)
        sectors = {sector: image for each in lists.by_name.values() for sector, image in each.sectors().items()}
        if RunFolder(folder.parent).is_used():
            if lists.splits:
                lists.splits.write(folder.parent / SPLITS_FILE)
            if sectors:
                write_sectors(folder.parent / SECTORS, sectors)
        data = config.data
        about = data.about or f"list '{data.split}' of '{data.root and data.root.name}'"
        if data.fold is not None:
            about += f" without fold {data.fold} of {data.folds}"
        labels = "presence by its observers" if config.is_screen else f"labels '{config.labels.sampling}'"
        trained_on = TrainedOn(
            description=f"{about}, {labels}",
            synthetic=data.synthetic,
            licence=data.licence,
            manifest=surveys[data.split].manifest,
        )
        parent = weights_hash(config.source.weights)
        card = self.card(config, config.method, trained_on=trained_on, classes=data.classes, parent=parent)
        network = learner.product().eval()
        scope = guard_record(model_of(network, data.size_px), lists[data.split], lists[data.val_split])
        described = describe(card, network, config)
        seen = {**described.preprocessing, **({"sectors": [each.to_record() for each in sectors]} if sectors else {})}
        return save_networks(folder, [network], described.model_copy(update={"scope": scope, "preprocessing": seen}))

    def evaluate(self, config: UltrasoundConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        """Score bundles on ``data.eval_split``; a screen with ``segment`` as a gate beside the segmenter alone.

        Raises:
            ConfigError: ``data.eval_split`` is empty.
        """
        name = config.data.eval_split
        if not name:
            raise ConfigError("data.eval_split is empty: name the labelled list to evaluate on.")
        frames = read_lists(config.data, [name])[name]
        rule, device = config.labels.presence, pick_device(config.train.device)
        rows: list[Row] = []
        lists: dict[str, ListScores] = {}
        thresholds: dict[str, float] = {}
        for model, path in bundles.items():
            found = load_network(path, device)
            if isinstance(found.model, SegmentModel):
                refuse_gate(config)
                models = Models(segmenter=found.model, guard=guard_of(found.card))
                lists[model] = score_list(frames, rule, models, f"evaluate {model}")
                row = segment_row(model, lists[model])
            else:
                masking = open_masking(config.segment, device) if config.segment else None
                models = Models(screen=found.model, masking=masking, guard=guard_of(found.card))
                chosen = chosen_threshold(found.card, config.gate, masking.identity if masking else None)
                lists[model] = score_list(frames, rule, models, f"evaluate {model}")
                row = (gate_row if masking else screen_row)(model, lists[model], chosen.value)
                thresholds |= {model: chosen.value} if masking else {}
                row = replace(row, notes=(*row.notes, *chosen.notes))
            rows.append(replace(row, notes=(*_seen_before(found.card, config, name), *row.notes)))
        new = [note for note in frames.notes if note not in self._told]
        for note in dict.fromkeys([*new, *(note for row in rows for note in row.notes)]):
            say(f"  {note}")
        if folder:
            write_list_report(folder, frames, lists, thresholds, synthetic=config.data.synthetic)
        return rows

    def compare(self, runs: Mapping[str, Path]) -> list[str]:
        """Calibrate and score the gates that screens and segmenters of one command make; see ``report_gates``.

        Runs that differ in seed or fold alone become one bundle, scored, and of a screen calibrated, as they are.
        """
        return [*report_gates(runs), *self._ensembles(runs)]

    def _ensembles(self, runs: Mapping[str, Path]) -> list[str]:
        """Write, score and calibrate the ensembles of one command; returns lines to print."""
        lines: list[str] = []
        made: dict[Path, UltrasoundConfig] = {}
        for folder, names in save_ensembles(runs).items():
            made[folder] = config = configs.load(UltrasoundConfig, runs[names[0]] / "config.yaml")
            lines.append(f"\nEnsemble:  {command_line([str(folder)])}, the mean probability of {', '.join(names)}")
            if config.data.eval_split:
                [row] = self.evaluate(config, {ENSEMBLE: folder}, None)
                add_metrics(folder, {row.split: {**row.counts, **row.metrics}})
                lines.append(table([row]))
        segmenters = {config.data.root: folder for folder, config in made.items() if not config.is_screen}
        for folder, config in made.items():
            behind = segmenters.get(config.data.root)
            words = [str(folder), "--input", "YOUR_FILES", "--out", "found"]
            if config.is_screen and behind:
                gate = configs.replace(config, {"segment": behind})
                lines += calibrate(gate, folder, pick_device(config.train.device))
                words.append(f"segment={behind}")
            lines.append(f"Use it:    python -m pipelines.{config.task} predict --checkpoint {command_line(words)}")
        return lines

    def predictor(
        self, bundle: Path, device: torch.device, config: UltrasoundConfig | None = None
    ) -> UltrasoundPredictor:
        """Load a bundle for inference; child processes decode the files, since their origin is unknown."""
        return UltrasoundPredictor.from_checkpoint(bundle, device, config)

    def inputs(self, path: Path) -> list[Path]:
        """List the images, DICOM files and HDF5 files of a folder.

        Raises:
            DataError: There is none, or ``path`` is no folder.
        """
        return list_inputs(path)

    def columns(self, result: CineResult) -> Mapping[str, str | int | float | None]:
        """Return category, counts of frames and the highest score for ``results.csv``."""
        return columns(result)

    def exportable(self, bundle: Path, size: int | None) -> Exportable:
        """Prepare a network, with probabilities as output, for export."""
        return exportable(bundle, size)

    def demo_data(self, folder: Path) -> str:
        """Write a small phantom study; returns a sentence on it."""
        return write_demo(folder)

    def convert_data(
        self, config: UltrasoundConfig, layout: str, folder: Path, *, lossy: bool = False, links: bool = False
    ) -> Sequence[str]:
        """Write the lists as nnU-Net's raw layout, or such data as folders; see ``data.formats.nnunet``."""
        return to_nnunet(config, folder) if layout == "nnunet" else from_nnunet(config, folder)

    def validate(self, config: UltrasoundConfig, sample: int | None, on_item: OnItem) -> Sequence[Checked]:
        """Read every frame of all lists once; a picture in two lists is refused."""
        lists = read_lists(config.data, _lists_of(config))
        total = sum(len(each) if sample is None else min(sample, len(each)) for each in lists.by_name.values())
        done = iter(range(1, total + 1))
        surveys = {
            name: survey(each, config.labels.presence, sample, lambda: on_item(next(done), total))
            for name, each in lists.by_name.items()
        }
        checked = [
            Checked(
                name=name,
                num_items=len(lists[name]),
                num_read=len(found.names) + len(found.faults),
                unit="frames",
                findings=tuple(
                    Finding(severity="note", text=note)
                    for note in found.notes
                    if not (config.is_screen and note in found.dark)
                ),
                faults=found.faults,
            )
            for name, found in surveys.items()
        ]
        told = {note for found in surveys.values() for note in found.notes}
        between = [Finding(severity="note", text=note) for note in lists.notes if note not in told]
        try:
            refuse_shared_frames(surveys, str(config.data.root))
        except DataError as error:
            between += [Finding(severity="refuse", text=text) for text in error.problems]
        if config.is_screen:
            dark = [text for found in surveys.values() for text in found.dark]
            between += [Finding(severity="refuse", text=text) for text in dark]
        if between:
            checked.append(Checked(name="between the lists", unit="frames", findings=tuple(between)))
        return checked

    def _check(self, config: UltrasoundConfig) -> tuple[Lists, dict[str, Survey]]:
        """Open the lists of a run and read all their frames, once for each set of lists.

        Raises:
            DataError: A frame cannot be used, or is in two lists.
        """
        lists = read_run_lists(config.data, _lists_of(config))
        known = fingerprint([config.data.model_dump(mode="json"), config.labels.presence])
        if known not in self._surveyed:
            surveys = {name: survey(each, config.labels.presence) for name, each in lists.by_name.items()}
            for name, each in surveys.items():
                each.refuse_faults(name)
            refuse_shared_frames(surveys, str(config.data.root))
            self._surveyed[known] = surveys
        if config.is_screen:
            refuse_dark(self._surveyed[known], str(config.data.root))
        return lists, self._surveyed[known]


def _lists_of(config: UltrasoundConfig) -> list[str]:
    data = config.data
    return list(filter(None, dict.fromkeys([data.split, data.val_split, data.eval_split, data.calibration_split])))


def _validate(config: UltrasoundConfig, learner: FrameLearner, val: FrameList) -> Mapping[str, float]:
    model = model_of(learner.product().eval(), config.data.size_px)
    models = Models(screen=model) if isinstance(model, ScreenModel) else Models(masking=ModelMasks(model))
    return validation_scores(val, config.labels.presence, models)


def _chosen_frames(config: UltrasoundConfig, lists: Lists, surveys: Mapping[str, Survey]) -> list[int]:
    """List the frames of the training list to train on."""
    present = surveys[config.data.split].present
    chosen = np.flatnonzero(present) if config.data.only_present else np.arange(len(present))
    if config.is_screen and (config.data.only_present or present.all() or not present.any()):
        raise DataError(
            f"'{config.data.split}' shows the organ on '{int(present.sum())}' of {len(present)} frames; a screen needs "
            "frames of both kinds to train on. Add the others, and set data.only_present=false."
        )
    if not len(chosen):
        raise DataError(f"'{config.data.split}' has '0' frames that show the organ. Set data.only_present=false.")
    return [int(each) for each in chosen]


def _check_sizes(config: UltrasoundConfig, network: Network, surveys: Iterable[Survey]) -> None:
    """Refuse frames that make no batch, or are smaller than the network takes."""
    side = config.screen.side_px
    given = ((side, side) if side else None) if isinstance(network, Screen) else config.data.size_px
    sizes = {given} if given else {size for each in surveys for size in each.sizes}
    key = "screen.side_px" if isinstance(network, Screen) else "data.size_px"
    if len(sizes) > 1:
        shown = ", ".join(f"{height} x {width}" for height, width in sorted(sizes)[:3])
        raise ConfigError(f"The frames have '{len(sizes)}' sizes ({shown}), and a step needs one. Set {key}.")
    least = LEAST_SIDE if isinstance(network, Screen) else network.least_side
    [(height, width)] = sizes
    if min(height, width) < least:
        fewer = "" if isinstance(network, Screen) else ", or fewer segmenter.layers"
        raise ConfigError(
            f"The network needs frames of {least} pixels a side, found '{height} x {width}'. Set {key}{fewer}."
        )


def _check_last_step(config: UltrasoundConfig, count: int) -> None:
    """Refuse a last step of an epoch in which a process has fewer than two frames: norms need a spread."""
    world = distributed.world_size()
    left = count % (config.train.batch_size * world)
    if not config.train.drop_last and 0 < left < 2 * world:
        raise ConfigError(
            f"The last step of an epoch would have '{left}' of {count} frames for {world} processes, and batch "
            "normalisation needs two each. Set train.drop_last=true, or another train.batch_size."
        )


def _seen_before(card: Card, config: UltrasoundConfig, name: str) -> tuple[str, ...]:
    """Tell where the scored list is one that the bundle was trained or selected on."""
    data = card.config.get("data", {})
    if str(data.get("root")) != str(config.data.root):
        return ()
    if name == data.get("split"):
        return (f"TRAINED ON: '{name}' is the list of the training. Its scores say nothing about other frames.",)
    if name == data.get("val_split") and not data.get("folds"):  # whose epochs a part of the training list has chosen
        return (f"CALIBRATED ON: '{name}' has chosen the epoch, and perhaps the threshold. Say so beside the figures.",)
    return ()
