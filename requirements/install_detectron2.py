"""Install the pinned detectron2 into this interpreter's environment, unless the user brought a build of their own."""

import importlib.util
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PIN = Path(__file__).with_name("detectron2.txt")
# The wheel's tag; its Python sources run on any version.
TAG = ["--only-binary=:all:", "--python-version=3.10", "--implementation=cp", "--abi=none", "--platform=any"]


def main() -> None:
    """Install, or say why not."""
    if is_users_own():
        print("detectron2: keeping the build that is here already")
    elif installed_version() != pinned_version():
        install()


def is_users_own() -> bool:
    """Whether ``import detectron2`` finds something that this script did not install."""
    return installed_version() is None and importlib.util.find_spec("detectron2") is not None


def installed_version() -> str | None:
    """Version of the redistribution in this environment."""
    try:
        return version("sal-detectron2")
    except PackageNotFoundError:
        return None


def pinned_version() -> str:
    """Version that ``detectron2.txt`` names."""
    found = re.search(r"^sal-detectron2==(\S+)", PIN.read_text(), re.MULTILINE)
    assert found, f"no pin in {PIN}"
    return found[1]


def install() -> None:
    """Run pip for the wheel's own tag; ``--target`` because pip refuses a foreign tag anywhere else."""
    target = ["--upgrade", "--target", sysconfig.get_path("purelib")]
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, *TAG, *target, "--requirement", str(PIN)], check=True)


if __name__ == "__main__":
    main()
