"""The verb ``evaluate``: scores of a bundle on a labelled list."""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from vision_core.bundles import bundle as bundles
from vision_core.bundles.card import Card
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.environment import datasets_root
from vision_core.errors import DataError, UsageError, one_line
from vision_core.evaluation.rows import Row, details_table, table, write_rows
from vision_core.files import write_readme, writing
from vision_core.pipeline import Build, load_proven
from vision_core.runs.folder import RunFolder
from vision_core.training.runtime import pick_device

_SCORES, _PICTURES = "evaluation.json", "pictures"
_FILES = {
    _SCORES: "All scores, as fractions, with their intervals and counts.",
    f"{_PICTURES}/": "Curves, pictures, and where the task has them the predictions of each input: 'called' in "
    "predictions.csv is the class at the threshold, which the scores compare; 'category' is what predict says.",
}


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Score a bundle and print the rows; ``--out`` writes them, with pictures."""
    if arguments.out:
        _check_out(arguments.out, overwrite=arguments.overwrite)
        with writing(arguments.out):
            arguments.out.mkdir(parents=True, exist_ok=True)
    card = bundles.read_card(arguments.checkpoint, config_class.task)
    if arguments.config:
        config = configs.load(config_class, arguments.config, arguments.words)
    else:
        origin = f"{arguments.checkpoint}/card.json"
        config = configs.of_bundle(config_class, card.config, arguments.words, origin)
        _refuse_data_of_elsewhere(config, arguments.checkpoint, arguments.words)
    pipeline = build()
    compared = {card.method: arguments.checkpoint}
    if arguments.beside:
        method = bundles.read_card(arguments.beside, config_class.task).method
        compared = {method if method != card.method else f"{method} beside": arguments.beside, **compared}
    device = pick_device(config.train.device)
    for path in compared.values():
        load_proven(partial(pipeline.predictor, path, device), bundles.load(path, config_class.task))
    rows = pipeline.evaluate(config, compared, arguments.out and arguments.out / _PICTURES)
    say(table(rows))
    if not arguments.beside and (known := _source_on_card(card, rows)):
        say(known)
    if details := details_table(rows):
        say(f"\n{details}")
    if arguments.out:
        write_rows(arguments.out / _SCORES, rows)
        write_readme(arguments.out, f"Scores of the bundle {card.identity()} on a labelled list.", _FILES)
        say(one_line(f"Written to {arguments.out}."))
    return 0


def _refuse_data_of_elsewhere(config: Config, bundle: Path, words: Sequence[str]) -> None:
    """Refuse the folder that a bundle of another place was made of, where nobody named one."""
    root = config.data.root
    is_named = any(word.startswith("data.root=") for word in words)
    if root and not is_named and not any((place / root).exists() for place in (Path(), datasets_root())):
        raise DataError(
            f"The data that '{bundle}' was made of are not here: its card names '{root}'. Give those to score on: "
            "data.root=FOLDER data.eval_split=LIST."
        )


def _source_on_card(card: Card, rows: Sequence[Row]) -> str:
    """Tell the scores of the source on the list, where the run that made the bundle scored both on it."""
    for row in rows:
        known = card.metrics.get(row.split)
        if isinstance(known, Mapping) and all(known.get(name) == number for name, number in row.counts.items()):
            source = known.get("source")
            told = [f"{name} {100 * value:.1f}" for name, value in dict(source or {}).items() if value is not None]
            if told:
                return f"The source on {row.split}, as the card tells: {', '.join(told)}"
    return ""


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder whose files would be replaced unasked, or are of no evaluation."""
    if RunFolder(out).is_used():
        raise UsageError(f"--out {out} is a run, whose own scores would be replaced. Give another folder.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out '{out}' is a file; give a folder.")
    scores, pictures = out / _SCORES, out / _PICTURES
    if scores.exists():
        if not _is_ours(scores):
            raise UsageError(f"'{scores}' is of no evaluation and is not replaced. Give another --out.")
        if not overwrite:
            raise UsageError(
                f"'{scores}' holds the scores of an earlier evaluation. Give another --out, or --overwrite."
            )
    elif pictures.exists() and not (pictures.is_dir() and not any(pictures.iterdir())):
        raise UsageError(f"'{pictures}' is of no evaluation and is not replaced. Give another --out.")


def _is_ours(path: Path) -> bool:
    """Tell whether a file holds scores as ``write_rows`` writes them."""
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError):
        return False
    return all(f'"{name}":' in text for name in ("model", "split", "metrics"))
