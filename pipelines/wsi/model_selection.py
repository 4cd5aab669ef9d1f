"""Validation: choice of epoch, threshold and calibration on slides that never train."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.wsi.evaluation.finite import require_finite
from pipelines.wsi.evaluation.predictions import Predictions, predict_bags
from pipelines.wsi.features.bags import Bags, Tiles, mean_tile
from pipelines.wsi.learner import STUDENT, BagLearner
from pipelines.wsi.mhim.student_teacher import MHIM
from vision_core.evaluation.classification import call, macro_accuracy
from vision_core.evaluation.scope import fit_scope


class Validation:
    """Scorer of a learner on the validation list.

    Args:
        learner: Scored in evaluation mode, then returned to its mode.
        bags: Whole bags of the validation list.
    """

    def __init__(self, learner: BagLearner, bags: Bags) -> None:
        self._learner, self._bags = learner, bags

    def __call__(self) -> Mapping[str, float]:
        """Score all networks; the first score chooses the epoch.

        It is the student's area under the ROC curve, or its macro accuracy beyond two classes.
        """
        student, *others = (_validation_scores(self.predict(name)) for name in self._learner.networks())
        return {**student, **{f"ema_{name}": value for scores in others for name, value in scores.items()}}

    def predict(self, name: str = STUDENT) -> Predictions:
        """Predict the list with a network of the learner, once between two steps.

        Raises:
            InputError: Features of a slide are too large for a sound network.
            NotFiniteError: The network has diverged.
        """
        validated = self._learner.validated
        if name not in validated:
            validated[name] = self._predict(self._learner.networks()[name])
        return validated[name]

    def scope(self, training: Bags) -> dict[str, Any]:
        """Fit the scope on mean tiles of training and validation slides, for the card."""
        known, new = (
            np.stack([mean_tile(bags.rows(place)) for place in range(len(bags))]) for bags in (training, self._bags)
        )
        return fit_scope(known, new).to_record()

    def _predict(self, network: MHIM) -> Predictions:
        was_training = network.training
        network.eval()
        try:
            return predict_bags(partial(self._probabilities, network), self._bags.records, self._bags.classes)
        finally:
            network.train(was_training)

    @torch.no_grad()
    def _probabilities(self, network: MHIM, place: int) -> Tensor:
        device = next(network.parameters()).device

        def probabilities(features: Tiles) -> Tensor:
            return network.log_probabilities(torch.as_tensor(features).to(device)).double().exp()

        bag = self._bags[0, place]
        return require_finite(probabilities(bag.features), probabilities, bag.features, bag.name)


def _validation_scores(found: Predictions) -> dict[str, float]:
    accuracy = macro_accuracy(found.labels, call(found.probabilities, found.threshold()))
    values = {"auc": found.auc(), "macro_accuracy": accuracy, "log_likelihood": found.log_likelihood()}
    return values if len(found.classes) == 2 else {"macro_accuracy": accuracy, **values}
