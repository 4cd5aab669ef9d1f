"""Give result files the hash that their study's protocol has now, once the data is shown to be the same bytes.

``make bench-restamp ARGS='--old COMMIT'`` makes each study's data in a checkout of that commit and here, compares every
file, and only then writes the new hash; the ones before it stay beside it as ``protocols_before``. For changes that
move or rename what makes the data; a change of the data itself wants the study anew.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.studies import RESULTS, ROOT, read_results
from benchmarks.study_data import STUDIES
from vision_core.files import write_atomic


def restamp(name: str, old: Path, made: Path) -> str:
    """Compare the data of a study between two checkouts and restamp its results; returns what was done.

    Args:
        name: The study.
        old: A checkout of the commit before.
        made: Where to make the data, a folder for each checkout.

    Raises:
        RuntimeError: The data differ, or a result is of neither protocol.
    """
    before = _make(old, name, made / "old")
    after = _make(ROOT, name, made / "new")
    files = _digests(made / "old")
    if files != (others := _digests(made / "new")):
        differing = sorted(path for path in files.keys() | others.keys() if files.get(path) != others.get(path))
        raise RuntimeError(f"{name}: {len(differing)} files differ, the first is '{differing[0]}': run the study anew")
    stamped = [_stamp(path, before, after) for path in _results(name)]
    return f"{name}: {len(files)} files are the same bytes; {sum(stamped)} results from {before} to {after}"


def _make(checkout: Path, study: str, out: Path) -> str:
    """Make the data with the code of a checkout; returns the hash that the study has there."""
    command = [sys.executable, "-m", "benchmarks.study_data", study, "--out", str(out)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")
    return done.stdout.split()[-1]


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _results(study: str) -> list[Path]:
    """All result files that carry the hash of this study's protocol: its own, and those of its search."""
    folders = [RESULTS / study, RESULTS / f"{study}-schedule"]
    paths = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    return [path for path in paths if "protocol" in json.loads(path.read_text(encoding="utf-8"))]


def _stamp(path: Path, before: str, after: str) -> bool:
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["protocol"] == after:
        return False
    if content["protocol"] != before:
        raise RuntimeError(f"'{path}' is of protocol {content['protocol']}, neither {before} nor {after}")
    earlier = [*content.pop("protocols_before", []), before]
    stamped = {}
    for key, value in content.items():
        stamped[key] = after if key == "protocol" else value
        if key == "protocol":
            stamped["protocols_before"] = earlier
    write_atomic(path, json.dumps(stamped, indent=1) + "\n")
    return True


@contextmanager
def _checkout(commit: str, folder: Path) -> Iterator[Path]:
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def main() -> int:
    """Restamp the studies that have results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, metavar="COMMIT", help="a commit whose hashes the results carry")
    parser.add_argument("--studies", default=",".join(STUDIES), help="some of them, with commas")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, _checkout(arguments.old, Path(made) / "checkout") as old:
        for name in arguments.studies.split(","):
            if read_results(name):
                print(restamp(name, old, Path(made) / name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
