"""Detector of named classes: regions and boxes of any class, classified by embeddings of names."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.ovd.config import Classifier
from pipelines.ovd.methods.text_classifier import TextClassifier
from vision_core.detection.model.detector import DetectionTensors, Detector, Features, Proposals, Targets
from vision_core.detection.settings import DetectorSettings
from vision_core.errors import ConfigError

ANYTHING = ("object",)  # the one class of the regions


class OpenDetector(Detector):
    """Faster R-CNN whose boxes are of any class and whose classes are names; ``set_vocabulary`` changes the names.

    Args:
        settings: Architecture; a pyramid.
        classes: Names in the order of the logits; background comes last.
        embeddings: ``(K, D)``, of the names, length 1.
        classifier: Settings of the text classifier.

    Raises:
        ConfigError: The architecture has no pyramid, or its parts do not fit each other.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        classes: tuple[str, ...],
        embeddings: Tensor,
        classifier: Classifier | None = None,
    ) -> None:
        if settings.neck != "fpn":
            raise ConfigError(f"detector.neck is '{settings.neck}': open vocabularies need a pyramid. Set it to fpn.")
        super().__init__(settings, ANYTHING)
        for name, each in self.named_parameters():
            if "cls_score" in name:  # the two-way classifier of a plain detector is not used
                each.requires_grad_(False)
        chosen = classifier or Classifier()
        self.classifier = TextClassifier(
            settings.head_channels,
            embeddings,
            background=chosen.background,
            normalise=chosen.normalise,
            temperature=chosen.temperature,
        )
        self.classifier_settings = chosen
        self.classes = classes
        self.num_rivals = 0
        self.thresholds: Tensor | None = None

    def freeze(self) -> "OpenDetector":
        """Switch to evaluation mode without gradients."""
        return self.requires_grad_(False).eval()

    def set_vocabulary(
        self,
        classes: tuple[str, ...],
        embeddings: Tensor,
        rivals: Tensor | None = None,
        thresholds: Tensor | None = None,
    ) -> None:
        """Detect other names from now on; nothing that is trained changes.

        Args:
            classes: The names.
            embeddings: ``(K, D)``, of the names.
            rivals: ``(N, D)``, of names that compete unseen: what they win counts as background.
            thresholds: ``(K,)``, scores that boxes of the names have to exceed, beside that of the settings.

        Raises:
            ValueError: There is not one embedding a name.
        """
        if len(classes) != len(embeddings):
            raise ValueError(f"'{len(classes)}' names have '{len(embeddings)}' embeddings")
        self.num_rivals = 0 if rivals is None else len(rivals)
        self.classifier.set_class_embeddings(embeddings if rivals is None else torch.cat([embeddings, rivals]))
        self.classes = classes
        self.thresholds = None if thresholds is None else thresholds.to(self.classifier.embeddings.device)

    def classify(self, embedded: Tensor) -> Tensor:
        """Compute float32 logits ``(n, K + 1)`` of regions, background and what rivals win last."""
        logits: Tensor = self.classifier(embedded)
        return join_rivals(logits, self.num_classes) if self.num_rivals else logits

    def score(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Compute float32 logits ``(n, K + 1)`` of the names, background last, and deltas ``(n, 4)`` of any class."""
        _, deltas = super().score(embedded)
        return self.classify(embedded), deltas

    def decode(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode deltas ``(n, 4)`` of boxes ``(n, 4)`` to boxes ``(n, 1, 4)``, not clipped."""
        decoded = self.roi_heads.box_predictor.box2box_transform.apply_deltas(deltas, boxes)
        return decoded.view(len(boxes), 1, 4)  # type: ignore[no-any-return]

    def losses(
        self,
        features: Features,
        targets: Sequence[Targets],
        sampling: Sequence[tuple[int, int]] | None = None,
        append_truth: bool = True,
    ) -> dict[str, Tensor]:
        """Refuse the losses of a plain detector: those of names are computed by ``OpenLearner``.

        Raises:
            TypeError: Always.
        """
        raise TypeError("the region losses of an OpenDetector are those of its learner")

    def select(
        self, features: Features, proposals: Sequence[Proposals], logits: Tensor, deltas: Tensor
    ) -> list[DetectionTensors]:
        """Select boxes as every detector; what scores at or below its name's threshold goes before they are counted."""
        above = logits if self.thresholds is None else above_thresholds(logits, self.thresholds)
        return super().select(features, proposals, above, deltas)

    def score_boxes(self, features: Features, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute logits and deltas of regions, as ``score`` does, from feature maps."""
        return self.score(self.embed(self.pool(features, boxes)))

    @torch.no_grad()
    def probabilities(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        """Compute probabilities ``(sum N, K + 1)`` of regions, without gradients."""
        return self.classify(self.embed(self.pool(features, boxes))).softmax(dim=1)


def join_rivals(logits: Tensor, shown: int) -> Tensor:
    """Add the probabilities of all but the first ``shown`` columns up to one: ``(n, shown + 1)`` logits."""
    return torch.cat([logits[:, :shown], logits[:, shown:].logsumexp(dim=1, keepdim=True)], dim=1)


def above_thresholds(logits: Tensor, thresholds: Tensor) -> Tensor:
    """Give background the scores that are at or below the thresholds ``(K,)`` of names: ``(n, K + 1)`` logits."""
    scores = logits.softmax(dim=1)
    names = scores[:, :-1].masked_fill(scores[:, :-1] <= thresholds, 0.0)
    background = 1 - names.sum(dim=1, keepdim=True)
    return torch.cat([names, background.clamp(min=torch.finfo(scores.dtype).tiny)], dim=1).log()
