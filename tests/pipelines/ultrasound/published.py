"""Eight frames whose decisions are published numbers."""

from typing import Any

import numpy as np

from pipelines.ultrasound.evaluation.rows import ListScores

# Published as 0.31 and 0.60, which a threshold of the same value rejects; float32 would be a little above both.
SCORES = np.array([0.92, 0.15, 0.40, 0.05, 0.73, 0.3099, 0.5999, 0.58], np.float32)
PRESENT = np.array([1, 0, 1, 0, 1, 1, 0, 0], bool)
AREAS = np.array([120, 14, 0, 0, 95, 60, 33, 0], np.float64)
DICE = np.array([0.9, 0, 0, 1, 0.8, 0.7, 0, 1])


def found(**changes: Any) -> ListScores:  # noqa: ANN401 (any field)
    given: dict[str, Any] = {
        "name": "val",
        "subjects": tuple("aabbccdd"),
        "present": PRESENT,
        "has_consensus": PRESENT,
        "scores": SCORES,
        "dice": DICE,
        "precision": np.full(8, np.nan),
        "recall": np.full(8, np.nan),
        "areas": AREAS,
        "confidence": np.where(AREAS > 0, 0.8, np.nan),
        "hausdorff_95": np.full(8, np.nan),
        "surface": np.full(8, np.nan),
    }
    return ListScores(**given | changes)
