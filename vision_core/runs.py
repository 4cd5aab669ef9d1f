"""Which runs a ``train`` command describes: a file, the demo, a folder to resume, several seeds. Imports no torch."""

import argparse
import time
from pathlib import Path

from vision_core import config as configs
from vision_core.config import Config
from vision_core.errors import EnvironmentFault, UsageError

Runs = dict[str, Config]
_CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def output_folder(arguments: argparse.Namespace, task: str) -> Path:
    """``--out``, or a new folder below ``runs/`` named after task and time."""
    return arguments.out or Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"


def describe_runs(arguments: argparse.Namespace, config_class: type[Config]) -> Runs:
    """The configurations by the name of their folder; a single run is named ``""``.

    ``--device`` is the key ``train.device`` in short.

    Raises:
        ConfigError: Every problem of every run.
        UsageError: There is nothing to resume.
    """
    if arguments.device:
        arguments.words = [*arguments.words, f"train.device={arguments.device}"]
        arguments.device = None
    if arguments.resume and not arguments.config:
        return _found_runs(arguments, config_class)
    has_data = any(word.startswith("data.root=") for word in arguments.words)
    path = arguments.config or (None if has_data else _demo_config(config_class.task))
    runs = configs.load_runs(config_class, path, arguments.words)
    if not arguments.seeds:
        return runs
    return {
        f"{name}-seed-{seed}".lstrip("-"): configs.replace(config, {"train.seed": seed})
        for name, config in runs.items()
        for seed in arguments.seeds
    }


def show(runs: Runs) -> str:
    """All settings of all runs, described."""
    return "\n\n".join((f"# run: {name}\n" if name else "") + configs.describe(config) for name, config in runs.items())


def _found_runs(arguments: argparse.Namespace, config_class: type[Config]) -> Runs:
    if not arguments.out:
        raise UsageError("--resume needs --out: the folder of the run to go on with.")
    out: Path = arguments.out
    found = [out / "config.yaml"] if (out / "config.yaml").exists() else sorted(out.glob("*/config.yaml"))
    if not found:
        raise UsageError(f"There is no run in '{out}' to resume (no config.yaml). Start it without --resume.")
    return {
        "" if path.parent == out else path.parent.name: configs.load(config_class, path, arguments.words)
        for path in found
    }


def _demo_config(task: str) -> Path:
    path = _CONFIGS / task / "demo.yaml"
    if not path.exists():
        raise EnvironmentFault(f"The demo's settings are missing ({path}). Install domainsight from its repository.")
    return path
