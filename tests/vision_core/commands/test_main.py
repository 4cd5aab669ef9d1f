import argparse
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydantic import model_validator

from tests.vision_core.toy import ToyConfig
from vision_core.commands import evaluate as evaluate_verb
from vision_core.commands import main as main_module
from vision_core.commands import report as report_verb
from vision_core.commands.main import run
from vision_core.commands.parser import OwnVerb, make_parser, parse
from vision_core.errors import (
    AllInputsError,
    CheckpointError,
    ConfigError,
    DataError,
    EnvironmentFault,
    Interrupted,
    MissingDependencyError,
    UsageError,
)

VERBS = ("train", "demo-data", "validate", "evaluate", "predict", "export", "report", "verify", "import-weights")
Main = Callable[..., int]


def nothing() -> object:
    pytest.fail("the pipeline was built")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Main:
    """Runs the verb ``report`` with an action that raises what it is given."""

    def main(error: BaseException, *options: str) -> int:
        def report(*_: object) -> int:
            raise error

        monkeypatch.setattr(report_verb, "run", report)
        return run(ToyConfig, nothing, ["report", "--run", "x", *options])

    return main


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UsageError("what. do."), 2, "error[USAGE] what. do.\n"),
        (ConfigError(["a", "b"]), 2, "error[CONFIG] 2 problems in the configuration:\n  a\n  b\n"),
        (CheckpointError(["a", "b"]), 2, "error[CHECKPOINT] a\nerror[CHECKPOINT] b\n"),
        (DataError("a"), 2, "error[DATA] a\n"),
        (AllInputsError("a"), 3, "error[DATA] a\n"),
        (EnvironmentFault("a"), 5, "error[ENVIRONMENT] a\n"),
        (MissingDependencyError("a"), 5, "error[ENVIRONMENT] a\n"),
        (Interrupted("a"), 130, "error[INTERRUPTED] a\n"),
        (KeyboardInterrupt(), 130, "error[INTERRUPTED] Stopped.\n"),
        (MemoryError(), 5, "error[ENVIRONMENT] Memory is used up. Close other programs, or use a machine with more.\n"),
        (RuntimeError("CUDA out of memory. Tried"), 5, "error[ENVIRONMENT] Memory is used up."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 5, "error[ENVIRONMENT] Memory is used up."),
        (OSError(errno.ENOSPC, "", "/a"), 5, "error[ENVIRONMENT] '/a': No space left on device. Fix that, then run"),
        (OSError(errno.EIO, ""), 5, "error[ENVIRONMENT] Input/output error. Fix that"),
        (PermissionError(errno.EACCES, "", "/a"), 5, "error[ENVIRONMENT] '/a': Permission denied."),
        (KeyError("a"), 1, "error[INTERNAL] KeyError: 'a'. This is a fault of domainsight, not yours"),
        (FileNotFoundError(errno.ENOENT, "x", "/a"), 1, "error[INTERNAL] FileNotFoundError: "),
    ],
    ids=range(17),
)
def test_run__each_error_has_its_code_and_line(
    failing: Main, error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [UsageError("a"), KeyError("a"), MemoryError()])
