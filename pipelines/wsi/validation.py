"""The validation list: what chooses the epoch, the threshold and the calibration; training never sees it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.wsi.bags import Bags
from pipelines.wsi.bundles import DECISION, mean_tile
from pipelines.wsi.learner import BagLearner
from pipelines.wsi.metrics import macro_accuracy
from pipelines.wsi.predictions import Predictions, call, predict_bags
from vision_core.calibration import calibrate, fit_scope


class Validation:
    """Scores a learner as it is.

    Args:
        learner: Stays in training mode for who trains it; scored in evaluation mode.
        bags: Whole bags of the validation list.
    """

    def __init__(self, learner: BagLearner, bags: Bags) -> None:
        self._learner, self._bags = learner, bags

    def __call__(self) -> Mapping[str, float]:
        """The value that chooses the epoch first: the area under the ROC curve; of three classes, macro accuracy."""
        found = self.predict()
        accuracy = macro_accuracy(found.labels, call(found.probabilities, found.threshold()))
        values = {"auc": found.auc(), "macro_accuracy": accuracy, "log_likelihood": found.likelihood()}
        return values if len(found.classes) == 2 else {"macro_accuracy": accuracy, **values}

    def predict(self) -> Predictions:
        """What the student says of the list, asked once between two steps."""
        if self._learner.validated is None:
            self._learner.validated = self._predict()
        return self._learner.validated

    def scope(self, training: Bags) -> dict[str, Any]:
        """Where the mean tiles of the training slides lie, and how far those of this list do, for the card."""
        known, new = (
            np.stack([mean_tile(bags.rows(place)) for place in range(len(bags))]) for bags in (training, self._bags)
        )
        return fit_scope(known, new).to_record()

    def _predict(self) -> Predictions:
        student = self._learner.student
        was_training = student.training
        student.eval()
        try:
            return predict_bags(self._probabilities, self._bags.records, self._bags.classes)
        finally:
            student.train(was_training)

    @torch.no_grad()
    def _probabilities(self, place: int) -> Tensor:
        student = self._learner.student
        device = next(student.parameters()).device
        probabilities: Tensor = student(self._bags[0, place].features.to(device))
        return probabilities


def calibration_record(found: Predictions) -> dict[str, Any]:
    """Threshold, temperature and conformal sets from the validation list, for the card."""
    logits = np.log(np.maximum(found.probabilities, 1e-30))
    return {**calibrate(logits, found.labels).to_record(), DECISION: found.threshold()}
