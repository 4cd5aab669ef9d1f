"""The command line that every task shares: its verbs, its messages, its exit codes. Imports no torch."""

import argparse
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from vision_core.config import Config
from vision_core.environment import quiet_libraries
from vision_core.errors import EnvironmentFault, Interrupted, UserError

Build = Callable[[], object]


def run(config_class: type[Config], build: Build, argv: Sequence[str] | None = None) -> int:
    """Parse, run one verb, and return the exit code.

    Args:
        config_class: The task's configuration.
        build: Makes the task's pipeline; its imports happen here and not before.
        argv: Words of the command line; those of this process if None.
    """
    arguments = make_parser(config_class).parse_args(argv)
    quiet_libraries()
    before = signal.getsignal(signal.SIGTERM)
    _on_terminate(signal.default_int_handler)
    try:
        return int(arguments.action(arguments, config_class, build))
    except KeyboardInterrupt:
        return _stopped(Interrupted("Stopped."), arguments)
    except UserError as error:
        return _stopped(error, arguments)
    except MemoryError:
        return _stopped(EnvironmentFault("Memory is used up. Use a smaller batch, or fewer workers."), arguments)
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 (the last resort: one line instead of a traceback)
        return _our_bug(error, arguments)
    finally:
        _on_terminate(before)


def make_parser(config_class: type[Config]) -> argparse.ArgumentParser:
    """The parser with all verbs of a task."""
    task = config_class.task
    parser = argparse.ArgumentParser(
        prog=f"python -m pipelines.{task}",
        description=_first_lines(config_class),
        epilog=_EXAMPLES.format(task=task),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True, metavar="VERB")
    for add in (_train, _demo_data, _validate, _evaluate, _predict, _report, _verify, _import_weights):
        add(verbs)
    return parser


_EXAMPLES = """\
examples:
  python -m pipelines.{task} train                                the demo: real data, no download, about ten minutes
  python -m pipelines.{task} train --show-config                  every setting with its description
  python -m pipelines.{task} train --config FILE train.epochs=5   your own settings; words win over the file
  python -m pipelines.{task} train --out DIR --resume             go on where a run was stopped
  python -m pipelines.{task} predict --checkpoint DIR/model --input images/ --out found/

exit codes: 0 done, 2 usage or settings, 3 every input was bad, 4 some inputs failed, 5 machine, 130 stopped
"""


def _train(verbs: Any) -> None:  # noqa: ANN401 (argparse keeps its type private)
    parser = _verb(verbs, "train", "Train or adapt; without arguments, the demo.", "trainer", has_words=True)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file; its 'runs' may describe several runs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/<task>-<time>)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, bit for bit")
    parser.add_argument("--overwrite", action="store_true", help="throw away the run in --out")
    parser.add_argument("--dry-run", action="store_true", help="read, build and count everything; train nothing")
    parser.add_argument("--show-config", action="store_true", help="print all settings, described, and stop")
    parser.add_argument("--seeds", type=_numbers, metavar="0,1,2", help="one run per seed, and a table with the spread")
    _device(parser)


def _demo_data(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "demo-data", "Write the demo's data set.", "demo_data")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")


def _validate(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "validate", "Read every item once and list every fault.", "validate", has_words=True)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file")
    parser.add_argument("--sample", type=_positive, metavar="N", help="look at N evenly spaced items only")


def _evaluate(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "evaluate", "Score a bundle on a labelled list.", "evaluate", has_words=True)
    _checkpoint(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file (default: the bundle's own settings)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write evaluation.json and pictures there")


def _predict(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "predict", "Run a bundle over a file or a folder.", "predict")
    _checkpoint(parser)
    parser.add_argument("--input", type=Path, required=True, metavar="PATH", help="a file, or a folder of files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results, ledger and summary go there")
    parser.add_argument("--resume", action="store_true", help="the default: finished inputs are left alone")
    parser.add_argument("--overwrite", action="store_true", help="accept results of other settings in --out: redo them")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad input")
    parser.add_argument(
        "--on-error", choices=("continue", "stop"), default="continue", help="what a bad input does (default: continue)"
    )
    _device(parser)


def _report(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "report", "Write one offline HTML file about a run or a folder of runs.", "report")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run folder, or the parent of several")


def _verify(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "verify", "Check a bundle: hashes, numbers, golden pair.", "verify")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder, or its zip")
    _device(parser)


def _import_weights(verbs: Any) -> None:  # noqa: ANN401
    parser = _verb(verbs, "import-weights", "Make a bundle of a foreign checkpoint.", "import_weights", has_words=True)
    parser.add_argument("file", type=Path, metavar="FILE", help="the checkpoint: .pth or .pkl")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder of the new bundle")
    parser.add_argument("--overwrite", action="store_true", help="replace the bundle in --out")
    parser.add_argument(
        "--i-trust-this-file", action="store_true", help="read a pickle, in a child process that runs no code from it"
    )


def _verb(verbs: Any, name: str, text: str, function: str, *, has_words: bool = False) -> argparse.ArgumentParser:  # noqa: ANN401
    parser = cast(argparse.ArgumentParser, verbs.add_parser(name, help=text, description=text))
    if has_words:
        parser.add_argument("words", nargs="*", metavar="key=value", help="settings, see train --show-config")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(action=_lazy(function))
    return parser


def _lazy(function: str) -> Callable[..., int]:
    def call(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
        from vision_core import verbs

        return cast(int, getattr(verbs, function)(arguments, config_class, build))

    return call


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="BUNDLE", help="bundle: folder or zip")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}': expected numbers with commas, such as 0,1,2") from error
    if len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"'{text}': expected different numbers from 0 on")
    return numbers


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': expected a number from 1 on")
    return int(text)


def _first_lines(config_class: type[Config]) -> str:
    module = sys.modules[config_class.__module__.rpartition(".")[0]]
    return textwrap.dedent(module.__doc__ or "").strip()


def _on_terminate(handler: Any) -> None:  # noqa: ANN401 (as signal.signal takes it)
    try:
        signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not in the main thread: whoever started us handles signals
        return


def _stopped(error: UserError, arguments: argparse.Namespace) -> int:
    sys.stderr.write(error.lines() + "\n")
    if isinstance(error, Interrupted) and getattr(arguments, "resume_command", ""):
        sys.stderr.write(f"Resume with: {arguments.resume_command}\n")
    if arguments.debug:
        traceback.print_exc()
    return error.exit_code


def _our_bug(error: Exception, arguments: argparse.Namespace) -> int:
    if arguments.debug:
        traceback.print_exc()
    sys.stderr.write(
        f"error[INTERNAL] {type(error).__name__}: {error}. This is a fault of domainsight, not yours: run the same "
        "command with --debug and report what it prints.\n"
    )
    return 1