def test_run__debug_shows_the_traceback(failing: Main, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    failing(error, "--debug")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "told"), [("train", "train.batch_size"), ("export", "--size"), ("verify", "Close")])
def test_run__too_little_memory_is_told_with_what_the_verb_takes(
    verb: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise MemoryError

    parsed = argparse.Namespace(debug=False, verb=verb, action=fail)
    monkeypatch.setattr(main_module, "parse", lambda *_: parsed)
    assert run(ToyConfig, nothing, [verb]) == 5
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_run__the_handler_of_sigterm_is_put_back(failing: Main) -> None:
    before = signal.getsignal(signal.SIGTERM)
    failing(UsageError("a"))
    assert signal.getsignal(signal.SIGTERM) is before


def test_run__sigterm_stops_a_verb_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_verb, "run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert run(ToyConfig, nothing, ["report", "--run", "x"]) == 130


def test_run__interrupted_run_prints_the_resume_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(arguments: argparse.Namespace, *_: object) -> int:
        arguments.resume_command = "python -m pipelines.toy train --out a --resume"
        raise Interrupted("Stopped at step 3.")

    monkeypatch.setattr(report_verb, "run", report)
    assert run(ToyConfig, nothing, ["report", "--run", "x"]) == 130
    assert capsys.readouterr().err.endswith("Resume with: python -m pipelines.toy train --out a --resume\n")


def test_run__reader_that_went_away_is_no_success() -> None:
    code = (
        "import sys, types\nfrom pipelines.sfod.config import SfodConfig\n"
        "from vision_core.commands import main as cli\n"
        "report = lambda *_: [print('x' * 9999, flush=True) for _ in range(99)] and 0\n"
        "sys.modules['vision_core.commands.report'] = types.SimpleNamespace(run=report)\n"
        "sys.exit(cli.run(SfodConfig, None, ['report', '--run', 'x']))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    found = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert found.returncode == 130
    assert "BrokenPipe" not in found.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "a=1", "b=2", "--out", "o", "--dry-run"],
        ["train", "--out", "o", "--dry-run", "a=1", "b=2"],
        ["train", "a=1", "--out", "o", "b=2", "--dry-run"],
        ["train", "--out", "o", "a=1", "--dry-run", "b=2"],
        ["train", "--dry-run", "--out", "o", "--", "a=1", "b=2"],
    ],
)
def test_parse__words_stand_before_between_and_behind_options(argv: Sequence[str]) -> None:
    found = parse(ToyConfig, argv)
    assert (found.words, found.out, found.dry_run) == (["a=1", "b=2"], Path("o"), True)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "required: VERB"),
        (["trian"], "invalid choice: 'trian' .*'train'"),
        (["train", "--over"], "'train' does not take '--over'. Did you mean '--overwrite'"),
        (["train", "--ouput", "x"], "Did you mean '--out'"),
        (["train", "--epochs=3"], r"Did you mean the setting 'train\.epochs='"),
        (["train", "--zzz"], "It takes: --accept-changes, --config, --debug, .*--show-config"),
        (["--debug", "train"], "Options stand behind the verb"),
        (["verify", "a", "b"], "'verify' does not take 'b'"),
        (["verify"], "required: BUNDLE"),
        (["train", "--config"], "--config: expected one argument"),
        (["train", "--out="], "--out: the path is empty"),
        (["train", "--config", ""], "--config: the path is empty"),
        (["train", "--resume", "--overwrite"], "not allowed with argument --resume"),
        (["train", "--seeds", "1,1"], "--seeds: '1,1': expected different numbers"),
        (["train", "--seeds=-1"], "expected different numbers from 0 on"),
        (["train", "--seeds", "1,,2"], "expected numbers with commas"),
        (["validate", "--sample", "0"], "--sample: '0': expected a number from 1 on"),
        (["validate", "--sample", "99999999999"], "--sample: '99999999999': expected a number up to 10000000"),
        (["validate", "--sample", "1e3"], "expected a number from 1 on"),
        (["predict", "--checkpoint", "a"], "required: --input, --out"),
        (["predict", "--on-error", "ignore"], "invalid choice: 'ignore'"),
    ],
)
def test_run__command_line_is_refused_in_one_line(
    argv: Sequence[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=told):
        parse(ToyConfig, argv)
    assert run(ToyConfig, nothing, argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_parse__seeds_are_numbers() -> None:
    assert parse(ToyConfig, ["train", "--seeds", "0,1,2"]).seeds == (0, 1, 2)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help__describes_every_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        make_parser(ToyConfig).parse_args([*verb.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m pipelines.toy {verb}".rstrip())
    assert all(name in text for name in (["--debug"] if verb else VERBS))


@pytest.mark.parametrize(
    "argv", [["train", "train.epochs=0"], ["train", "--config", "absent.yaml"], ["train", "--zzz"]]
)
def test_run__faults_of_the_command_line_are_told_without_torch(argv: list[str]) -> None:
    code = (
        "import sys\nfrom pipelines.sfod.__main__ import main\n"
        f"code = main({argv})\nsys.exit(code + 10 * ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 2


def test_run__a_task_may_have_a_verb_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--count", type=int, required=True)

    own = OwnVerb(name="toys", text="Count toys.", module="tests.vision_core.toy_verb", add=add, has_words=True)
    assert run(ToyConfig, nothing, ["toys", "--count", "3", "train.epochs=2"], [own]) == 3
    assert run(ToyConfig, nothing, ["toys", "--count", "3", "train.epoch=2"], [own]) == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err
    assert "toys" in make_parser(ToyConfig, [own]).format_help()


class PairedConfig(ToyConfig):
    size: int = 9
    part: int = 5

    @model_validator(mode="after")
    def _part_fits(self) -> "PairedConfig":
        if self.part > self.size:
            raise ValueError(f"part is '{self.part}', size '{self.size}'")
        return self


def test_run__words_are_checked_against_the_settings_of_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"task": ToyConfig.task, "config": {"size": 99}}))
    monkeypatch.setattr(evaluate_verb, "run", lambda *_: 0)
    words = ["evaluate", "--checkpoint", str(tmp_path)]
    assert run(PairedConfig, nothing, [*words, "part=50"]) == 0
    assert run(PairedConfig, nothing, [*words, "part=100"]) == 2
    assert run(PairedConfig, nothing, [*words, "prt=1"]) == 2
    assert "part is '100', size '99'" in (told := capsys.readouterr().err) and "did you mean 'part'" in told
