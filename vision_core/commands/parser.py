"""Parser of the command line: verbs, options, ``key=value`` settings. Imports no torch."""

import argparse
import difflib
import importlib
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from vision_core.config.loading import load_runs, nearest_key, of_bundle
from vision_core.config.schema import Config
from vision_core.errors import UsageError
from vision_core.runs.planned import describe_runs, show

Build = Callable[[], object]
_MOST = 10_000_000  # items of a sample, or pixels of a side
_FOLDERS = {"bundles": ("export", "import-weights", "verify"), "data": ("demo-data", "validate")}
_EXAMPLES = """\
examples:
  python -m pipelines.{task} train                                the demo: no download, ten minutes at most
  python -m pipelines.{task} train {own_data}
                                                          your own data; train --help says more
  python -m pipelines.{task} train --show-config                  every setting with its description
  python -m pipelines.{task} train --config FILE train.epochs=5   your own settings; words win over the file
  python -m pipelines.{task} train --out DIR --resume             continue a stopped run
  python -m pipelines.{task} predict --checkpoint DIR/model --input images/ --out found/

exit codes: 0 done, 2 usage or settings, 3 every input was bad, 4 some inputs failed, 5 machine, 130 stopped
"""


@dataclass(frozen=True, kw_only=True)
class OwnVerb:
    """Verb of one task beside the common ones.

    Attributes:
        name: Name on the command line.
        text: A sentence for ``--help``.
        module: Module with ``run(arguments, config_class, build) -> exit code``; imported when the verb is run.
        add: Adds its options to the parser.
        has_words: Whether it takes ``key=value`` settings.
    """

    name: str
    text: str
    module: str
    add: Callable[[argparse.ArgumentParser], None]
    has_words: bool = False


def parse(config_class: type[Config], argv: Sequence[str] | None, own: Sequence[OwnVerb] = ()) -> argparse.Namespace:
    """Parse the verb, its options and its ``key=value`` words, in any order.

    Raises:
        UsageError: An unknown verb or option, or a wrong value of an option.
    """
    arguments, rest = make_parser(config_class, own).parse_known_args(argv)
    # argparse itself takes words up to the first option only.
    late = [word for word in rest if "words" in arguments and not word.startswith("-")]
    unknown = [word for word in rest if word not in late]
    if unknown:
        remedy = _remedy(unknown[0], arguments, config_class)
        raise UsageError(f"'{arguments.verb}' does not take '{unknown[0]}'. {remedy}")
    if "words" in arguments:
        arguments.words = [*arguments.words, *late, *(getattr(arguments, "as_words", None) or ())]
    return arguments


def make_parser(config_class: type[Config], own: Sequence[OwnVerb] = ()) -> argparse.ArgumentParser:
    """Make the parser with all verbs of a task."""
    task = config_class.task
    parser = _Parser(
        prog=f"python -m pipelines.{task}",
        description=_first_lines(config_class),
        epilog=_EXAMPLES.format(task=task, own_data=config_class.own_data),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True, metavar="VERB")
    predict = partial(_predict, config_class=config_class)
    train = partial(_train, config_class=config_class)
    for add in (train, _demo_data, _validate, _evaluate, predict, _export, _report, _verify, _import_weights):
        add(verbs)
    for each in own:
        each.add(_verb(verbs, each.name, each.text, has_words=each.has_words))
        verbs.choices[each.name].set_defaults(action=_lazy(each.module))
    for verb in verbs.choices.values():
        verb.set_defaults(options=sorted(option for option in verb._option_string_actions if option.startswith("--")))
    return parser


