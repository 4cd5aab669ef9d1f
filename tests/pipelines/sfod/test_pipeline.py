"""How data, detector and method become a run: what is prepared, delivered, counted and warned of."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.sfod import pipeline as pipeline_module
from pipelines.sfod.__main__ import main
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learners.fixed_labels import FixedLabelsLearner
from pipelines.sfod.learners.mean_teacher import MeanTeacherLearner
from pipelines.sfod.learners.source import SourceLearner
from pipelines.sfod.learners.statistics import StatisticsLearner
from pipelines.sfod.learners.wscol import WscolLearner
from pipelines.sfod.pipeline import SfodPipeline
from pipelines.sfod.predict import SfodPredictor
from tests.pipelines.sfod.tiny import CLASSES, SUPERVISED, adapt, adapt_words, make_foreign, source_bundle, weights
from tests.vision_core.detection.synthetic import make_picture, make_voc
from vision_core.bundles import bundle
from vision_core.config import loading as config
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.views import LabelledViews, TargetViews
from vision_core.errors import ConfigError
from vision_core.training import distributed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc(tmp_path_factory.mktemp("target"), count=4, seed=1)


def _config(data: Path, *words: str) -> SfodConfig:
    return config.load(SfodConfig, None, adapt_words(data, *words))


@pytest.mark.parametrize(
    ("method", "learner"),
    [
        ("bn", StatisticsLearner),
        ("mt", MeanTeacherLearner),
        ("lpld", MeanTeacherLearner),
        ("fixed_pl", FixedLabelsLearner),
        ("wscol_core", WscolLearner),
        ("wsco_full", WscolLearner),
        ("wsco_full+lpld", WscolLearner),
    ],
)
def test_prepare__adaptation_sees_unlabelled_images(method: str, learner: type, data: Path) -> None:
    prepared = SfodPipeline().prepare(_config(data, f"method={method}"))
    assert type(prepared.learner) is learner
    assert isinstance(prepared.items, TargetViews)
    assert len(prepared.items) == 4
    assert prepared.items[0, 0].targets == []
    assert prepared.start == source_bundle()


def test_prepare__source_training_sees_labels(data: Path) -> None:
    prepared = SfodPipeline().prepare(config.load(SfodConfig, None, [f"data.root={data}", *SUPERVISED]))
    assert type(prepared.learner) is SourceLearner
    assert isinstance(prepared.items, LabelledViews)
    assert len(prepared.items[0, 0].targets[0].boxes) > 0
    assert prepared.start is None


def test_prepare__wscol_knows_its_first_epoch_and_each_profile_its_terms(data: Path) -> None:
    core, full = (SfodPipeline().prepare(_config(data, f"method={name}")) for name in ("wscol_core", "wsco_full+lpld"))
    for each in (core, full):
        assert isinstance(each.learner, WscolLearner)
        assert each.learner.steps_per_epoch == 2  # four images, two a step
    assert core.learner.lpld is None
    assert (core.learner.wscol.hard_positives, core.learner.wscol.instance_weight) == (False, 0)
    assert full.learner.lpld is not None
    assert (full.learner.wscol.hard_positives, full.learner.wscol.instance_weight) == (True, 0.01)


def test_prepare__oracle_sees_labels_of_the_target_and_says_so(data: Path, tmp_path: Path) -> None:
    settings = _config(data, "method=oracle", "data.eval_split=train")
    prepared = SfodPipeline().prepare(settings)
    assert type(prepared.learner) is SourceLearner
    assert len(prepared.items[0, 0].targets[0].boxes) > 0
    assert any(note.startswith("oracle trains on labels of the target") for note in prepared.notes)
    assert any(note.startswith("TRAINED ON: 4 of the 4 images") for note in prepared.notes)
    card = SfodPipeline().deliver(settings, prepared.learner, tmp_path / "model")
    assert (card.method, card.parent is None) == ("oracle", False)
    assert "with its labels" in card.trained_on.description


@pytest.mark.parametrize(("keep_rate", "warning"), [(1, "the teacher never moves"), (0, "there is no average")])
def test_prepare__a_teacher_that_is_none_is_warned_of(keep_rate: int, warning: str, data: Path) -> None:
    """Row C12 of the bad inputs."""
    notes = SfodPipeline().prepare(_config(data, f"teacher.keep_rate={keep_rate}")).notes
    assert any(note.startswith("warning:") and warning in note for note in notes)


def test_prepare__scoring_on_images_adapted_to_is_called_transductive(data: Path) -> None:
    """Row B33 of the bad inputs."""
    notes = SfodPipeline().prepare(_config(data, "data.eval_split=train")).notes
    assert any(note.startswith("TRANSDUCTIVE: 4 of the 4 images") for note in notes)
    notes = SfodPipeline().prepare(_config(data, "data.eval_split=test")).notes
    assert not any("TRANSDUCTIVE" in note for note in notes)


def test_deliver__card_names_method_parent_data_and_settings(data: Path, tmp_path: Path) -> None:
    settings = _config(data, "method=mt")
    prepared = SfodPipeline().prepare(settings)
    card = SfodPipeline().deliver(settings, prepared.learner, tmp_path / "model")
    assert card.identity() == bundle.read_card(tmp_path / "model").identity()
    assert (card.task, card.method, card.classes) == ("sfod", "mt", CLASSES)
    assert card.parent == bundle.read_card(source_bundle()).hashes["weights.safetensors"]
    assert card.config == settings.model_dump(mode="json")
    assert "without labels" in card.trained_on.description
    # Nothing has moved yet: what leaves is the teacher, which is the source.
    stored = bundle.load(tmp_path / "model").tensors
    source = bundle.load(source_bundle()).tensors
    assert all(torch.equal(tensor, source[name]) for name, tensor in stored.items())


def test_train__wscol_delivers_a_detector_without_what_it_was_trained_with(data: Path, tmp_path: Path) -> None:
    words = ["method=wsco_full+lpld", "train.epochs=1", "pseudo_labels.threshold=0.5"]
    assert adapt(tmp_path, data, *words) == 0
    content = bundle.load(tmp_path / "model")
    assert content.card.method == "wsco_full+lpld"
    assert content.tensors.keys() == bundle.load(source_bundle()).tensors.keys()
    state = torch.load(tmp_path / "last.pt", weights_only=True)["learner"]
    assert state["memory.bank.pushed"].sum() > 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"loss_consistency", "loss_contrast", "loss_instance"} <= set(lines[-1])


def test_train__half_precision_storage_halves_the_bundle(data: Path, tmp_path: Path) -> None:
    assert adapt(tmp_path, data, "train.epochs=1", "train.storage=fp16") == 0
    assert len(weights(tmp_path)) < 0.55 * (source_bundle() / "weights.safetensors").stat().st_size
    assert main(["verify", str(tmp_path / "model")]) == 0


def test_train__source_of_a_seed_is_the_same_whatever_ran_before(data: Path, tmp_path: Path) -> None:
    words = [f"data.root={data}", *SUPERVISED, "train.max_steps=1"]
    for number in range(2):
        torch.manual_seed(number)
        assert main(["train", "--out", str(tmp_path / str(number)), *words]) == 0
    assert weights(tmp_path / "0") == weights(tmp_path / "1")


@pytest.mark.slow
def test_train__overwritten_run_leaves_nothing_to_the_new_one(data: Path, tmp_path: Path) -> None:
    words = ["train", "--out", str(tmp_path), f"data.root={data}", "data.eval_split=test", *SUPERVISED]
    words += ["train.epochs=1", "train.eval_every=1"]
    assert main(words) == 0
    before = weights(tmp_path)
    assert main([*words, "--overwrite", "train.seed=1"]) == 0
    assert weights(tmp_path) != before


def test_train__statistics_alone_move_nothing_else(data: Path, tmp_path: Path) -> None:
    assert adapt(tmp_path, data, "method=bn", "train.epochs=1") == 0
    before, after = bundle.load(source_bundle()).tensors, bundle.load(tmp_path / "model").tensors
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} <= {"running_mean", "running_var", "num_batches_tracked"}


def test_train__three_of_seven_images_without_pseudo_label_make_four_updates_an_epoch(tmp_path: Path) -> None:
    """Check 8.20, last sentence: WSCoL skips an image without a pseudo label, the mean teacher learns background."""
    predictor = SfodPredictor.from_checkpoint(source_bundle())
    images = [image for image in (make_picture((64, 96), CLASSES, seed)[0] for seed in range(40))
              if len(predictor(image).above(0.6))]  # fmt: skip
    blanks = [np.full((64, 96, 3), grey, np.uint8) for grey in (60, 120, 180)]
    assert not any(len(predictor(image).above(0.5)) for image in blanks)
    for number, image in enumerate([*images[:4], *blanks]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    words = ["method=mt", "data.format=images", "train.epochs=2", "train.batch_size=1", "teacher.keep_rate=1"]
    assert adapt(tmp_path / "run", tmp_path, *words, "method=wscol_core") == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["updates"], facts["empty_steps"]) == (8, 6)
    assert adapt(tmp_path / "kept", tmp_path, *words) == 0
    facts = json.loads((tmp_path / "kept" / "run.json").read_text())
    assert (facts["updates"], facts["empty_steps"]) == (14, 0)


def test_train__a_list_of_one_image_and_a_batch_of_two(tmp_path: Path) -> None:
    """Row C6 of the bad inputs: the batch is trimmed."""
    data = make_voc(tmp_path / "data", count=1)
    assert adapt(tmp_path / "run", data, "train.epochs=2") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["updates"] == 2


def test_evaluate__without_a_list_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.eval_split is empty"):
        SfodPipeline().eval_set(_config(data), CLASSES)


def test_validate__looks_at_both_lists_and_reads_no_target_label(data: Path) -> None:
    told: list[tuple[int, int]] = []
    found = SfodPipeline().validate(
        _config(data, "data.eval_split=test"), None, lambda done, total: told.append((done, total))
    )
    assert [each.num_read for each in found] == [4, 4]
    assert found[0].lines()[2] == "labels: not read"
    assert found[1].lines()[2].startswith("boxes: ")
    assert told[-1] == (4, 4)


def test_import_weights__says_where_the_weights_come_from(tmp_path: Path) -> None:
    file, words = make_foreign(tmp_path)
    settings = config.load(SfodConfig, None, words)
    notes = SfodPipeline().import_weights(file, settings, tmp_path / "bundle", trusted=False)
    assert any(note.startswith("detector: r18 with fpn head") for note in notes)
    card = bundle.read_card(tmp_path / "bundle")
    assert card.method == "imported"
    assert "model.pth' (sha256 " in card.trained_on.description
    assert card.classes == CLASSES


def test_prepare__the_first_of_several_processes_checks_for_all(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _config(data, "data.classes=[disc,square]").data
    dataset = read_dataset(settings, "train", with_labels=False)
    less = replace(dataset, records=dataset.records[:1])
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(pipeline_module, "readable", lambda *_: pytest.fail("a file was read"))
    for sent, expected in ((less, less), (None, dataset)):
        monkeypatch.setattr(distributed, "broadcast_from_first", lambda _, sent=sent: sent)
        assert SfodPipeline()._sound(dataset, settings) is expected
