"""The built wheel, installed elsewhere, does what the checkout does: files that are no Python are lost there first."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features, picture, write_pyramid

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("vision_core", "pipelines", "apps", "demos", "configs", "pyproject.toml", "LICENSE", "domainsight.py")
pytestmark = pytest.mark.slow
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, as building leaves files behind
    source.mkdir()
    for path in (ROOT / name for name in BUILT_FROM):
        if path.is_dir():
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "-w", str(folder), str(source)], check=True)
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "install", *options, "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def run(installed: Path, work: Path) -> Run:
    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *words], cwd=work, env=environment, capture_output=True, text=True, check=True
        )

    return call


def test_wheel__is_what_runs(run: Run, installed: Path) -> None:
    code = (
        "import vision_core, pipelines, domainsight; print(vision_core.__file__, pipelines.__file__, domainsight.ABMIL)"
    )
    told = run("-c", code).stdout
    assert told.count(str(installed)) == 2
    assert "ABMIL" in told


def test_wheel__trains_and_reports(run: Run, work: Path) -> None:
    data = make_features(work / "data")
    words = [f"data.root={data}", f"data.features={data / 'features'}", f"data.labels={data / 'labels.csv'}"]
    run("-m", "pipelines.wsi", "train", "--out", "run", "method=plain", "data.protocol=given", *words, *FEATURE_WORDS)
    (work / "run" / "report.html").unlink()
    run("-m", "pipelines.wsi", "report", "--run", "run")
    assert "<style>" in (work / "run" / "report.html").read_text()


def test_wheel__shows_the_settings_of_every_demo(run: Run) -> None:
    for task in ("sfod", "wsi", "pretrain", "ultrasound", "ovd"):
        assert "\nmethod: " in "\n" + run("-m", f"pipelines.{task}", "train", "--show-config").stdout


def test_wheel__scores_a_slide_and_writes_all_results(run: Run, installed: Path, work: Path) -> None:
    write_pyramid(work / "slides" / "s.tif", picture(1, side_px=640))
    bundle = installed / "demos" / "checkpoints" / "wsi-demo"
    run("-m", "pipelines.wsi", "predict", f"--checkpoint={bundle}", "--input=slides", "--out=found")
    assert json.loads((work / "found" / "outputs" / "s.json").read_text())["slide"] == "s.tif"
    assert {"summary.html", "results.csv", "import_into_qupath.groovy"} <= {p.name for p in (work / "found").iterdir()}
    assert (work / "found" / "outputs" / "s.heatmap.png").stat().st_size


def test_wheel__serves_a_page(installed: Path, work: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "demos.sfod", "--port", str(port)]
    with subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as page:
        try:
            text = _answer(f"http://127.0.0.1:{port}/", page)
        finally:
            page.terminate()
    assert "Detection viewer" in text


def _answer(address: str, page: "subprocess.Popen[bytes]") -> str:
    for _ in range(240):
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            assert page.poll() is None
            time.sleep(0.5)
    pytest.fail("the page did not come up")
