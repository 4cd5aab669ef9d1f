"""Gates of the screens and segmenters that one command has trained: calibrated, scored, drawn for the report."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.lists import read_lists
from pipelines.ultrasound.evaluation.list_report import add_captions, compare_runs, write_list_report
from pipelines.ultrasound.evaluation.pictures import CURVE, draw_curve, draw_examples
from pipelines.ultrasound.evaluation.rows import ListScores, Models, gate_row, score_list
from pipelines.ultrasound.screening.calibration import calibrate
from pipelines.ultrasound.screening.gate import accepted, count_frames
from pipelines.ultrasound.screening.presence_rule import PresenceRule
from pipelines.ultrasound.screening.scope_guard import guard_of
from pipelines.ultrasound.segment import open_masking
from pipelines.ultrasound.weights.bundles import ScreenModel, load_network
from vision_core.bundles.bundle import read_card
from vision_core.config import loading as configs
from vision_core.console import command_line
from vision_core.evaluation.rows import Row, table
from vision_core.files import to_json, write_atomic
from vision_core.training.runtime import pick_device

_GATE = " (gate)"


@dataclass(frozen=True, kw_only=True)
class _Run:
    folder: Path
    config: UltrasoundConfig

    @property
    def model(self) -> Path:
        return self.folder / "model"


def report_gates(runs: Mapping[str, Path]) -> list[str]:
    """Calibrate the gate of each screen with the first segmenter of its data and seed, and score it.

    The row and pictures go into the run of the screen, from which the report takes them.

    Args:
        runs: Run folders by name.

    Returns:
        Lines to print; none without such a pair.
    """
    found = [_Run(folder=path, config=configs.load(UltrasoundConfig, path / "config.yaml")) for path in runs.values()]
    segmenters = {
        name: path for (name, path), each in zip(runs.items(), found, strict=True) if not each.config.is_screen
    }
    compare_runs(segmenters, synthetic=any(each.config.data.synthetic for each in found))
    lines = []
    for screen in (each for each in found if each.config.is_screen):
        segment = next((each for each in found if not each.config.is_screen and _are_paired(screen, each)), None)
        if segment:
            lines += _report(screen, segment)
    return lines


def _are_paired(screen: _Run, segment: _Run) -> bool:
    own, other = screen.config, segment.config
    return own.train.seed == other.train.seed and own.data.root == other.data.root


def _report(screen: _Run, segment: _Run) -> list[str]:
    config = configs.replace(screen.config, {"segment": segment.model})
    device = pick_device(config.train.device)
    told = [
        f"\nGate of '{screen.folder.name}' before '{segment.folder.name}':",
        *calibrate(config, screen.model, device),
    ]
    calibration = read_card(screen.model).calibration or {}
    captions = {CURVE: f"The gate on validation frames, by threshold; chosen: {calibration['threshold']:.3g}"}
    pictures = screen.folder / "pictures"
    draw_curve(pictures / CURVE, calibration["curve"], calibration["threshold"], synthetic=config.data.synthetic)
    if config.data.eval_split:
        found, examples = _scored(config, screen.model, config.data.eval_split, pictures)
        row = replace(gate_row("trained", found, calibration["threshold"]), split=f"{found.name}{_GATE}")
        _add_row(screen.folder / "evaluation.json", row)
        captions |= examples
        told += [table([row]), *gate_in_words(found, row, calibration, synthetic=config.data.synthetic)]
    add_captions(pictures, captions)
    use = command_line([str(screen.model), "--input", "YOUR_FILES", "--out", "found", f"segment={segment.model}"])
    return [*told, f"Both:      python -m pipelines.ultrasound predict --checkpoint {use}"]


def gate_in_words(found: ListScores, row: Row, calibration: Mapping[str, Any], *, synthetic: bool = False) -> list[str]:
    """Tell in plain words what a gate changes on a list.

    Beside the segmenter alone stands what its own masks can do: the smallest area and mean probability that count as
    the organ, tuned on the same subjects at the same cost as the gate.

    Args:
        found: Scores and masks of the list.
        row: The gate's row of it.
        calibration: As the screen's card keeps it.
        synthetic: Whether the frames are made by code, which is said.
    """
    has_mask = found.areas > 0
    decided = {"alone": has_mask}
    if calibration["presence_rule"]:
        rule = PresenceRule(**calibration["presence_rule"])
        decided["with a tuned rule on its masks"] = rule.decide(found.areas, found.confidence)
    decided["behind the gate"] = accepted(found.scores, calibration["threshold"]) & has_mask
    counts = {name: count_frames(each, found.present) for name, each in decided.items()}
    num_present = int(found.present.sum())
    false = ", ".join(f"{each.false_positive} {name}" for name, each in counts.items())
    right = ", ".join(f"{each.true_positive} {name}" for name, each in counts.items())
    metrics, interval = row.metrics, row.intervals.get("dice_gain")
    dice, alone = (metrics[name] or 0.0 for name in ("dice_end_to_end", "alone_dice"))
    told = f" (gain {100 * (dice - alone):+.1f}"
    told += f", 95 % interval over subjects {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})" if interval else ")"
    return [
        f"\nWhat the gate does on '{found.name}'{', which is synthetic' if synthetic else ''}:",
        f"  Of {len(found.present) - num_present} frames without the organ, the segmenter leaves a mask on: {false}.",
        f"  Of {num_present} frames with the organ, it finds: {right}.",
        f"  Dice over all frames: {100 * alone:.1f} alone, {100 * dice:.1f} behind the gate{told}.",
    ]


def _scored(config: UltrasoundConfig, screen: Path, name: str, pictures: Path) -> tuple[ListScores, dict[str, str]]:
    device = pick_device(config.train.device)
    assert config.segment is not None
    loaded, masking = load_network(screen, device, "screen"), open_masking(config.segment, device)
    assert isinstance(loaded.model, ScreenModel)
    frames = read_lists(config.data, [name])[name]
    models = Models(screen=loaded.model, masking=masking, guard=guard_of(loaded.card))
    found = score_list(frames, config.labels.presence, models, "gate")
    threshold = float((loaded.card.calibration or {})["threshold"])
    gate = {"gate": found}, {"gate": threshold}
    write_list_report(pictures, frames, *gate, synthetic=config.data.synthetic)
    return found, draw_examples(pictures, frames, found, masking, threshold)


def _add_row(path: Path, row: Row) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [each for each in known if not str(each["split"]).endswith(_GATE)]
    write_atomic(path, to_json([*kept, asdict(row)]))