class _Parser(argparse.ArgumentParser):
    """Parser that raises ``UsageError`` and takes no short forms: ``--over`` must not delete a run."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 (as argparse takes them)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See: {self.prog} --help")


def _train(verbs: Any, *, config_class: type[Config]) -> None:  # noqa: ANN401 (argparse keeps its type private)
    parser = _verb(verbs, "train", "Train or adapt; without arguments, the demo.", has_words=True)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _own_data(config_class)
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file; its 'runs' may describe several runs")
    parser.add_argument("--out", type=path, metavar="DIR", help="folder of the run (default: runs/<task>-<time>)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the run in --out, with the same bits")
    again.add_argument("--overwrite", action="store_true", help="delete the run in --out and train anew")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: go on with another learning rate, clipping, more epochs, or a moved data.root",
    )
    parser.add_argument("--dry-run", action="store_true", help="read the data and build the model, train nothing")
    parser.add_argument("--show-config", action="store_true", help="print all settings with descriptions, and stop")
    parser.add_argument("--seeds", type=_numbers, metavar="0,1,2", help="one run per seed, and a table with the spread")
    _device(parser)


def _demo_data(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "demo-data", "Write the demo's data set.")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="new or empty folder")


def _validate(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "validate", "Read every item once and list every fault.", has_words=True)
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file")
    parser.add_argument("--sample", type=positive, metavar="N", help="read only N evenly spaced items")
    parser.add_argument("--workers", type=positive, metavar="N", help="files read at a time (default: 4 at most)")
    parser.add_argument("--cache", type=path, metavar="FILE", help="JSON that remembers sound files for the next time")
    parser.add_argument("--out", type=path, metavar="FILE", help="write all findings there: .csv, or .json with counts")


def _evaluate(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "evaluate", "Score a bundle on a labelled list.", has_words=True)
    _checkpoint(parser)
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file (default: the bundle's own settings)")
    parser.add_argument("--beside", type=path, metavar="BUNDLE", help="score this one too, such as the source")
    parser.add_argument("--out", type=path, metavar="DIR", help="write evaluation.json and pictures there")
    parser.add_argument("--overwrite", action="store_true", help="replace the scores of an earlier evaluation in --out")


def _predict(verbs: Any, *, config_class: type[Config]) -> None:  # noqa: ANN401
    has_words = bool(config_class.at_inference)
    parser = _verb(verbs, "predict", "Run a bundle over a file or a folder.", has_words=has_words)
    _checkpoint(parser)
    takes_lists = bool(config_class.input_list)
    inputs = "a file, a folder of files, or a CSV that lists them" if takes_lists else "a file, or a folder of files"
    parser.add_argument("--input", type=path, required=True, metavar="PATH", help=inputs)
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="folder of results, ledger and summary")
    parser.add_argument(
        "--id-map",
        type=path,
        metavar="FILE",
        help="call outputs case-0001, case-0002, ... in place of the inputs' names; FILE, a CSV outside --out, keeps "
        "which is which",
    )
    parser.add_argument("--resume", action="store_true", help="the default: skip finished inputs")
    parser.add_argument("--check-outputs", action="store_true", help="read all results again and compare their hashes")
    parser.add_argument("--overwrite", action="store_true", help="replace results of other settings in --out")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad input")
    parser.add_argument(
        "--on-error", choices=("continue", "stop"), default="continue", help="after a bad input (default: continue)"
    )
    for option, (key, text) in config_class.predict_options.items():
        as_word = partial(_as_word, key)
        parser.add_argument(option, dest="as_words", action="append", type=as_word, metavar="TEXT", help=text)
    _device(parser)


def _as_word(key: str, value: str) -> str:
    """Write an option as a setting; in quotes, since YAML reads ``on`` and ``1`` as no text."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _export(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "export", "Write a bundle as one file for other programs, its answers compared.")
    _checkpoint(parser)
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="onnx, or torch.export (.pt2)")
    parser.add_argument("--out", type=path, required=True, metavar="FILE", help="the file: .onnx or .pt2")
    parser.add_argument("--size", type=positive, metavar="N", help="size fixed in the file: image side, or tiles")
    parser.add_argument("--overwrite", action="store_true", help="replace the file in --out")


def _report(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "report", "Write one offline HTML file about a run or a folder of runs.")
    parser.add_argument("--run", type=path, required=True, metavar="DIR", help="run folder, or the parent of several")


