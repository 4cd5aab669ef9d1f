"""What is optional is imported where it is needed, and then says what to install."""

import subprocess
import sys

import pytest

_IMPORT_ALL = """
import importlib, pkgutil, sys

sys.modules.update(dict.fromkeys({absent}))  # an import of these fails
sys.modules["sklearn"] = None  # it is there, but takes so long to import that only those wait who need it
import pipelines, vision_core
for package in (vision_core, pipelines):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from pathlib import Path
from vision_core.errors import MissingDependencyError
from vision_core.slides.features.hdf5 import open_h5
try:
    open_h5(Path(sys.argv[1]))
except MissingDependencyError as error:
    print(error)
"""


@pytest.mark.slow
def test_packages__import_without_the_extras_and_name_the_one_that_is_needed() -> None:
    from vision_core.optional import _PACKAGES_OF

    absent = {name for names in _PACKAGES_OF.values() for name in names}
    command = [sys.executable, "-c", _IMPORT_ALL.format(absent=sorted(absent)), __file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "Package 'h5py' is not installed; it reads and writes feature files in HDF5 (.h5). "
        "Install it: pip install 'domainsight[slides]'."
    )
