"""Signs of a collapse in pseudo labels and in looks at images, and what is none."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipelines.sfod.__main__ import main
from pipelines.sfod.learners import adaptation
from pipelines.sfod.methods.collapse import CollapseGuard, Looks, describe_collapse, upgrade
from tests.pipelines.sfod.tiny import adapt, source_bundle, weights
from tests.vision_core.detection.synthetic import make_voc
from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.bundles import load_detector
from vision_core.images.reading import read_image
from vision_core.signals import StopRequest
from vision_core.training import loop
from vision_core.training.mean_teacher import MeanTeacher


@pytest.mark.parametrize(
    ("first", "now", "told"),
    [
        ([100, 0], [10, 0], "fell from 100 in the first epoch to 10"),
        ([100, 0], [11, 0], ""),
        ([0, 0], [0, 0], ""),
        ([50, 50], [400, 0], "all 400 pseudo labels are of one class, of 2 in the first epoch"),
        ([95, 5], [400, 0], ""),  # it was nearly one class from the start
        ([50, 50], [399, 1], ""),
        ([50], [400], ""),
    ],
)
def test_describe_collapse(first: list[int], now: list[int], told: str) -> None:
    found = describe_collapse(torch.tensor(first), torch.tensor(now))
    assert told in found
    assert bool(found) == bool(told)


def pictures() -> list[tuple[str, Tensor]]:
    """Images that the tiny source has learned."""
    paths = sorted((source_bundle().parents[1] / "data" / "JPEGImages").glob("train_*.png"))
    return [(path.name, torch.from_numpy(read_image(path, 1).copy()).permute(2, 0, 1)) for path in paths]


def guarded(noise_floor: float | None = None) -> tuple[CollapseGuard, MeanTeacher, nn.Linear]:
    """A guard that has looked at the source, the teacher, and the bias that decides what it finds."""
    detector, _ = load_detector(source_bundle())
    teacher = MeanTeacher(detector)
    guard = CollapseGuard(teacher, detector.num_classes)
    guard.looks = Looks(every=5, load=pictures, operating_score=0.3, noise_floor=noise_floor)
    own = teacher.module
    assert isinstance(own, Detector)
    guard.begin(own)
    return guard, teacher, own.roi_heads.box_predictor.cls_score


def test_look__where_it_is_due_and_while_nothing_is_wrong() -> None:
    guard, teacher, scores = guarded(noise_floor=0.0)
    assert guard.source[:-1].sum() > 0.5
    assert 0 < guard.source[-1] <= 1
    assert [guard.after_update(teacher, update) for update in range(5)] == [""] * 5
    assert guard.is_healthy
    with torch.no_grad():
        scores.bias[-1] += 50  # all is background
    assert guard.after_update(teacher, 8) == ""
    assert "below a third" in guard.after_update(teacher, 9)
    assert not guard.is_healthy
    kept = guard.before.module.roi_heads.box_predictor.cls_score
    assert kept.bias[-1] + 49 < scores.bias[-1]
    assert guard.look(teacher) == ""  # said once


def test_look__one_class_and_no_number_are_signs_too() -> None:
    guard, teacher, scores = guarded()
    with torch.no_grad():
        scores.bias[int(guard.source[:-1].argmin())] += 50
    assert "shares of the classes" in guard.look(teacher)
    guard, teacher, scores = guarded()
    with torch.no_grad():
        scores.bias[0] = torch.nan
    assert "not finite" in guard.look(teacher)


def test_look__few_boxes_of_the_source_judge_nothing_but_numbers() -> None:
    guard, teacher, scores = guarded()
    guard.source[:-1] *= 9 / (len(pictures()) * guard.source[:-1].sum())
    with torch.no_grad():
        scores.bias[-1] += 50
    assert guard.look(teacher) == ""
    with torch.no_grad():
        scores.bias[-1] = torch.nan
    assert "not finite" in guard.look(teacher)


def test_look__more_boxes_are_no_sign() -> None:
    """A source that finds little in a new domain finds more where adaptation helps."""
    guard, teacher, _ = guarded()
    guard.source[:-1] /= 3.5
    assert guard.looks is not None
    guard.looks = replace(guard.looks, load=lambda: pictures() * 4)  # enough boxes to judge by
    assert guard.look(teacher) == ""


def test_upgrade__a_run_from_before_there_were_looks_goes_on_without() -> None:
    guard, teacher, scores = guarded()
    state = {f"guard.{name}": entry for name, entry in guard.state_dict().items() if name != "source"}
    upgrade(state, "guard.", 2)
    guard.load_state_dict({name.removeprefix("guard."): entry for name, entry in state.items()}, strict=True)
    with torch.no_grad():
        scores.bias[-1] += 50
    assert guard.look(teacher) == ""
    nothing: dict[str, Tensor] = {}
    upgrade(nothing, "guard.", 2)
    assert not nothing  # a method without a guard has no numbers of a source either


@pytest.mark.slow
def test_train__a_collapse_between_epochs_delivers_the_teacher_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One epoch, so that counts by epoch say nothing; resumed in the middle it ends with the same bits."""
    monkeypatch.setattr(adaptation, "_LOOK_EVERY", 2)
    data = make_voc(tmp_path / "data", count=8)
    words = ["method=mt", "teacher.every=step", "teacher.keep_rate=0", "train.epochs=1", "train.batch_size=1"]
    words += ["optim.lr=0.5", "optim.clip_norm=1", "train.save_every=2", "pseudo_labels.on_nothing=continue"]
    assert adapt(tmp_path / "run", data, *words) == 0
    told = capsys.readouterr()
    assert "ALARM after step" in told.out + told.err
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert "The teacher before it is delivered." in card["limits"]
    unguarded = tmp_path / "unguarded"
    assert adapt(unguarded, data, *words, "pseudo_labels.collapse_guard=false") == 0
    assert weights(unguarded) != weights(tmp_path / "run")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(StopRequest(requested=True)))
        assert adapt(tmp_path / "stopped", data, *words) == 130
    assert main(["train", "--out", str(tmp_path / "stopped"), "--resume"]) == 0
    assert weights(tmp_path / "stopped") == weights(tmp_path / "run")
