"""Scores on a labelled list: AP50 of novel and base classes, or federated AP as LVIS defines it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.ovd.config import OvdData
from pipelines.ovd.data.lvis import MOST_DETECTIONS, LvisScores, lvis_scores
from pipelines.ovd.data.reading import federated_scores
from pipelines.ovd.data.vocabulary_split import Split, group_means
from pipelines.ovd.evaluation.result_file import ResultFile, with_run_lengths
from vision_core.detection.average_precision import coco_ap50
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.evaluation.rows import Row
from vision_core.results import Detections


def score_groups(
    model: str, dataset: DetectionDataset, found: Sequence[Detections], split: Split, notes: tuple[str, ...] = ()
) -> Row:
    """Compute COCO AP50 of one model by class, averaged over novel, base and all classes.

    All classes compete in one inference; only the scores are divided.

    Args:
        model: Its name in the row.
        dataset: The labelled images.
        found: Detections, one per image.
        split: The classes.
        notes: What is to be said beside the scores.
    """
    result = coco_ap50(dataset.records, found, split.classes)
    means, empty = group_means(result.per_class, split)
    return Row(
        model=model,
        split=dataset.name,
        counts={"images": len(dataset), **dataset.left_out, "boxes": sum(result.truths.values())},
        metrics={f"{name}_ap50": value for name, value in means.items()},
        per_class={f"{name}.ap50": value for name, value in result.per_class.items()},
        notes=(*dataset.notes, *notes, *empty),
    )


def score_federated(
    model: str, data: OvdData, dataset: DetectionDataset, found: Sequence[Detections], notes: tuple[str, ...] = ()
) -> Row:
    """Compute the federated AP of LVIS of one model: over all classes, rare, common and frequent ones.

    Args:
        model: Its name in the row.
        data: Folder of the index.
        dataset: The labelled images.
        found: Detections, one per image.
        notes: What is to be said beside the scores.
    """
    named = _named(federated_scores(data, dataset, found))
    most = max(map(len, found), default=0)
    limited = f"warning: LVIS counts up to {MOST_DETECTIONS} detections an image, these have at most {most}: see "
    told = (f"{limited}detector.test_detections and detector.test_score.",) if most < MOST_DETECTIONS else ()
    return Row(
        model=model,
        split=dataset.name,
        counts={"images": len(dataset), **dataset.left_out, "boxes": sum(len(each.labels) for each in dataset.records)},
        metrics=named,
        notes=(*dataset.notes, *notes, *told),
    )


def score_result_file(
    model: str, split: str, index: Mapping[str, Any], found: ResultFile, told: tuple[str, ...] = ()
) -> Row:
    """Compute the federated AP of LVIS of predictions of another tool, by boxes and, where all have one, by masks.

    Args:
        model: Name in the row.
        split: Name of the list.
        index: Index of LVIS.
        found: Its predictions.
        told: What is to be said beside the scores.

    Raises:
        DataError: A mask of the index is damaged.
    """
    named, notes = _named(lvis_scores(index, found.results)), list(told)
    masked = with_run_lengths(index) if found.has_masks else None
    if masked:
        named |= {f"mask_{name}": value for name, value in _named(lvis_scores(masked, found.results, "segm")).items()}
    else:
        lacking = "the index has no mask of some object" if found.has_masks else "the predictions have none"
        notes.append(f"Not scored by masks: {lacking}.")
    counts = {
        "images": len(index["images"]),
        "predictions": len(found.results),
        "boxes": len(index["annotations"]),
    }
    return Row(model=model, split=split, counts=counts, metrics=named, notes=tuple(notes))


def _named(scores: LvisScores) -> dict[str, float | None]:
    return {"ap": scores.mean, "ap_r": scores.rare, "ap_c": scores.common, "ap_f": scores.frequent}
