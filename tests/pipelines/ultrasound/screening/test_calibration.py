from typing import Any

import numpy as np
import pytest

from pipelines.ultrasound.config import Calibrate, Gate
from pipelines.ultrasound.screening.calibration import calibration_of, chosen_threshold, one_kind_note
from tests.pipelines.ultrasound.published import found
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import CheckpointError, ConfigError, DataError


def card(calibration: dict[str, Any] | None) -> Card:
    given: dict[str, Any] = {"task": "ultrasound", "method": "screen", "config": {}, "architecture": {}}
    trained_on = TrainedOn(description="nothing", synthetic=True)
    return Card(**given, preprocessing={}, classes=("organ",), trained_on=trained_on, calibration=calibration)


def test_calibration__published_choice_with_its_curve() -> None:
    record = calibration_of(found(), Calibrate(), "ultrasound/segment/abc")
    assert record["threshold"] == pytest.approx(0.157895, abs=1e-6)
    chosen = record["curve"][5]
    assert chosen["threshold"] == record["threshold"]
    assert [chosen[name] for name in ("true_positive", "false_positive", "false_negative", "true_negative")] == [
        3,
        1,
        1,
        3,
    ]
    assert record["curve"][-1]["threshold"] == 0.6
    assert record["chosen_on"] == {"list": "val", "subjects": 4, "frames": 8}
    assert record["risk"] is None


def test_calibration__a_dear_missed_frame_lowers_the_threshold() -> None:
    dear = calibration_of(found(), Calibrate(false_positive=0.1, false_negative=10), "x")
    cheap = calibration_of(found(), Calibrate(false_positive=10, false_negative=0.1), "x")
    assert dear["threshold"] < cheap["threshold"]


def test_calibration__missed_frames_are_controlled_on_other_subjects_alone() -> None:
    subjects = tuple("efghijklmn")
    apart = found(
        name="more", subjects=subjects, present=np.ones(10, bool), scores=np.linspace(0.2, 0.9, 10, dtype=np.float32)
    )
    record = calibration_of(found(), Calibrate(), "x", apart, seen=set("abcd"))
    assert record["risk"]["num_subjects"] == 10
    assert record["risk"]["threshold"] < 0.2 + 1e-6  # of eleven, none may be missed at a share of a tenth
    with pytest.raises(DataError, match="have chosen the model or its threshold already"):
        calibration_of(found(), Calibrate(), "x", apart, seen={"e"})
    with pytest.raises(DataError, match="names no subjects"):
        calibration_of(found(), Calibrate(), "x", found(name="more", subjects=None))
    few = found(name="more", subjects=tuple("eeffgghh"))
    with pytest.raises(DataError, match=r"a share of 0\.1 needs 9"):
        calibration_of(found(), Calibrate(), "x", few)


def test_calibration__frames_that_predict_turns_away_choose_nothing() -> None:
    """A threshold is never applied to them; each kind changes the choice by itself here."""
    plain = found()
    for kind, worst in {"outside": 1, "unjudged": 6, "coloured": 6}.items():
        away = np.arange(8) == worst  # a false frame with a mask
        record = calibration_of(found(**{kind: away}), Calibrate(), "x")
        others = {name: values[~away] for name, values in vars(plain).items() if isinstance(values, np.ndarray)}
        fewer = found(subjects=tuple(np.array(plain.subjects)[~away]), **others)
        expected = calibration_of(fewer, Calibrate(), "x")
        assert record["chosen_on"] == expected["chosen_on"] | {"frames_turned_away": 1}
        assert {**record, "chosen_on": 0} == {**expected, "chosen_on": 0}
    subjects = tuple("efghijklmn")
    scores = np.linspace(0.2, 0.9, 10, dtype=np.float32)
    given = {"name": "more", "subjects": subjects, "present": np.ones(10, bool), "scores": scores}
    sizes = dict.fromkeys(("has_consensus", "dice", "precision", "recall", "areas", "confidence"), np.ones(10))
    sizes |= dict.fromkeys(("hausdorff_95", "surface"), np.ones(10))
    apart = found(**given, **sizes, outside=np.arange(10) == 0)
    record = calibration_of(found(), Calibrate(), "x", apart, seen=set("abcd"))
    assert (record["risk"]["num_subjects"], record["risk"]["frames_turned_away"]) == (9, 1)
    fewer = found(**given, **sizes, outside=np.arange(10) < 2)
    with pytest.raises(DataError, match=r"needs 9.*'2' frames that predict turns away do not count"):
        calibration_of(found(), Calibrate(), "x", fewer, seen=set("abcd"))
    with pytest.raises(DataError, match="'val': predict would turn all '8' frames away"):
        calibration_of(found(unjudged=np.ones(8, bool)), Calibrate(), "x")


def test_calibration__a_list_of_one_kind_is_told() -> None:
    """All thresholds that accept nothing are the best of a list without the organ."""
    assert one_kind_note(found()) == []
    for present, shown in ((np.ones(8, bool), 8), (np.zeros(8, bool), 0)):
        [told] = one_kind_note(found(present=present))
        assert told.startswith(f"note: 'val' shows the organ on '{shown}' of 8 frames: one kind of error alone")
    [told] = one_kind_note(found(outside=~found().present))  # of those that are left
    assert "on '4' of 4 frames" in told


def test_threshold__stated_then_calibrated_then_one_half() -> None:
    record = calibration_of(found(), Calibrate(), "mine")
    assert chosen_threshold(card(record), Gate(threshold=0.3)).value == 0.3
    assert chosen_threshold(card(record), Gate(), "mine").notes == ()
    assert "was chosen with 'mine', not with 'other'" in chosen_threshold(card(record), Gate(), "other").notes[0]
    half = chosen_threshold(card(None), Gate())
    assert (half.value, "run calibrate" in half.notes[0]) == (0.5, True)
    for known in (None, record):
        with pytest.raises(ConfigError, match=r"gate\.by=risk"):
            chosen_threshold(card(known), Gate(by="risk"))
    record["risk"] = {"threshold": 0.25}
    assert chosen_threshold(card(record), Gate(by="risk"), "mine").value == 0.25
    with pytest.raises(CheckpointError, match="calibration is damaged"):
        chosen_threshold(card({"threshold": "high"}), Gate())
