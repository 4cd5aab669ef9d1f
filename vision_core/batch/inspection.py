"""Inspection of inputs before a batch: every input is opened first, so that failures are known before a long run.

``plan.json`` keeps the results; a later run reads them for inputs that have not changed.
"""

import errno
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vision_core.csv_tables import Cell
from vision_core.errors import DataError, EnvironmentFault
from vision_core.files import Stamp, stamp, text_of, write_atomic

PLAN = "plan.json"
_THREADS = 4
_LOG = logging.getLogger("domainsight")


class Inspected(BaseModel):
    """Result of opening an input.

    Attributes:
        facts: Numbers and words about the input.
        work: Amount of work by unit, such as ``{"tiles": 900}``.
        output_bytes: Estimated size of its outputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    facts: Mapping[str, Cell] = {}
    work: Mapping[str, float] = {}
    output_bytes: int = 0


class Planned(BaseModel):
    """Entry of the plan: an input that can be read, or the reason why not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: Stamp | None = None
    reason: str = ""
    inspected: Inspected | None = None


Plan = dict[str, Planned]
Inspect = Callable[[Path], Inspected]


def inspect_inputs(
    inputs: Sequence[Path], inspect: Inspect, out: Path, on_input: Callable[[], None] = lambda: None
) -> Plan:
    """Open every input that is new or changed, and write the plan.

    Args:
        inputs: Inputs to be processed.
        inspect: Opens one input; called from several threads.
        out: Folder of the batch.
        on_input: Called after each input.

    Raises:
        EnvironmentFault: The disk cannot hold the outputs or the plan.
    """
    known = read_plan(out)
    plan: Plan = {}
    with ThreadPoolExecutor(_THREADS) as threads:
        for path, planned in zip(inputs, threads.map(lambda path: _plan(path, inspect, known), inputs), strict=True):
            plan[text_of(path)] = planned
            on_input()
    _check_disk(plan, out)
    entries = {
        name: each.model_dump(mode="json", exclude_defaults=True) for name, each in sorted((known | plan).items())
    }
    write_atomic(out / PLAN, json.dumps({"format": 1, "inputs": entries}, indent=1, ensure_ascii=False))
    return plan


def read_plan(out: Path) -> Plan:
    """Read the plan of a folder; empty without a readable one."""
    try:
        content = json.loads((out / PLAN).read_text(encoding="utf-8"))
        return {name: Planned.model_validate(each) for name, each in content["inputs"].items()}
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError, ValidationError):
        return {}


def in_words(plan: Mapping[str, Planned]) -> Iterator[str]:
    """Describe the plan in sentences."""
    sound = [each.inspected for each in plan.values() if each.inspected]
    size = sum(each.output_bytes for each in sound) / 2**20
    yield (
        f"Plan: {len(sound)} of {len(plan)} inputs can be read; about {size:,.0f} MiB will be written"
        + "".join(f", {amount:,.0f} {unit}" for unit, amount in _work(sound).items())
        + "."
    )
    for each in plan.values():
        if each.reason:
            yield f"  will fail: {each.reason}"


def _work(sound: Sequence[Inspected]) -> dict[str, float]:
    amounts: dict[str, float] = {}
    for unit, amount in (pair for each in sound for pair in each.work.items()):
        amounts[unit] = amounts.get(unit, 0.0) + amount
    return amounts


def _plan(path: Path, inspect: Inspect, known: Plan) -> Planned:
    found: Stamp | None = None
    try:
        found = stamp(path)
        before = known.get(text_of(path))
        if before and before.inspected and before.stamp == found:
            return before
        return Planned(stamp=found, inspected=inspect(path))
    except DataError as error:
        return Planned(stamp=found, reason=" ".join(error.problems))
    except OSError as error:
        # An error that may pass: the input is processed all the same, with retries.
        _LOG.debug("'%s' could not be inspected", path, exc_info=True)
        if error.errno == errno.ENOSPC:
            raise
        return Planned(stamp=found, inspected=Inspected())


def _check_disk(plan: Plan, out: Path) -> None:
    needed = sum(each.inspected.output_bytes for each in plan.values() if each.inspected)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise EnvironmentFault(
            f"'{out}': the results need about {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free. "
            "Free some space, or choose another --out."
        )
