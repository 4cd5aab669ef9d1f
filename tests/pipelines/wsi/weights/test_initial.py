"""The trained network that a run of MHIM begins with, and what is refused as one."""

from pathlib import Path

import pytest
import torch

from pipelines.wsi.__main__ import main
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.learner import MhimLearner
from pipelines.wsi.pipeline import WsiPipeline
from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features
from vision_core.bundles import bundle
from vision_core.config import loading as config
from vision_core.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain ABMIL of the tiny features."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    assert main(["train", "--out", str(run), f"data.root={data}", *FEATURE_WORDS, "method=plain"]) == 0
    return run / "model"


def _config(data: Path, *words: str) -> WsiConfig:
    return config.load(WsiConfig, None, [f"data.root={data}", *FEATURE_WORDS, *words])


def test_prepare__mhim_without_a_teacher_is_refused(data: Path) -> None:
    settings = _config(data, "method=mhim_v1")
    with pytest.raises(ConfigError, match="needs a trained teacher"):
        WsiPipeline().prepare(settings)


def test_prepare__begins_with_the_bundle(data: Path, teacher: Path) -> None:
    prepared = WsiPipeline().prepare(_config(data, "method=mhim_v1", f"source.weights={teacher}"))
    assert isinstance(prepared.learner, MhimLearner)
    stored = bundle.load(teacher).tensors
    started = prepared.learner.teacher.module.state_dict()
    assert all(torch.equal(tensor, started[name]) for name, tensor in stored.items())
    student = prepared.learner.student.state_dict()
    same = {name for name, tensor in stored.items() if torch.equal(tensor, student[name]) and tensor.any()}
    assert same == {"aggregator.embedding.linear.weight", "aggregator.embedding.linear.bias"}
    assert any(note.startswith("Starts from wsi/plain/") for note in prepared.notes)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("model.name=dsmil", "is a bundle of abmil, model.name is dsmil"),
        ("model.abmil.gated=true", "model.abmil.gated is True, the bundle's is False"),
        ("model.embedding.activation=gelu", "model.embedding.activation is 'gelu', the bundle's is 'relu'"),
    ],
)
def test_prepare__teacher_of_another_network_is_refused(word: str, told: str, data: Path, teacher: Path) -> None:
    """Row E23 of the bad inputs."""
    settings = _config(data, "method=mhim_v1", f"source.weights={teacher}", word)
    with pytest.raises(CheckpointError, match=told.replace("(", r"\(")):
        WsiPipeline().prepare(settings)


def test_prepare__teacher_of_other_features_is_refused(teacher: Path, tmp_path: Path) -> None:
    """Row E20 of the bad inputs."""
    wide = make_features(tmp_path, dim=1536)
    settings = _config(wide, "method=mhim_v1", f"source.weights={teacher}")
    with pytest.raises(CheckpointError, match=r"takes features of an unknown encoder \(6\), the data's are of UNI2-h"):
        WsiPipeline().prepare(settings)


@pytest.fixture(scope="module")
def folded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain ABMIL that was trained on the first of two folds of ours."""
    run = tmp_path_factory.mktemp("folded") / "run"
    assert main(["train", "--out", str(run), f"data.root={data}", *FEATURE_WORDS, *_FOLDS, "method=plain"]) == 0
    return run / "model"


_FOLDS = ("data.protocol=stratified", "data.folds=2", "data.fold=0", "data.val_share=0.5")


def test_prepare__teacher_of_another_fold_is_refused(data: Path, folded: Path) -> None:
    words = ("method=mhim_v1", f"source.weights={folded}", *_FOLDS)
    assert WsiPipeline().prepare(_config(data, *words)).start is None
    for other in ("data.fold=1", "train.seed=1"):
        with pytest.raises(CheckpointError, match="was trained on other slides of the same list"):
            WsiPipeline().prepare(_config(data, *words, other))


def test_train__folds_of_one_teacher_are_refused_before_any_is_trained(
    data: Path, folded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.root={data}", *FEATURE_WORDS, "method=mhim_v1", f"source.weights={folded}", *_FOLDS[:2]]
    assert main(["train", "--out", str(tmp_path / "run"), *words, "data.val_share=0.5"]) == 2
    assert "that fold 1 is tested on may be among them" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.jsonl"))


def test_prepare__teacher_of_another_list_is_told(folded: Path, tmp_path: Path) -> None:
    """A model of one hospital may well teach at another."""
    prepared = WsiPipeline().prepare(
        _config(make_features(tmp_path), "method=mhim_v1", f"source.weights={folded}", *_FOLDS, "data.fold=1")
    )
    assert any(note.startswith("It was trained on other slides than this run") for note in prepared.notes)


def test_train__a_fold_that_lacks_a_class_is_known_before_any_is_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row E17 of the bad inputs."""
    rows = (data / "labels.csv").read_text().splitlines()
    folds = [1, 0, 0, 0, 0, 0, 0, 1]  # of all slides of class 0 that are not in fold 1, none could validate
    listed = [
        rows[0].replace("split", "fold"),
        *(f"{row.rpartition(',')[0]},{fold}" for row, fold in zip(rows[1:], folds, strict=True)),
    ]
    (tmp_path / "labels.csv").write_text("\n".join(listed))
    words = [f"data.root={data}", f"data.labels={tmp_path / 'labels.csv'}", *FEATURE_WORDS, "data.folds=2"]
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 2
    assert "training has no slide" in (told := capsys.readouterr().err) or "no validation list" in told
    assert not list(tmp_path.rglob("*.jsonl"))