def _verify(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "verify", "Check a bundle: hashes, numbers, golden pair.")
    parser.add_argument("bundle", type=path, metavar="BUNDLE", help="folder, or its zip")
    _device(parser)


def _import_weights(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "import-weights", "Make a bundle of a foreign checkpoint.", has_words=True)
    parser.add_argument("file", type=path, metavar="FILE", help="the checkpoint: .pth or .pkl")
    parser.add_argument("--out", type=path, required=True, metavar="BUNDLE", help="folder of the new bundle")
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle in --out")
    parser.add_argument(
        "--i-trust-this-file", action="store_true", help="read a pickle, in a child process that runs no code from it"
    )


def _verb(verbs: Any, name: str, text: str, *, has_words: bool = False) -> argparse.ArgumentParser:  # noqa: ANN401
    parser = cast(argparse.ArgumentParser, verbs.add_parser(name, help=text, description=text))
    if has_words:
        parser.add_argument("words", nargs="*", metavar="key=value", help="settings, see train --show-config")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(action=_lazy(_module(name)))
    return parser


def _module(name: str) -> str:
    folder = next((f"{folder}." for folder, names in _FOLDERS.items() if name in names), "")
    return f"vision_core.commands.{folder}{name.replace('-', '_')}"


def _lazy(module: str) -> Callable[..., int]:
    def call(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
        if "words" in arguments:  # errors in settings are reported before torch is imported
            _check_settings(arguments, config_class)
        if getattr(arguments, "show_config", False):
            print(show(describe_runs(arguments, config_class)))
            return 0
        verb = importlib.import_module(module)
        return cast(int, verb.run(arguments, config_class, build))

    return call


def _check_settings(arguments: argparse.Namespace, config_class: type[Config]) -> None:
    config = getattr(arguments, "config", None)
    if config or "checkpoint" not in arguments:
        load_runs(config_class, config, arguments.words)
        return
    path = arguments.checkpoint / "card.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        task, theirs = card["task"], dict(card["config"])
    except (OSError, ValueError, KeyError, TypeError):  # a zip or a damaged bundle: the verb reports it
        return
    if arguments.words and task == config_class.task:
        of_bundle(config_class, theirs, arguments.words, str(path))


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=path, required=True, metavar="BUNDLE", help="bundle: folder or zip")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


def path(text: str) -> Path:
    """Convert a word of the command line to a path, for ``argparse``."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty (an unset variable?)")
    return Path(text)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}': expected numbers with commas, such as 0,1,2") from error
    if len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"'{text}': expected different numbers from 0 on")
    return numbers


def positive(text: str) -> int:
    """Convert a word of the command line to a number from 1 on, for ``argparse``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': expected a number from 1 on")
    if int(text) > _MOST:
        raise argparse.ArgumentTypeError(f"'{text}': expected a number up to {_MOST}")
    return int(text)


def _first_lines(config_class: type[Config]) -> str:
    module = sys.modules[config_class.__module__.rpartition(".")[0]]
    return textwrap.dedent(module.__doc__ or "").strip()


def _own_data(config_class: type[Config]) -> str:
    """Tell how to train on a person's own data, and which commands make what such a run starts from."""
    command = f"  python -m pipelines.{config_class.task} "
    told = ["your own data:", f"{command}train {config_class.own_data} --out runs/mine"]
    if config_class.own_source:
        told += ["the BUNDLE to start from is made by one of:", *(command + words for words in config_class.own_source)]
    return "\n".join(told)


def _remedy(word: str, arguments: argparse.Namespace, config_class: type[Config]) -> str:
    name = word.partition("=")[0]
    if name in arguments.options:
        return "Options stand behind the verb."
    begun = [option for option in arguments.options if name.startswith("--") and option.startswith(name)]
    if near := begun or difflib.get_close_matches(name, arguments.options, n=1, cutoff=0.75):
        return f"Did you mean '{near[0]}'?"
    if "words" in arguments and (key := nearest_key(config_class, name.lstrip("-"))):
        return f"Did you mean the setting '{key}='?"
    return f"It takes: {', '.join(arguments.options)}."
