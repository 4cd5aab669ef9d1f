"""Calibration of the gate: the threshold chosen on validation subjects, as the screen's card keeps it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.ultrasound.config import Calibrate, Gate, UltrasoundConfig
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.data.survey import refuse_dark, refuse_shared_frames, survey
from pipelines.ultrasound.evaluation.rows import ListScores, Models, score_list, turned_away_notes
from pipelines.ultrasound.screening.presence_rule import tuned_rule
from pipelines.ultrasound.screening.scope_guard import guard_of
from pipelines.ultrasound.screening.threshold import CurvePoint, cheapest, curve, risk_controlled
from pipelines.ultrasound.segment import Masking, ModelMasks, open_masking
from pipelines.ultrasound.weights.bundles import ScreenModel, load_network
from vision_core.bundles.bundle import amend
from vision_core.bundles.card import Card
from vision_core.errors import CheckpointError, ConfigError, DataError, UsageError

_HALF = 0.5  # the published threshold of the screen's own validation


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Threshold of a gate, with remarks for the user."""

    value: float
    notes: tuple[str, ...] = ()


def calibrate(config: UltrasoundConfig, screen: Path, device: torch.device) -> list[str]:
    """Calibrate the gate of a screen's bundle and the segmenter in ``segment``; returns lines to print.

    Raises:
        UsageError: ``segment`` is empty.
        DataError: The lists, or the subjects for the control of missed frames, cannot be used.
    """
    if config.segment is None:
        raise UsageError("segment is missing: give segment=BUNDLE, or segment=FOLDER of masks of another tool.")
    loaded, masking = load_network(screen, device, "screen"), open_masking(config.segment, device)
    assert isinstance(loaded.model, ScreenModel)
    data = config.data
    wanted = [data.split, data.val_split, *([data.calibration_split] if data.calibration_split else [])]
    lists = read_lists(data, wanted)
    surveys = {name: survey(each) for name, each in lists.by_name.items()}
    refuse_dark(surveys, str(data.root))
    refuse_shared_frames(surveys, str(data.root))
    alone = Models(screen=loaded.model, guard=guard_of(loaded.card))
    both = replace(alone, masking=masking)
    found = score_list(lists[data.val_split], config.labels.presence, both, "calibrate", with_distances=False)
    apart = None
    if data.calibration_split:
        apart = score_list(lists[data.calibration_split], config.labels.presence, alone, "missed frames")
    seen = {each for name in (data.split, data.val_split) for each in lists[name].subjects or ()}
    record = calibration_of(found, config.calibrate, masking.identity, apart, seen)
    amend(screen, calibration=record)
    left_out = [
        f"note: '{each.name}': {note}"
        for each in (found, apart)
        if each
        for note in turned_away_notes(each, "they choose no threshold")
    ]
    return [
        *lists.notes,
        *left_out,
        *one_kind_note(found),
        *_curve_lines(record),
        *_other_training(loaded.card, masking),
    ]


def calibration_of(
    found: ListScores, costs: Calibrate, identity: str, apart: ListScores | None = None, seen: Iterable[str] = ()
) -> dict[str, Any]:
    """Choose the threshold of least cost on validation frames, and one that controls the share of missed frames.

    Frames that predict turns away whatever their score are left out: no threshold is applied to them.

    Args:
        found: Scores and masks on the validation list.
        costs: Costs of both errors, and the share of missed frames.
        identity: Name of the segmenter.
        apart: Scores on further subjects, for the control; None: there is none.
        seen: Subjects that have trained or chosen anything.

    Raises:
        DataError: The subjects of ``apart`` are too few, unknown, or among ``seen``; a score is no number; or predict
            would turn every frame away.
    """
    found, num_away = _judged(found)
    points = curve(found.scores, found.segmented)
    best = cheapest(points, false_positive=costs.false_positive, false_negative=costs.false_negative)
    rule = None
    if not np.isnan(found.confidence).all():  # masks of another tool have no probabilities
        rule = tuned_rule(
            found.areas,
            found.confidence,
            found.present,
            false_positive=costs.false_positive,
            false_negative=costs.false_negative,
        )
    return {
        "chosen_on": {
            "list": found.name,
            "subjects": len(set(found.subjects)) if found.subjects else None,
            "frames": len(found.present),
            **({"frames_turned_away": num_away} if num_away else {}),
        },
        "cost": {"false_positive": costs.false_positive, "false_negative": costs.false_negative},
        "segment": identity,
        "threshold": best.threshold,
        "curve": [_point(each) for each in points],
        "presence_rule": asdict(rule) if rule else None,
        "risk": None if apart is None else _risk(apart, costs.alpha, seen),
    }


