import json
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from tests.vision_core.slides.outputs.scored import scored
from vision_core.results import (
    AS_BEFORE,
    DECLINED,
    NO_CLASS,
    NO_TISSUE,
    OUTSIDE,
    RESEARCH_NOTICE,
    UNDECIDED,
    CineResult,
    ClassScores,
    Detections,
    as_share,
    decide_category,
    label_texts,
)


def detections(**changes: Any) -> Detections:  # noqa: ANN401 (any field, right or wrong)
    fields: dict[str, Any] = {
        "boxes": np.array([[1, 2, 3, 4], [5, 6, 7.123, 8]], np.float32),
        "scores": np.array([0.9, 0.5], np.float32),
        "labels": np.array([1, 0], np.int64),
        "classes": ("car", "baum"),
        "image_size": (40, 60),
    }
    return Detections(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"boxes": np.zeros((2, 5), np.float32)}, r"boxes: expected shape \(2, 4\), found \(2, 5\)"),
        ({"boxes": np.zeros((3, 4), np.float32)}, r"boxes: expected shape \(2, 4\), found \(3, 4\)"),
        ({"boxes": np.zeros((2, 4))}, "boxes: expected float32, found float64"),
        ({"scores": np.zeros((2, 1), np.float32)}, r"scores: expected shape \(2,\)"),
        ({"labels": np.zeros(3, np.int64)}, r"labels: expected shape \(2,\), found \(3,\)"),
        ({"labels": np.zeros(2, np.int32)}, "labels: expected int64, found int32"),
        ({"labels": np.array([0, 2])}, "labels: expected 0 to 1, found 0 to 2"),
        ({"labels": np.array([-1, 0])}, "labels: expected 0 to 1, found -1 to 0"),
        ({"scores": np.array([0.9, np.nan], np.float32)}, "expected finite numbers"),
        ({"boxes": np.full((2, 4), np.inf, np.float32)}, "expected finite numbers"),
        ({"scores": np.array([1.5, 0.5], np.float32)}, "scores: expected 0 to 1, found 0.5 to 1.5"),
        ({"scores": np.array([0.5, -0.5], np.float32)}, "scores: expected 0 to 1, found -0.5 to 0.5"),
        ({"scores": np.array([0.5, 0.9], np.float32)}, "scores: expected the highest first"),
    ],
)
def test_detections__wrong_arrays_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        detections(**changes)


def empty() -> Detections:
    return detections(
        boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), labels=np.zeros(0, np.int64), classes=()
    )


def test_detections__none_found_is_legal() -> None:
    assert len(empty()) == len(empty().above(0)) == 0
    assert empty().to_record()["objects"] == []


def test_detections__is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        detections().model = "other"  # type: ignore[misc]


def test_above__strictly_greater() -> None:
    assert len(detections().above(0.5)) == 1
    assert detections().above(0.5).labels.tolist() == [1]
    assert len(detections().above(0.4999)) == 2


def test_to_record__goes_through_json() -> None:
    record = json.loads(json.dumps(detections(model="sfod/lpld/abc").to_record()))
    assert record == {
        "width": 60,
        "height": 40,
        "model": "sfod/lpld/abc",
        "notice": RESEARCH_NOTICE,
        "objects": [
            {"label": "baum", "score": 0.9, "box": [1, 2, 3, 4]},
            {"label": "car", "score": 0.5, "box": [5, 6, 7.12, 8]},
        ],
    }


def class_scores(**changes: Any) -> ClassScores:  # noqa: ANN401 (any field, right or wrong)
    fields: dict[str, Any] = {
        "scores": np.array([0.2, 0.7, 0.1], np.float32),
        "classes": ("a", "b", "c"),
        "image_size": (40, 60),
    }
    return ClassScores(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scores": np.array([0.5, 0.5], np.float32)}, r"scores: expected shape \(3,\), found \(2,\)"),
        ({"scores": np.array([0.2, 0.7, 0.1])}, "scores: expected float32"),
        ({"scores": np.array([0.2, np.nan, 0.1], np.float32)}, "expected finite numbers"),
        ({"scores": np.array([-0.2, 1.1, 0.1], np.float32)}, "expected 0 to 1, found -0.2 to 1.1"),
        ({"scores": np.array([0.2, 0.7, 0.4], np.float32)}, "expected a sum of 1, found 1.3"),
    ],
)
def test_class_scores__refuses_what_makes_no_sense(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        class_scores(**changes)


def test_class_scores__the_highest_is_called_and_the_record_is_ranked() -> None:
    record = class_scores(model="toy").to_record()
    assert record["called"] == ["b"]
    assert json.dumps(record["scores"]) == '{"b": 0.7, "a": 0.2, "c": 0.1}'
    assert (record["width"], record["height"], record["model"]) == (60, 40, "toy")
    assert record["notice"] == RESEARCH_NOTICE


def test_class_scores__independent_classes_are_called_from_one_half_on() -> None:
    several = class_scores(scores=np.array([0.5, 0.9, 0.4], np.float32), are_independent=True)
    assert several.called() == ("b", "a")
    assert class_scores(scores=np.zeros(3, np.float32), are_independent=True).called() == ()


def test_decide_category__why_none_is_called_comes_before_any_class() -> None:
    assert decide_category(("tumour",)) == "tumour"
    assert decide_category(("a", "b")) == "a; b"
    assert decide_category(()) == NO_CLASS
    assert decide_category(("tumour",), is_undecided=True) == UNDECIDED == "undecided"
    assert decide_category(("tumour",), is_outside=True, is_undecided=True) == OUTSIDE
    assert decide_category(("tumour",), has_tissue=False, is_outside=True) == NO_TISSUE


@pytest.mark.parametrize("name", [*DECLINED, "Undecided", "  no   tissue "])
def test_decide_category__a_class_with_the_name_of_a_refusal_is_quoted(name: str) -> None:
    assert decide_category((name,)) == f"class '{name}'"
    assert decide_category((name,)) not in DECLINED


def test_class_scores__category_and_words() -> None:
    titled = class_scores(titles={"b": "cyst"})
    assert (titled.category, titled.verdict) == ("b", "cyst")
    none = class_scores(scores=np.zeros(3, np.float32), are_independent=True, titles={"b": "cyst"})
    assert (none.category, none.verdict, none.to_record()["category"]) == (NO_CLASS, NO_CLASS, NO_CLASS)


def test_verdict__a_class_or_title_with_the_name_of_a_refusal_is_quoted_in_words_too() -> None:
    assert class_scores(titles={"b": "Undecided"}).verdict == "class 'Undecided'"
    assert class_scores(classes=("a", "no tissue", "c")).verdict == "class 'no tissue'"
    assert scored([(0, 0)], [1.0], titles={"tumour": "no tissue"}).verdict == "class 'no tissue'"


def test_slide_result__words_of_a_class_and_no_words_for_a_refusal() -> None:
    titles = {"tumour": "altered nuclei"}
    assert scored([(0, 0)], [1.0], titles=titles).to_record()["verdict"] == "altered nuclei"
    assert scored([(0, 0)], [1.0], titles=titles, category=UNDECIDED).verdict == UNDECIDED


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"evidence": np.zeros(2, np.float32), "evidence_for": "tumour"}, r"evidence: expected shape \(1,\)"),
        ({"evidence": np.array([np.nan], np.float32), "evidence_for": "tumour"}, "evidence: expected finite"),
        ({"evidence": np.zeros(1, np.float32), "evidence_for": "x"}, "evidence_for: expected one of the classes"),
    ],
)
def test_slide_result__evidence_that_makes_no_sense_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        scored([(0, 0)], [1.0], **changes)


