"""Write the lock: every package that the extras in use need, with the version pip chose and the hash of its file.

``make lock`` resolves anew; ``make lock ARGS='--constraint FILE'`` keeps versions.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
EXTRAS = "slides,medical,words,apps,export,dev"  # `cluster` joins with the first code that imports its package
HEADER = "# Python 3.11 on Linux x86-64. Written by `make lock`; installed by `make setup`.\n"


def main(pip_options: list[str]) -> None:
    """Resolve the project with ``pip_options`` and write ``lock.txt`` beside this file."""
    installed_before = set(re.findall(r"^([\w.-]+)==", (FOLDER / "build.txt").read_text(), re.MULTILINE))
    pins = sorted(pin(item) for item in resolve(pip_options) if item["metadata"]["name"] not in installed_before)
    (FOLDER / "lock.txt").write_text(HEADER + "\n".join(pins) + "\n")


def resolve(pip_options: list[str]) -> list[dict[str, Any]]:
    """What pip would install into an empty environment, the project itself left out."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-build-isolation"]
    report = subprocess.run(
        [*command, "--quiet", "--report", "-", *pip_options, f"{FOLDER.parent}[{EXTRAS}]"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    items: list[dict[str, Any]] = json.loads(report)["install"]
    return [item for item in items if "archive_info" in item["download_info"]]


def pin(item: dict[str, Any]) -> str:
    """One line of the lock: ``name==version --hash=sha256:…``."""
    name = item["metadata"]["name"].lower().replace("_", "-")
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{name}=={item['metadata']['version']} --hash=sha256:{digest}"


if __name__ == "__main__":
    main(sys.argv[1:])
