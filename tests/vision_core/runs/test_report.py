import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from vision_core.errors import DataError
from vision_core.evaluation.rows import Row
from vision_core.images.drawing import write_png
from vision_core.results import RESEARCH_NOTICE
from vision_core.runs.record import RunRecord
from vision_core.runs.report import compare, embed, in_points, write_report
from vision_core.runs.summary import Summary, write_summary


def _run(name: str = "night", seed: int = 0, boxes: int = 141, **scores: float | None) -> RunRecord:
    rows = [
        Row(model=model, split="night_b", counts={"images": 20, "boxes": boxes}, metrics={"voc07_ap50": value})
        for model, value in scores.items()
    ]
    return RunRecord(
        name=name,
        facts={},
        settings={"train.seed": seed, "method": "lpld"},
        curves={},
        evaluations=tuple(rows),
        pictures=(),
        gaps=(),
    )


def _write_run(folder: Path, facts: Mapping[str, object] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("method: lpld\ntrain: {seed: 0}\n")
    (folder / "run.json").write_text(json.dumps({"status": "done", "command": "train", **(facts or {})}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 3, "loss": 1}\n')
    rows = [
        {"model": model, "split": "night_b", "counts": {"images": 20, "boxes": 141}, "metrics": {"voc07_ap50": value}}
        for model, value in (("source", 0.32), ("adapted", 0.43))
    ]
    (folder / "evaluation.json").write_text(json.dumps(rows))
    return folder


def test_compare__sentence_gives_both_scores_images_and_boxes() -> None:
    (comparison,) = compare([_run(source=0.321, adapted=0.431)])
    assert comparison.sentence() == "On night_b (20 images, 141 boxes) AP50 (VOC 2007) rose from 32.1 to 43.1."
    assert in_points(comparison.changes, sign=True) == "+11.0"


def test_compare__a_model_without_predecessor_is_told_alone() -> None:
    (comparison,) = compare([_run(trained=0.431)])
    assert comparison.sentence() == "On night_b (20 images, 141 boxes) AP50 (VOC 2007) is 43.1."


@pytest.mark.parametrize(("adapted", "verb"), [(0.2, "fell"), (0.3, "stayed")])
def test_compare__fall_and_standstill_are_told_as_such(adapted: float, verb: str) -> None:
    assert f" {verb} from 30.0" in compare([_run(source=0.3, adapted=adapted)])[0].sentence()


@pytest.mark.parametrize(("boxes", "is_illustration"), [(99, True), (100, False)])
def test_compare__few_boxes_are_an_illustration(boxes: int, is_illustration: bool) -> None:
    (comparison,) = compare([_run(boxes=boxes, source=0.1, adapted=0.2)])
    assert comparison.is_illustration is is_illustration
    assert ("illustration" in comparison.sentence()) is is_illustration


def test_compare__undefined_score_is_not_a_zero() -> None:
    (comparison,) = compare([_run(source=0.3, adapted=None)])
    assert comparison.changes == ()
    assert in_points(comparison.adapted) == "n/a"
    assert "cannot be compared" in comparison.sentence()


def test_compare__seeds_are_one_experiment_with_mean_and_spread() -> None:
    runs = [_run("seed-0", 0, source=0.3, adapted=0.4), _run("seed-1", 1, source=0.32, adapted=0.44)]
    (comparison,) = compare(runs)
    assert comparison.target == "seed-0 to seed-1 (2 seeds)"
    assert in_points(comparison.source) == "31.0 ± 1.4"
    assert in_points(comparison.changes, sign=True) == "+11.0 ± 1.4"


def test_compare__seed_with_one_score_does_not_shift_the_pairs() -> None:
    runs = [_run("a", 0, source=0.9), _run("b", 1, source=0.3, adapted=0.4), _run("c", 2, adapted=0.9)]
    (comparison,) = compare(runs)
    assert (comparison.source, comparison.adapted) == ((0.3,), (0.4,))


def test_embed__small_picture_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.zeros((4, 4, 3), np.uint8))
    picture = embed(path, "tile")
    assert picture is not None
    assert base64.b64decode(picture.uri.removeprefix("data:image/png;base64,")) == path.read_bytes()


def test_embed__large_picture_becomes_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.random.default_rng(0).integers(0, 255, (500, 500, 3)).astype(np.uint8))
    picture = embed(path, "tile")
    assert picture is not None and picture.uri.startswith("data:image/jpeg;base64,")
    assert len(picture.uri) < path.stat().st_size


