"""Runs of one command on several GPUs at once: a process and a GPU for each, so that the method stays as published."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from vision_core import errors
from vision_core.commands.train_one import train_one
from vision_core.config.loading import replace
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.environment import enter, launched
from vision_core.errors import EnvironmentFault, UserError
from vision_core.evaluation.rows import Row
from vision_core.pipeline import Pipeline
from vision_core.runs.folder import RunFolder
from vision_core.runs.planned import Runs
from vision_core.training.runtime import launch, pick_device

Rows = dict[str, list[Row]]


@dataclass(frozen=True, kw_only=True)
class _Share:
    """Runs of one process, in order, and its device."""

    device: str
    pipeline: type[Pipeline[Any]]
    runs: Runs
    folders: Mapping[str, RunFolder]


def free_gpus(runs: Runs) -> list[str]:
    """Name the GPUs that the runs may share out; empty where there is one, or where a run names its device."""
    if launched().world_size > 1 or any(config.train.device not in {"auto", "cuda"} for config in runs.values()):
        return []
    is_gpu = pick_device(next(iter(runs.values())).train.device).type == "cuda"
    count = torch.cuda.device_count() if is_gpu else 0
    return [f"cuda:{index}" for index in range(count)] if count > 1 else []


def share_out(runs: Runs, devices: Sequence[str]) -> list[tuple[str, Runs]]:
    """Divide runs among devices; a run is done where the one is that it starts from."""
    chains: list[Runs] = []
    for name, config in runs.items():
        chain = next((chain for chain in chains if config.source.run in chain), None)
        if chain is None:
            chains.append({name: config})
        else:
            chain[name] = config
    shares = [(device, chains[place :: len(devices)]) for place, device in enumerate(devices)]
    return [
        (device, {name: run for chain in own for name, run in chain.items()}) for device, own in shares if own
    ]  # fmt: skip


def train_at_once(
    pipeline: Pipeline[Any], shares: Sequence[tuple[str, Runs]], folders: Mapping[str, RunFolder]
) -> Rows:
    """Train the runs of all devices at once; each writes its log into its own folder.

    Raises:
        UserError: The first error of a process; the others are stopped, and can be resumed.
    """
    context, processes = multiprocessing.get_context("spawn"), []
    try:
        for device, runs in shares:
            say(f"{device}: {', '.join(runs)}; the log of each is in its folder.")
            share = _Share(device=device, pipeline=type(pipeline), runs=runs, folders=folders)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(share, theirs))
            process.start()
            theirs.close()
            processes.append((device, process, ours))
        return _gathered(processes)
    finally:
        for _, process, _ in processes:
            process.terminate()  # as a request: a training writes its checkpoint before it ends
        for _, process, _ in processes:
            process.join()


def _gathered(processes: Sequence[tuple[str, BaseProcess, Connection]]) -> Rows:
    rows: Rows = {}
    waiting: dict[Any, str] = {connection: device for device, _, connection in processes}
    while waiting:
        for each in multiprocessing.connection.wait(list(waiting)):
            connection: Any = each
            device = waiting.pop(connection)
            try:
                answer = connection.recv()
            except EOFError as error:
                raise EnvironmentFault(
                    f"The process on {device} has ended without a word: killed, or out of memory. "
                    "Continue with --resume."
                ) from error
            if isinstance(answer, dict):
                rows |= answer
                say(f"{device}: done.")
            else:
                kind, problems = answer
                raise getattr(errors, kind, UserError)(problems)
    return rows


def _work(share: _Share, answer: Connection) -> None:
    """Train the runs of one device, in a process of their own."""
    enter()
    os.setpgrp()  # Ctrl-C reaches the first process alone, which stops the others once: a second signal would cut short
    silence = os.open(os.devnull, os.O_WRONLY)  # the log in the run's folder has it all
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(silence, stream.fileno())
    try:
        answer.send(_train(share))
    except UserError as fault:
        known = next(kind.__name__ for kind in type(fault).__mro__ if kind.__module__ == errors.__name__)
        answer.send((known, fault.problems))


def _train(share: _Share) -> Rows:
    pipeline, rows = share.pipeline(), {}
    for name, config in share.runs.items():
        runtime = launch(share.device, config.train.precision, deterministic=config.train.deterministic)
        rows[name] = train_one(pipeline, started_from(config, share.folders), share.folders[name], runtime)
    return rows


def started_from(config: Config, folders: Mapping[str, RunFolder]) -> Config:
    """Set ``source.weights`` of a run that starts from another run."""
    if not config.source.run:
        return config
    model: Path = folders[config.source.run].model
    return replace(config, {"source.weights": model})
