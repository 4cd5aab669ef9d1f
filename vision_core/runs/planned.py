"""Runs that a ``train`` command describes: a file, the demo, a folder to resume, several seeds. Imports no torch."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.errors import EnvironmentFault, UsageError

Runs = dict[str, Config]
_OWN_DATA = {"format", "labels", "features", "class_list", "leave_out"}  # the demo has none of these
_NOTHING = {"null", "~", ""}
_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def output_folder(arguments: argparse.Namespace, task: str) -> Path:
    """Return ``--out``, or a new name below ``runs/`` from task and time."""
    return arguments.out or Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"


def describe_runs(arguments: argparse.Namespace, config_class: type[Config]) -> Runs:
    """Build the configurations by folder name; a single run is named ``""``.

    ``--device`` is short for the key ``train.device``.

    Raises:
        ConfigError: Every problem of every run.
        UsageError: There is no run to resume.
    """
    if arguments.device:
        arguments.words = [*arguments.words, f"train.device={arguments.device}"]
        arguments.device = None
    if arguments.resume and not arguments.config:
        return _found_runs(arguments, config_class)
    pairs = (word.partition("=") for word in arguments.words)
    given = {name for name, _, value in pairs if value not in _NOTHING}
    has_data = any(keys <= given for keys in config_class.data_keys) or "data.root=" in arguments.words
    path = arguments.config or (None if has_data else _demo_config(config_class.task))
    runs = configs.load_runs(config_class, path, arguments.words)
    if arguments.seeds:
        runs = {
            _joined(name, f"seed-{seed}"): configs.replace(config, {"train.seed": seed})
            for name, config in runs.items()
            for seed in arguments.seeds
        }
    return {
        _joined(name, part): _started_from(name, config)
        for name, whole in runs.items()
        for part, config in whole.expand().items()
    }


def refuse_data_without_root(runs: Runs, words: Sequence[str]) -> None:
    """Refuse settings that name a person's data without ``data.root``: the demo's would be taken for them.

    Raises:
        UsageError: It names the setting that was given, and what is missing.
    """
    for config in runs.values():
        said = [word.partition("=")[0] for word in words]
        named = [f"data.{name}" for name, value in config.data if name in _OWN_DATA and _is_given(config, name, value)]
        named += [key for key in said if key.removeprefix("data.") in _OWN_DATA and key.startswith("data.")]
        if named and not config.has_data():
            raise UsageError(
                f"data.root is missing: '{named[0]}' is given, and without data.root the demo's own data would be made "
                f"and trained on. Give data.root=FOLDER (data.root=. for this folder), or leave '{named[0]}' out."
            )


def _is_given(config: Config, name: str, value: object) -> bool:
    ours = config.demo_format if name == "format" else None
    return bool(value not in (type(config.data).model_fields[name].default, ours))


def show(runs: Runs) -> str:
    """Print all settings of all runs with their descriptions, as text."""
    return "\n\n".join((f"# run: {name}\n" if name else "") + configs.describe(config) for name, config in runs.items())


def _found_runs(arguments: argparse.Namespace, config_class: type[Config]) -> Runs:
    if not arguments.out:
        raise UsageError("--resume needs --out: the folder of the run to continue.")
    if arguments.seeds:
        raise UsageError("--resume continues the runs in --out. Leave --seeds out; train new ones elsewhere.")
    out: Path = arguments.out
    found = [out / "config.yaml"] if (out / "config.yaml").exists() else sorted(out.glob("*/config.yaml"))
    if not found:
        raise UsageError(f"There is no run in '{out}' to resume (no config.yaml). Start it without --resume.")
    runs = {
        "" if path.parent == out else path.parent.name: configs.load(config_class, path, arguments.words)
        for path in found
    }
    return _in_order(runs)


def _in_order(runs: Runs) -> Runs:
    """Order the runs so that each follows the one it starts from."""
    ordered: Runs = {}
    while len(ordered) < len(runs):
        ready = {
            name: config
            for name, config in runs.items()
            if name not in ordered and (config.source.run is None or config.source.run in ordered)
        }
        if not ready:
            name, config = next((name, config) for name, config in runs.items() if name not in ordered)
            raise UsageError(f"Run '{name}' starts from the run '{config.source.run}', which is not here.")
        ordered |= ready
    return ordered


def _started_from(prefix: str, config: Config) -> Config:
    """Complete the name of the run that a part starts from."""
    if not (prefix and config.source.run):
        return config
    return configs.replace(config, {"source.run": _joined(prefix, config.source.run)})


def _joined(*parts: str) -> str:
    return "-".join(part for part in parts if part)


def _demo_config(task: str) -> Path:
    path = _CONFIGS / task / "demo.yaml"
    if not path.exists():
        raise EnvironmentFault(f"The demo's settings are missing ({path}). Install domainsight from its repository.")
    return path
