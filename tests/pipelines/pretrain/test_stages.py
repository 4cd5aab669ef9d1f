"""A mistake in a later stage is told before the first one trains; and a rehearsal goes through all of them."""

from pathlib import Path
from typing import Any, cast

import pytest

from pipelines.pretrain import stages as later_runs
from pipelines.pretrain.__main__ import main
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.pipeline import PretrainPipeline
from tests.pipelines.pretrain.tiny import make_folders, words
from vision_core.config.loading import load_runs
from vision_core.errors import ConfigError, DataError

OTHER = ("coarse", "fine", "plain")
MOVED = ("then=[transfer]", "transfer.data.image_px=32", "transfer.data.resize_px=36", "transfer.data.cache=null")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("other"), OTHER)


def runs(data: Path | str, *more: str) -> dict[str, PretrainConfig]:
    found: Any = load_runs(PretrainConfig, None, words(cast(Path, data), *more))[""].expand()
    return dict(found)


@pytest.mark.parametrize(
    ("more", "error", "told"),
    [
        (["transfer.data.root=/nonexistent"], DataError, "Run 'transfer-linear': '/nonexistent/train' is not a folder"),
        (["transfer.data.split=hidden"], DataError, "Run 'transfer-linear': .*hidden' is not a folder"),
        (["transfer.data.eval_split=hidden"], DataError, "'hidden' is the list of data.eval_split"),
        (["transfer.data.class_list=absent.json"], DataError, "'absent.json' is no class list"),
        (["transfer.data.classes=[a,b]"], DataError, "'3' classes that are not among the 2 given"),
        (["transfer.per_class=3", "transfer.batch_size=8"], ConfigError, "'transfer-full': .* 9 images would have '1'"),
        (["transfer.data.image_px=16", "classifier=convnext_tiny"], ConfigError, "'16' is too small for a convnext"),
    ],
)  # fmt: skip
def test_check_runs__what_a_later_run_would_be_refused_for(
    more: list[str], error: type[Exception], told: str, data: Path, other: Path
) -> None:
    PretrainPipeline().check_runs(runs(data, *MOVED, f"transfer.data.root={other}"))
    with pytest.raises(error, match=told):
        PretrainPipeline().check_runs(runs(data, *MOVED, f"transfer.data.root={other}", *more))


def test_check_runs__before_anything_trains(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = words(data, *MOVED, "transfer.data.root=/nonexistent")
    assert main(["train", "--out", str(tmp_path / "out"), *wrong]) == 2
    captured = capsys.readouterr()
    assert "error[DATA] Run 'transfer-linear'" in captured.err
    assert "steps of" not in captured.out
    assert not list((tmp_path / "out").rglob("*.*"))


def test_check_runs__lists_that_runs_share_are_read_once(
    data: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[Path | None, str]] = []

    def counted(settings: Any, split: str) -> Any:  # noqa: ANN401 (as it is called)
        read.append((settings.root, split))
        return read_images(settings, split)

    monkeypatch.setattr(later_runs, "read_images", counted)
    PretrainPipeline().check_runs(runs(data, *MOVED, f"transfer.data.root={other}", "then=[finetune,transfer]"))
    assert read == [(root, part) for root in (data, other) for part in ("train", "val", "test")]


def test_check_runs__what_the_first_run_is_refused_for_is_told_as_its_own(data: Path) -> None:
    with pytest.raises(DataError, match=r"^'/nonexistent/train' is not a folder"):
        PretrainPipeline().check_runs(runs("/nonexistent", "then=[finetune]"))
    with pytest.raises(ConfigError, match=r"^Run 'finetune': 18 images make no step of '19'"):
        PretrainPipeline().check_runs(runs(data, "then=[finetune]", "finetune.batch_size=19"))


def test_check_runs__a_start_that_is_missing_or_of_other_classes(data: Path) -> None:
    first, *_ = runs(data).values()
    alone = load_runs(PretrainConfig, None, words(data, "method=finetune"))[""]
    with pytest.raises(ConfigError, match=r"Run 'second': method 'finetune' starts from .* source\.weights is empty"):
        PretrainPipeline().check_runs({"first": first, "second": alone})


def test_check_runs__the_demos_runs_have_no_data_yet() -> None:
    PretrainPipeline().check_runs(runs("null"))
    PretrainPipeline().check_runs(runs("null", "then=[finetune]"))


def test_rehearse__every_stage_of_a_command(
    data: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [*MOVED, f"transfer.data.root={other}", "then=[finetune,transfer]"]
    assert main(["train", "--dry-run", "--out", str(tmp_path / "out"), *words(data, *stages)]) == 0
    told = capsys.readouterr().out
    assert told.count("Starts from the result of the run 'pretrain', which is not trained yet.") == 1
    assert told.count("Starts from the result of the run 'finetune', which is not trained yet.") == 2
    assert not (tmp_path / "out").exists()


def test_prepare__an_earlier_run_that_left_nothing_is_no_start(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.weights is empty"):
        PretrainPipeline().prepare(runs(data, "then=[finetune]")["finetune"])
