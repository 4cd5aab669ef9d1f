"""Settings of slide classification: defaults as released, runs that one command stands for."""

import pytest

from pipelines.wsi.config import WsiConfig
from vision_core.config.loading import load


def _load(*words: str) -> WsiConfig:
    return load(WsiConfig, None, words)


def test_defaults__are_mhim_v1_with_abmil_on_camelyon_as_released() -> None:
    config = _load()
    masking = config.mhim_v1.masking
    assert (config.method, config.model.name) == ("mhim_v1", "abmil")
    assert (masking.random, masking.low, masking.high, masking.high_pool) == (0.5, 0.0, 0.01, 0.5)
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 2e-4, 1e-5)
    assert (config.train.epochs, config.train.patience, config.train.patience_from) == (200, 30, 130)


def test_conditional_defaults__v2_has_gelu_and_dsmil_scores_by_class() -> None:
    v2 = _load("method=mhim_v2")
    assert (v2.model.embedding.activation, v2.model.dsmil.combine, v2.optim.lr_end) == ("gelu", "logits", 1e-7)
    assert v2.optim.lr == 2e-4
    assert (v2.train.patience, v2.train.patience_from, v2.train.epochs) == (20, 100, 200)
    assert _load("method=mhim_v2", "train.patience=7").train.patience == 7
    assert _load("method=mhim_v2", "model.embedding.activation=relu").model.embedding.activation == "relu"
    assert _load("model.name=dsmil").mhim_v1.scores.kind == "class"
    assert _load("model.name=dsmil", "mhim_v1.scores.kind=attention").mhim_v1.scores.kind == "attention"
    assert _load("model.name=transmil").mhim_v1.scores.kind == "attention"


def test_expand__a_teacher_before_each_student() -> None:
    runs = _load("method=mhim_v1").expand()
    assert list(runs) == ["teacher", "mhim_v1"]
    assert runs["teacher"].method == "plain"
    assert runs["mhim_v1"].source.run == "teacher"


@pytest.mark.parametrize("word", ["random_teacher=true", "source.weights=bundle", "source.run=other", "method=plain"])
def test_expand__one_run_where_there_is_a_start(word: str) -> None:
    assert list(_load("method=mhim_v2", word).expand()) == [""]


def test_expand__folds_each_with_its_own_teacher() -> None:
    runs = _load("method=mhim_v2", "data.folds=2").expand()
    assert list(runs) == ["fold-0-teacher", "fold-0-mhim_v2", "fold-1-teacher", "fold-1-mhim_v2"]
    assert [run.data.fold for run in runs.values() if isinstance(run, WsiConfig)] == [0, 0, 1, 1]
    assert runs["fold-1-mhim_v2"].source.run == "fold-1-teacher"
    # The teacher of v2 has the activation of v2: its weights are taken over.
    teacher = runs["fold-0-teacher"]
    assert isinstance(teacher, WsiConfig)
    assert teacher.model.embedding.activation == "gelu"


def test_expand__a_run_of_one_fold_is_not_divided_again() -> None:
    assert list(_load("method=plain", "data.folds=5", "data.fold=2").expand()) == [""]
