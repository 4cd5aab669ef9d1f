import json
from pathlib import Path

from vision_core.runs.record import find_runs, flatten, read_run


def test_find_runs__folder_of_runs_gives_its_runs_by_name(tmp_path: Path) -> None:
    for name in ("night", "fog", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "night" / "run.json").write_text("{}")
    (tmp_path / "fog" / "config.yaml").write_text("")
    assert find_runs(tmp_path) == [tmp_path / "fog", tmp_path / "night"]


def test_find_runs__run_itself_and_nothing(tmp_path: Path) -> None:
    assert find_runs(tmp_path) == []
    assert find_runs(tmp_path / "missing") == []
    (tmp_path / "metrics.jsonl").write_text("")
    assert find_runs(tmp_path) == [tmp_path]


def test_read_run__empty_folder_names_each_gap(tmp_path: Path) -> None:
    run = read_run(tmp_path)
    assert run.evaluations == () and run.curves == {} and run.pictures == ()
    assert " ".join(run.gaps).count("There is no") == 4


def test_read_run__torn_metrics_keep_whole_lines_and_finite_values(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "epoch": 0, "time": 9.0, "loss": 2.0}',
        '{"step": 2, "loss": NaN, "lr": 0.1}',
        '{"step": 3, "lo',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    run = read_run(tmp_path)
    assert run.curves == {"loss": ((1.0, 2.0),), "lr": ((2.0, 0.1),)}
    assert "metrics.jsonl: 1 lines cannot be read and are left out." in run.gaps


def test_read_run__bad_row_is_left_out_and_named(tmp_path: Path) -> None:
    good = {"model": "source", "split": "b", "counts": {"images": 2, "boxes": 3}, "metrics": {"ap": None, "other": 0.5}}
    (tmp_path / "evaluation.json").write_text(json.dumps([{"model": "source"}, good]))
    run = read_run(tmp_path)
    assert run.evaluations[0].metrics == {"ap": None, "other": 0.5}
    assert any("row 1 is left out" in gap for gap in run.gaps)


def test_read_run__torn_json_is_a_gap(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('[{"model": "sou')
    assert any(gap.startswith("evaluation.json cannot be read") for gap in read_run(tmp_path).gaps)


def test_read_run__pictures_follow_the_captions_and_links_are_left_out(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        (pictures / name).write_bytes(b"")
    (pictures / "link.png").symlink_to("/etc/passwd")
    (pictures / "captions.json").write_text('{"b.png": "first", "../../secret.png": "never"}')
    assert [(path.name, caption) for path, caption in read_run(tmp_path).pictures] == [
        ("b.png", "first"),
        ("a.png", "a"),
    ]


def test_flatten__joins_keys_and_keeps_empty_sections() -> None:
    assert flatten({"train": {"seed": 0, "x": {}}, "a": [1]}) == {"train.seed": 0, "train.x": {}, "a": [1]}
