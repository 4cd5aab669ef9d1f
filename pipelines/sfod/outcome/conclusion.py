"""The end of an adaptation: a teacher is selected, and without a labelled list the report says what changed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.sfod.config import SUPERVISED, SfodConfig
from pipelines.sfod.outcome.held_out import Split
from pipelines.sfod.outcome.labelling import common_folder
from pipelines.sfod.outcome.selection import select
from pipelines.sfod.verdict.comparing import Compared, Comparison, compare, load_model
from pipelines.sfod.verdict.page import HEADLINES, changed_words, draw_most_different, legend, number_rows
from pipelines.sfod.verdict.source import read_rule
from vision_core.bundles.bundle import read_card
from vision_core.console import command_line, track
from vision_core.files import to_json, write_atomic
from vision_core.images.reading import read_noted_image
from vision_core.runs.report import count
from vision_core.runs.summary import Summary, Table, write_summary
from vision_core.training.runtime import pick_device

_FLATTERED = "These images were adapted to, which flatters the second detector."
_KEPT_OUT = "These images were kept out of adaptation."
_TO_LABEL = 10


def conclude_run(config: SfodConfig, run: Path, start: Path, split: Split) -> tuple[str, ...]:
    """Select a teacher where that is asked for, and compare before and after where no labelled list does.

    Args:
        config: Settings of the run.
        run: Its folder, with its bundle.
        start: Bundle that it started from.
        split: Its images.

    Returns:
        What is to be said at the end of the run, a sentence each.
    """
    if config.method in SUPERVISED:
        return ()
    told: tuple[str, ...] = ()
    if config.verdict.select:
        told = select(run, start, split.compared, pick_device(config.train.device), read_rule(read_card(start)))
    images = _evenly(split.compared, config.verdict.images)
    if config.data.eval_split or not images:
        return told
    return *told, *_summarise(run, start, images, config, split)


def _summarise(run: Path, start: Path, images: Sequence[Path], config: SfodConfig, split: Split) -> tuple[str, ...]:
    """Write pictures and summary into the folder of a run; returns the verdict and what changed, in words."""
    device = pick_device(config.train.device)
    before, after = (load_model(path, device) for path in (start, run / "model"))
    shown = track(images, len(images), "before and after", "image")
    comparison = compare(before, after, shown, read_noted_image, read_rule(before.card))
    captions = draw_most_different(run / "pictures", comparison.images, read_noted_image)
    write_atomic(run / "pictures" / "captions.json", to_json(captions))
    kind = comparison.verdict.kind
    headline, lines = HEADLINES[kind], _lines(comparison, _KEPT_OUT if split.is_kept_out else _FLATTERED)
    paths = sorted({*split.compared, *(record.path for record in split.adapted.records)})
    write_summary(
        run,
        Summary(
            headline=headline,
            lines=(*lines, *comparison.notes),
            legend=tuple(legend()),
            tables=tuple(_tables(comparison)),
            next_steps=tuple(_next_steps(run, start, paths, config, kind)),
        ),
    )
    return f"{headline} {' '.join(comparison.verdict.reasons)}", f"{lines[0]} {lines[1]}"


def _evenly(images: Sequence[Path], most: int) -> list[Path]:
    shown = min(most, len(images))
    return [images[int(at)] for at in np.linspace(0, len(images) - 1, shown).round()] if shown else []


def _lines(comparison: Comparison, about: str) -> list[str]:
    boxes = comparison.verdict.boxes
    scores = [_mean_score(comparison.images, name) for name in ("before", "after")]
    told = "" if None in scores else f", of a mean score of {scores[0]:.2f} before and {scores[1]:.2f} after"
    return [
        f"On {len(comparison.images)} images of the target, from a score of {comparison.operating_score:.2f} on: "
        f"{changed_words(comparison.images)}.",
        f"Boxes an image: {boxes[0]:.1f} before, {boxes[1]:.1f} after{told}.",
        *comparison.verdict.reasons,
        about,
        *(f"Not read: '{path.name}': {reason}" for path, reason in comparison.failed.items()),
    ]


def _mean_score(images: Sequence[Compared], name: str) -> float | None:
    scores = np.concatenate([getattr(each, name).scores for each in images])
    return float(scores.mean()) if len(scores) else None


def _tables(comparison: Comparison) -> list[Table]:
    columns = ("Number", "What it asks", "Before", "After", "Change")
    numbers = [
        (row["title"], row["meaning"], row["before"], row["after"], row["change"])
        for row in number_rows(comparison.verdict)
    ]
    by_image = [
        (each.path.name, str(len(each.before.scores)), str(len(each.after.scores)), changed_words([each]))
        for each in comparison.images
    ]
    return [
        Table(
            title="Numbers without labels",
            about="Higher is better but in the last two rows, which are no evidence. A steady detector can be wrong.",
            columns=columns,
            rows=tuple(numbers),
        ),
        Table(
            title="Image by image", columns=("Image", "Boxes before", "Boxes after", "Changes"), rows=tuple(by_image)
        ),
    ]


def _next_steps(run: Path, start: Path, paths: Sequence[Path], config: SfodConfig, kind: str) -> list[tuple[str, str]]:
    """List what can be done now with these images: why, and a command that runs where the run was started."""
    folder, beside, is_harmful = common_folder(paths), f"{run.parent / run.name}", kind == "harmful"
    model, used = run / "model", start if is_harmful else run / "model"
    most = min(_TO_LABEL, (len(paths) + 1) // 2)
    rest = min(most, len(paths) - most)
    find_out = (
        f"Find out: this names {count(most, 'image')} that tell{'s' if most == 1 else ''} most"
        f"{f' and {rest} at random' if rest else ''}, and prints the command that takes them back with boxes.",
        ["compare", start, model, "--input", folder, "--suggest", most, "--out", f"{beside}-to-label"],
    )
    use = (
        "Keep the detector you had, on other images too:" if is_harmful else "Use the adapted detector:",
        ["predict", "--checkpoint", used, "--input", folder, "--out", f"{beside}-found"],
    )
    steps: list[tuple[str, Sequence[object]]] = [use, find_out] if is_harmful else [find_out, use]
    if any(path.parent != folder for path in paths):
        steps = []  # both take the images of one folder alone
    if config.preset != "small":
        data = [f"data.root={config.data.root}", f"data.format={config.data.format}", f"data.split={config.data.split}"]
        again = ["train", *data, f"source.weights={start}", "preset=small", "--out", f"{beside}-small"]
        steps.append(("Adapt again with the short settings for a few dozen images:", again))
    return [(why, command_line(["python", "-m", "pipelines.sfod", *map(str, words)])) for why, words in steps]
