"""Predictions of other tools: polygons and run lengths are one mask, and what does not fit the index is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as ours
from pycocotools import mask as theirs

from pipelines.ovd.evaluation.result_file import read_result_file, with_run_lengths
from vision_core.errors import DataError

INDEX: dict[str, Any] = {
    "images": [{"id": 7, "width": 12, "height": 10}, {"id": 8, "width": 5, "height": 4}],
    "categories": [{"id": 3, "name": "mug", "frequency": "c"}],
    "annotations": [],
}
SQUARE = np.zeros((10, 12), np.uint8)
SQUARE[2:6, 3:8] = 1
POLYGON = [[3.0, 2.0, 8.0, 2.0, 8.0, 6.0, 3.0, 6.0]]


def _numbers(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths as numbers, column by column, background first."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def _letters(mask: np.ndarray) -> dict[str, Any]:
    packed = theirs.encode(np.asfortranarray(mask))
    return {"size": packed["size"], "counts": packed["counts"].decode()}


def _write(folder: Path, *entries: object) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(entries))
    return path


def _entry(**fields: object) -> dict[str, object]:
    return {"image_id": 7, "category_id": 3, "score": 0.5} | fields


def test_masks__of_all_three_kinds_are_one(tmp_path: Path) -> None:
    kinds = [POLYGON, _numbers(SQUARE), _letters(SQUARE)]
    found = read_result_file(_write(tmp_path, *(_entry(segmentation=each) for each in kinds)), INDEX)
    assert found.has_masks
    for each in found.results:
        assert np.array_equal(theirs.decode(each["segmentation"]), SQUARE)
        assert each["bbox"] == [3.0, 2.0, 5.0, 4.0]


def test_masks__their_overlaps_are_those_of_pycocotools() -> None:
    generator = np.random.default_rng(0)
    stacks = [(generator.random((20, 30, count)) < 0.4).astype(np.uint8) for count in (4, 6)]
    first, second = ([_letters(stack[:, :, place]) for place in range(stack.shape[2])] for stack in stacks)
    crowd = [0, 1, 0, 0, 1, 0]
    np.testing.assert_allclose(ours.iou(first, second, crowd), theirs.iou(first, second, crowd), atol=1e-12)
    by_hand = (stacks[0][..., 0] & stacks[1][..., 0]).sum() / (stacks[0][..., 0] | stacks[1][..., 0]).sum()
    assert np.asarray(ours.iou(first, second, crowd))[0, 0] == pytest.approx(by_hand)


def test_file__an_index_with_scores_and_boxes_alone(tmp_path: Path) -> None:
    path = tmp_path / "detections.coco.json"
    path.write_text(json.dumps({"annotations": [_entry(bbox=[1, 2, 3, 4], segmentation=[])]}))
    found = read_result_file(path, INDEX)
    assert not found.has_masks
    assert found.results == [{"image_id": 7, "category_id": 3, "score": 0.5, "bbox": [1, 2, 3, 4]}]
    assert read_result_file(_write(tmp_path), INDEX).results == []


@pytest.mark.parametrize(("image", "category"), [("7", "3"), (7.0, 3.0)])
def test_file__ids_in_another_writing_are_those_of_the_index(image: object, category: object, tmp_path: Path) -> None:
    entry = _entry(image_id=image, category_id=category, bbox=[1, 2, 3, 4])
    assert read_result_file(_write(tmp_path, entry), INDEX).results == [_entry(bbox=[1, 2, 3, 4])]


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([_entry(image_id=9, bbox=[0, 0, 1, 1])], "detection '0' is of image '9', which the index does not have"),
        ([_entry(category_id=1, bbox=[0, 0, 1, 1])], "is of category '1'"),
        ([_entry(score="high", bbox=[0, 0, 1, 1])], "has the score 'high': expected a number"),
        ([_entry(score=None, bbox=[0, 0, 1, 1])], "has the score 'None'"),
        ([_entry()], "has the box 'None': expected left, top, width and height"),
        ([_entry(bbox=[0, 0, 1])], r"has the box '\[0, 0, 1\]'"),
        ([_entry(segmentation=POLYGON), _entry(bbox=[0, 0, 1, 1])], "'1' of '2' detections have a mask"),
        ([_entry(segmentation=[[1, 2, 3, 4]])], "neither polygons nor run lengths"),
        ([_entry(segmentation={"size": [4, 5], "counts": [20]})], r"size '\[4, 5\]': its image has \[10, 12\]"),
        ([_entry(segmentation={"size": [10, 12], "counts": [20]})], "do not add up to the pixels"),
        ([_entry(segmentation={"size": [10, 12], "counts": 3})], "a mask without run lengths"),
        (["mug"], "is no object with fields"),
        ([_entry()] * 9, "so have '4' more detections"),
    ],
)
def test_file__refused(entries: list[object], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read_result_file(_write(tmp_path, *entries), INDEX)


def test_file__that_breaks_off_or_is_no_list(tmp_path: Path) -> None:
    path = _write(tmp_path, _entry())
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match="breaks off"):
        read_result_file(path, INDEX)
    path.write_text("{}")
    with pytest.raises(DataError, match="is no list of detections"):
        read_result_file(path, INDEX)


def test_index__masks_are_checked_too() -> None:
    whole = {"image_id": 7, "category_id": 3, "bbox": [3, 2, 5, 4], "segmentation": POLYGON}
    masked = with_run_lengths(INDEX | {"annotations": [whole]})
    assert masked and np.array_equal(theirs.decode(masked["annotations"][0]["segmentation"]), SQUARE)
    assert with_run_lengths(INDEX | {"annotations": [whole, whole | {"segmentation": []}]}) is None
    assert with_run_lengths(INDEX) is None
    with pytest.raises(DataError, match=r"box \[3, 2, 5, 4\] in image '7' has a mask that is neither"):
        with_run_lengths(INDEX | {"annotations": [whole | {"segmentation": [[1, 2]]}]})
