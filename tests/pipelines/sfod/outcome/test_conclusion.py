"""The report of an adaptation without labels: it stands alone, says what changed, and its commands run."""

import html
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from pipelines.sfod.__main__ import main
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.outcome.conclusion import _next_steps
from tests.pipelines.sfod.outcome.adapted import adapted_run
from tests.pipelines.sfod.tiny import adapt
from tests.vision_core.detection.synthetic import make_voc
from vision_core.config.loading import load
from vision_core.runs.report import write_report
from vision_core.runs.summary import read_summary


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of run and images to work in, where the run was started."""
    shutil.copytree(adapted_run(), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report__of_a_run_without_labels_says_what_changed() -> None:
    run = adapted_run() / "run"
    page = (run / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)|url\(|https?:""", page)
    assert "Unclear: without labels" in page or "It did harm" in page
    assert "It helped" not in page  # no rule is fitted
    assert "there is no fitted rule" in page
    assert page.count("<img ") == 2  # all there are
    assert "On 2 images of the target, from a score of" in page
    assert re.search(r"Boxes an image: \d+\.\d before, \d+\.\d after, of a mean score of 0\.\d\d before", page)
    for words in ("found now", "no longer found", "moved", "as before"):
        assert f"</span>{words}" in page
    assert "Numbers without labels" in page and "Steady features" in page
    assert "Loss: which class" in page and "Pseudo labels an image" in page
    assert "loss_cls" not in page.partition("Settings")[0].partition("Training")[2].partition("</details>")[0]
    told = (adapted_run() / "told.txt").read_text()
    assert "there is no fitted rule" in told
    assert "images: 2 PNG, read as data.format=images." in told
    assert "Model:     run/model\n" in told
    assert "BUNDLE:    python -m pipelines.sfod import-weights" in told
    summary = read_summary(adapted_run() / "run")
    assert summary is not None
    assert "names 1 image that tells most and 1 at random, and" in told  # of two images no more can be named
    assert "--suggest 1 " in summary.next_steps[0][1] or "It did harm" in page
    assert all(f"{why}\n           {command}\n" in told for why, command in summary.next_steps)
    assert "Use it:" not in told


@pytest.mark.slow
def test_report__its_commands_run(work: Path) -> None:
    summary = read_summary(work / "run")
    assert summary is not None
    page = html.unescape((work / "run" / "report.html").read_text())
    commands = [command for _, command in summary.next_steps]
    assert len(commands) == 3
    for command in commands:
        assert command in page
        start, words = shlex.split(command)[:3], shlex.split(command)[3:]
        assert start == ["python", "-m", "pipelines.sfod"]
        if words[0] == "train":  # with a rehearsal, which reads the data and builds the model
            words = [*words, "--dry-run"]
        assert main(words) == 0, command
    assert (work / "run-to-label" / "to_label.coco.json").exists()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.png"], "names 1 image that tells most, and"),
        ([f"{number}.png" for number in range(5)], "names 3 images that tell most and 2 at random, and"),
        ([f"{number}.png" for number in range(40)], "names 10 images that tell most and 10 at random, and"),
        (["a/0.png", "b/1.png"], ""),
    ],
)
def test_next_steps__name_no_more_images_than_there_are(tmp_path: Path, names: list[str], told: str) -> None:
    paths = [tmp_path / "my images" / name for name in names]
    config = load(SfodConfig, None, ["preset=small"])
    steps = _next_steps(tmp_path / "run", tmp_path / "source", paths, config, "unclear")
    assert [told in why for why, _ in steps[:1]] == ([True] if told else [])  # one folder alone can be compared on
    assert [shlex.split(command)[3] for _, command in steps] == (["compare", "predict"] if told else [])


def test_report__damage_to_the_summary_is_told_on_the_page(work: Path) -> None:
    (work / "run" / "summary.json").write_text('{"headline": ["<script>"]}')
    page = write_report(work / "run", {}).read_text()
    assert "summary.json cannot be read" in page
    (work / "run" / "summary.json").write_text(json.dumps({"headline": "<script>", "legend": [["a", "red;b:url(x)"]]}))
    assert "<script" not in write_report(work / "run", {}).read_text()


@pytest.mark.parametrize("words", [("data.eval_split=test", "verdict.images=24"), ("verdict.images=0",)])
def test_train__labels_or_no_images_leave_the_summary_out(tmp_path: Path, words: tuple[str, ...]) -> None:
    data = make_voc(tmp_path / "data", count=1)
    assert adapt(tmp_path / "run", data, "method=bn", "train.epochs=1", *words) == 0
    assert read_summary(tmp_path / "run") is None
