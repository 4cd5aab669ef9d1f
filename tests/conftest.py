"""Quiet environment and one thread for every test: equality of bits needs a fixed number of threads."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of what the tests start, too; read when torch is imported

import torch

from tests.continuous_integration import is_ci
from tests.forked import share
from tests.forked_sandbox import forked_children
from tests.made_once import FOLDER
from vision_core.environment import keep_offline
from vision_core.randomness import seed_torch

keep_offline()
gc.disable()  # until all tests are found
CHROMIUM = Path("/usr/bin/chromium")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of what is made once; the processes that run the tests inherit its name."""
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="domainsight-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(FOLDER)))
        if config.getoption("numprocesses", None):
            share()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _quick_sandbox() -> Iterator[None]:
    with forked_children():
        yield


@pytest.fixture(autouse=True)
def _same_random_state() -> Iterator[None]:
    seed_torch(0)
    yield


def pytest_collection_finish() -> None:
    """Spare the garbage collector all that was imported: it would look through it again and again."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip browser tests without a browser, except in continuous integration, where its absence is a failure."""
    if CHROMIUM.exists() or is_ci():
        return
    skip = pytest.mark.skip(reason="apt-get install -y --no-install-recommends chromium fonts-dejavu-core")
    for item in items:
        if "browser" in item.keywords:
            item.add_marker(skip)