def test_embed__what_only_claims_to_be_png_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("<svg onload='alert(1)'/>")
    assert embed(path, "tile") is None


def test_write_report__stands_alone_and_escapes_text(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", {"notes": ["<script>alert(1)</script>"]})
    text = write_report(run, {}).read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)|url\(|https?:""", text)
    assert RESEARCH_NOTICE in text and "rose from 32.0 to 43.0" in text


def test_write_report__what_its_task_says_stands_once_and_whole_commands_are_shown(tmp_path: Path) -> None:
    run = _write_run(
        tmp_path / "run", {"notes": ["Unclear. No rule.", "3 found now. One moved.", "The teacher moved."]}
    )
    steps = (("Find out:", "python -m task compare 'my run/model' --out a-long-name"),)
    (run / "evaluation.json").unlink()  # of a list without labels there is none
    write_summary(run, Summary(headline="Unclear.", lines=("3 found now.", ""), next_steps=steps))
    page = write_report(run, {}).read_text(encoding="utf-8")
    assert page.count("Unclear.") == page.count("3 found now.") == 1
    assert "<li>The teacher moved.</li>" in page
    assert "Scores</h2>" not in page and "No scores: nothing was evaluated" in page
    assert "white-space: pre-wrap" in page and "a-long-name</code>" in page


def test_write_report__parent_of_runs_gives_one_page(tmp_path: Path) -> None:
    for name in ("night", "fog"):
        _write_run(tmp_path / name)
        (tmp_path / name / "config.yaml").write_text(f"data: {{split: {name}}}\ntrain: {{seed: 0}}\n")
    report = write_report(tmp_path, {})
    assert report == tmp_path / "report.html"
    assert [name for name in ("fog", "night") if f"<strong>{name}</strong>" in report.read_text()] == ["fog", "night"]


def test_write_report__interrupted_run_says_what_is_missing(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "run", {"status": "interrupted"})
    (run / "evaluation.json").unlink()
    (run / "pictures").mkdir()
    (run / "pictures" / "broken.png").write_bytes(b"\x89PNG")
    text = write_report(run, {}).read_text()
    assert "did not finish" in text and "There is no evaluation.json." in text
    assert "broken.png cannot be read" in text and "No scores" in text


def test_write_report__folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no run: expected run\.json"):
        write_report(tmp_path, {})


def test_write_report__details_of_both_models_stand_in_one_table(tmp_path: Path) -> None:
    folder = _write_run(tmp_path / "run")
    rows = json.loads((folder / "evaluation.json").read_text())
    for row, number in zip(rows, (5, 3), strict=True):
        row["details"] = {"errors (number)": {"missed": number}, "AP by size": {"small": 0.25, "large": None}}
    (folder / "evaluation.json").write_text(json.dumps(rows))
    page = write_report(folder, {}).read_text()
    assert "<summary>errors (number), night_b</summary>" in page
    cells = re.findall(r'<th scope="row">(source|adapted)</th>((?:<td class="number">[^<]*</td>)+)', page)
    texts = [(model, re.findall(r">([^<]+)<", found)) for model, found in cells]
    assert texts[-4:] == [
        ("source", ["5"]),
        ("adapted", ["3"]),
        ("source", ["25.0", "n/a"]),
        ("adapted", ["25.0", "n/a"]),
    ]