def test_label_texts__words_where_the_card_has_them() -> None:
    assert label_texts(detections(titles={"baum": "tree"})) == ["tree 0.90", "car 0.50"]
    assert detections(titles={"baum": "tree"}).above(0.6).titles == {"baum": "tree"}


def test_as_share__a_small_probability_is_not_0() -> None:
    assert [as_share(np.float32(value)) for value in (1.23456789e-9, 0.99999, 0.5, 0)] == [1.23457e-9, 0.99999, 0.5, 0]


def cine(**changes: Any) -> CineResult:  # noqa: ANN401 (any field, right or wrong)
    masks = np.zeros((3, 4, 5), bool)
    masks[1, 1:3, 2] = True
    given: dict[str, Any] = {
        "name": "loop.dcm",
        "frames": ("loop.dcm#0", "loop.dcm#1", "loop.dcm#2"),
        "size": (4, 5),
        "classes": ("prostate",),
        "scores": np.array([0.1, 0.9, 0.8], np.float32),
        "accepted": np.array([False, True, True]),
        "masks": masks,
        "confidence": np.array([np.nan, 0.75, np.nan], np.float32),
    }
    return CineResult(**given | changes)


def test_cine__is_present_where_it_is_accepted_and_has_a_mask() -> None:
    found = cine()
    assert found.present.tolist() == [False, True, False]
    assert (found.category, found.verdict) == ("prostate", "prostate on 1 of 3 frames")
    assert cine(masks=None).present.tolist() == [False, True, True]
    nothing = cine(masks=np.zeros((3, 4, 5), bool))
    assert nothing.category == nothing.verdict == NO_CLASS


def test_cine__record_has_what_is_not_known_as_nothing() -> None:
    record = json.loads(json.dumps(cine().to_record()))
    assert record["frames"][1] == {
        "frame": "loop.dcm#1",
        "present": True,
        "accepted": True,
        "outside": False,
        "reason": "",
        "score": 0.9,
        "confidence": 0.75,
    }
    assert record["frames"][2]["confidence"] is None
    assert record["spacing_mm"] is None
    assert record["notice"] == RESEARCH_NOTICE


def test_cine__is_outside_where_all_frames_are() -> None:
    nothing = {"accepted": np.zeros(3, bool), "masks": np.zeros((3, 4, 5), bool)}
    assert cine(outside=np.ones(3, bool), **nothing).category == OUTSIDE
    some = cine(outside=np.array([True, False, False]))
    assert (some.category, [each["outside"] for each in some.to_record()["frames"]]) == (
        "prostate",
        [True, False, False],
    )
    with pytest.raises(ValueError, match="expected no frame outside the scope"):
        cine(outside=np.array([False, True, False]))


def test_cine__a_frame_that_was_turned_away_is_not_accepted() -> None:
    with pytest.raises(ValueError, match="expected no frame that was turned away"):
        cine(reasons=("", "a single value", ""))
    assert cine(reasons=("", "", AS_BEFORE)).to_record()["frames"][2]["reason"] == AS_BEFORE
    with pytest.raises(ValueError, match="reasons: expected 3, found 1"):
        cine(reasons=("a single value",))


def test_cine__a_mask_on_a_rejected_frame_is_a_fault() -> None:
    with pytest.raises(ValueError, match="expected none on frames that were not accepted"):
        cine(accepted=np.array([False, False, True]))
    with pytest.raises(ValueError, match=r"scores: expected shape \(3,\)"):
        cine(scores=np.zeros(2, np.float32))