def one_kind_note(found: ListScores) -> list[str]:
    """Tell of a list whose frames all show the organ, or none: one kind of error alone chooses the threshold then."""
    present = found.judged().present
    if 0 < present.sum() < len(present):
        return []
    return [
        f"note: '{found.name}' shows the organ on '{int(present.sum())}' of {len(present)} frames: one kind of error "
        "alone chooses the threshold. Choose it on frames with the organ and without."
    ]


def curve_record(found: ListScores) -> list[Mapping[str, Any]]:
    """Compute the curve of a gate on a list, as a card keeps it."""
    return [_point(each) for each in curve(found.scores, found.segmented)]


def chosen_threshold(card: Card, gate: Gate, identity: str | None = None) -> Chosen:
    """Find the threshold of a screen: as stated, as calibrated, else one half.

    Args:
        card: Card of the screen.
        gate: Settings; a stated threshold wins.
        identity: Name of the segmenter behind the gate, if any.

    Raises:
        CheckpointError: The card's calibration is damaged.
        ConfigError: Control of missed frames is asked for, and was not calibrated.
    """
    known = card.calibration or {}
    if gate.threshold is not None:
        return Chosen(value=gate.threshold)
    if not known:
        if gate.by == "risk":
            raise ConfigError(
                "gate.by=risk: this screen has no calibration. Run calibrate with data.calibration_split."
            )
        return Chosen(value=_HALF, notes=("The gate's threshold is 0.5: run calibrate to choose one.",))
    try:
        if gate.by == "risk" and not known["risk"]:
            raise ConfigError(
                "gate.by=risk: missed frames were not controlled. Run calibrate with data.calibration_split=LIST."
            )
        value = float(known["risk"]["threshold"] if gate.by == "risk" else known["threshold"])
        other = str(known["segment"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"The card's calibration is damaged ({error!r}). Run calibrate again.") from error
    if identity and other != identity:
        return Chosen(value=value, notes=(f"The gate's threshold was chosen with '{other}', not with '{identity}'.",))
    return Chosen(value=value)


def _risk(apart: ListScores, alpha: float, seen: Iterable[str]) -> dict[str, Any]:
    if apart.subjects is None:
        raise DataError(
            f"The list '{apart.name}' names no subjects, over which missed frames are controlled. Add subjects.csv."
        )
    apart, num_away = _judged(apart)
    assert apart.subjects is not None
    try:
        found = risk_controlled(apart.scores, apart.present, apart.subjects, alpha, chosen_on=seen)
    except DataError as error:
        also = f" '{num_away}' frames that predict turns away do not count." if num_away else ""
        raise DataError(f"{error}{also}") from error
    return {"list": apart.name, **({"frames_turned_away": num_away} if num_away else {}), **asdict(found)}


def _judged(found: ListScores) -> tuple[ListScores, int]:
    """Leave out the frames that predict turns away; returns the others, and the number left out."""
    some = found.judged()
    if not len(some.present):
        raise DataError(
            f"'{found.name}': predict would turn all '{len(found.present)}' frames away, so that no threshold is "
            "applied to any. Calibrate on frames like those of the training."
        )
    return some, len(found.present) - len(some.present)


def _point(point: CurvePoint) -> Mapping[str, Any]:
    dice = point.dice
    values: dict[str, Any] = {
        "threshold": point.threshold,
        **asdict(point.counts),
        "accepted_share": point.accepted_share,
        "dice_accepted": dice.accepted.mean,
        "dice_end_to_end": dice.end_to_end.mean,
    }
    return {name: None if isinstance(each, float) and np.isnan(each) else each for name, each in values.items()}


def _other_training(own: Card, masking: Masking) -> list[str]:
    """Tell where both networks were trained on other lists: the threshold may have seen training frames then."""
    if not isinstance(masking, ModelMasks) or masking.trained_on <= {own.trained_on.manifest}:
        return []
    return [
        "note: screen and segmenter were trained on different frames. Where validation subjects of one have trained "
        "the other, this threshold promises too much: train both with the same splits.json."
    ]


def _curve_lines(record: dict[str, object]) -> list[str]:
    lines = ["threshold  accepted  found  missed  false  right  Dice end to end"]
    points = record["curve"]
    assert isinstance(points, list)
    for each in points:
        dice = each["dice_end_to_end"]
        lines.append(
            f"{each['threshold']:9.4f}  {each['accepted_share']:8.1%}  {each['true_positive']:5d}  "
            f"{each['false_negative']:6d}  {each['false_positive']:5d}  {each['true_negative']:5d}  "
            f"{'n/a' if dice is None else f'{100 * dice:.1f}':>15}"
        )
    lines.append(f"Threshold of least cost on validation subjects: {record['threshold']:g}.")
    risk = record["risk"]
    if isinstance(risk, dict):
        lines.append(
            f"Threshold under which at most {risk['alpha']:.0%} of a subject's frames are missed, in the mean over "
            f"subjects: {risk['threshold']:g} ({risk['num_subjects']} subjects, {risk['missed_share']:.1%} missed)."
        )
    return lines
