import json
import logging
import subprocess
from pathlib import Path

import pytest

from vision_core.console import Progress, command_line, logged, note, say, track
from vision_core.runs.metrics_log import RunLog


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics__one_line_a_step_and_nan_is_null(tmp_path: Path) -> None:
    RunLog(tmp_path).metrics(3, 1, {"loss": 0.5, "ap": float("nan")})
    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert text.count("\n") == 1
    assert row.pop("time") > 0
    assert row == {"step": 3, "epoch": 1, "loss": 0.5, "ap": None}


def test_forget_after__drops_later_steps_and_torn_lines(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in range(1, 6):
        log.metrics(step, 1, {})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "lo\xc3')
    log.forget_after(3)
    assert steps(tmp_path) == [1, 2, 3]
    log.metrics(4, 1, {})
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_forget_after__without_metrics_writes_nothing(tmp_path: Path) -> None:
    RunLog(tmp_path).forget_after(3)
    assert list(tmp_path.iterdir()) == []


def test_logged__say_goes_to_console_and_file_and_note_to_the_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(tmp_path / "log.txt"):
        say("größer")
        note("only here")
    note("nowhere")
    assert capsys.readouterr().out == "größer\n"
    first, second = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert first.endswith(" größer")
    assert second.endswith(" only here")


def test_say__is_flushed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("now")
    assert capsys.readouterr().out == "now\n"


def test_run_log__tensorboard_events_are_written(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=True)
    log.metrics(1, 1, {"loss": 0.5})
    log.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_track__passes_items_on_and_ends_with_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", 3, "read", "file")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("read: 3/3 file, ")
    assert err.endswith("file/s, 0:00 left\n")


def test_progress__plain_lines_tell_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("vision_core.console.time.monotonic", lambda: now)
    progress = Progress(4000, "train", "step", initial=1000)
    for _ in range(12):
        now += 1.0
        progress.advance("loss 0.5")
    assert capsys.readouterr().err == "train: 1010/4000 step, 1.00 step/s, 49:50 left, loss 0.5\n"


def test_progress__the_wall_clock_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vision_core.console.time.time", lambda: -1e9)
    progress = Progress(1, "train")
    progress.advance()
    assert "0:00 left" in capsys.readouterr().err


def test_progress__a_passing_bar_tells_of_what_lasts_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("vision_core.console.time.monotonic", lambda: now)
    short, long = (Progress(90, name, "tile", 10, is_passing=True) for name in ("short", "long"))
    short.reach(90)
    now = 20.0
    long.reach(50)
    long.reach(90)
    assert capsys.readouterr().err == "long: 50/90 tile, 2.00 tile/s, 0:20 left\n"


def test_say__control_characters_become_escapes_line_feeds_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(tmp_path / "log.txt"):
        say("two\nlines \x1b[31m of 'a\rb'")
    assert capsys.readouterr().out == "two\nlines \\x1b[31m of 'a\\rb'\n"
    assert "\x1b" not in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_progress__label_and_note_stay_on_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(1, "read a\nb").advance("c\x1bd")
    told = capsys.readouterr().err
    assert told.startswith(r"read a\nb: 1/1 it, ") and told.endswith("left, c\\x1bd\n")


def test_log__warnings_are_escaped(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("domainsight").warning("'%s' is a link; %d frames.", Path("a\n\x1b[31m.png"), 3)
    assert caplog.messages == [r"'a\n\x1b[31m.png' is a link; 3 frames."]


@pytest.mark.parametrize("word", ["plain", "two words", "it's", "größe", "a\n\x1b[31m", "tab\t'\\n", "\u202ex"])
def test_command_line__a_shell_gives_the_words_back(word: str) -> None:
    line = command_line(["printf", "%s", word])
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.decode() == word
