"""Every `make bench-…` that a result file or a page names is there, and what is not there says so."""

import re
import subprocess

from benchmarks.studies import RESULTS, ROOT


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)


def test_bench__lists_what_results_and_pages_name() -> None:
    there = set(re.findall(r"make (bench-\S+)", make("bench").stdout))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    pages += [path for folder in ("docs", "pipelines") for path in (ROOT / folder).rglob("*.md")]
    named = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*pages, *RESULTS.rglob("*.json"), *(ROOT / "benchmarks").rglob("*.py")]
        for name in re.findall(r"make (bench-[a-z-]*[a-z])", path.read_text(encoding="utf-8"))
    }
    assert len(named) > len(there) > 30
    assert [each for each in named if each.split()[1] not in there] == []


def test_bench__runs_the_module_of_the_name() -> None:
    told = make("-n", "bench-sfod-trees-more", "bench-ovd-scenes", "bench-gpu-smoke", "ARGS=--check").stdout
    for module in ("sfod.trees_more", "ovd.scenes.study", "gpu_smoke"):
        assert f" -m benchmarks.{module} --check\n" in told


def test_bench__a_name_that_is_not_there() -> None:
    done = make("-n", "bench-sfod-tress")
    assert done.returncode == 2
    assert "There is no 'bench-sfod-tress'" in done.stderr
