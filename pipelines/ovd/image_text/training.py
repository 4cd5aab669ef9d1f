"""Training of the compact image–text model by ``train method=image_text``, on objects cut out of their boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.image_text.compact import CompactModel
from pipelines.ovd.image_text.contrastive import contrastive_loss
from pipelines.ovd.image_text.crops import cut_crops
from pipelines.ovd.image_text.prompts import TEMPLATES
from pipelines.ovd.image_text.vocabulary import Vocabulary
from vision_core.detection.datasets.records import DetectionDataset
from vision_core.errors import DataError
from vision_core.images.reading import read_noted_image
from vision_core.randomness import key
from vision_core.training.learner import Learner


@dataclass(frozen=True, kw_only=True)
class CropBatch:
    """Objects of one step.

    Attributes:
        crops: ``(N, 3, S, S)`` uint8 RGB.
        labels: ``(N,)`` int64, index into the classes.
        prompts: ``(N,)`` int64, index into the prompts of a name.
    """

    crops: Tensor
    labels: Tensor
    prompts: Tensor


class ObjectCrops:
    """Objects of a labelled data set, each cut out of its box; half of them are mirrored, by (seed, epoch, index).

    Args:
        dataset: Images with the boxes of all classes; crowds are left out.
        side_px: Side of the crops in pixels.
        seed: Key of the draws.
        max_megapixels: Larger images are refused.

    Raises:
        DataError: There are objects of fewer than two classes.
    """

    def __init__(
        self, dataset: DetectionDataset, side_px: int, *, seed: int = 0, max_megapixels: float = 100.0
    ) -> None:
        self.dataset, self.side_px, self.seed, self.max_megapixels = dataset, side_px, seed, max_megapixels
        self.places = [
            (number, row)
            for number, record in enumerate(dataset.records)
            for row, is_crowd in enumerate(record.crowd.tolist())
            if not is_crowd
        ]
        kinds = {int(dataset.records[number].labels[row]) for number, row in self.places}
        if len(kinds) < 2:
            raise DataError(f"'{dataset.name}' has objects of '{len(kinds)}' classes: expected two classes or more.")

    def __len__(self) -> int:
        return len(self.places)

    def names(self, indices: Sequence[int]) -> list[str]:
        """Return the file names of the objects' images."""
        return [self.dataset.records[self.places[index][0]].path.name for index in indices]

    def __getitem__(self, place: tuple[int, int]) -> CropBatch:
        epoch, index = place
        number, row = self.places[index]
        record = self.dataset.records[number]
        image, _ = read_noted_image(record.path, self.max_megapixels, key="data.max_megapixels")
        crop = cut_crops(image, torch.from_numpy(record.boxes[row : row + 1]), self.side_px)
        generator = torch.Generator().manual_seed(key("crop", self.seed, epoch, index))
        is_mirrored = bool(torch.rand(1, generator=generator) < 0.5)
        return CropBatch(
            crops=crop.flip(3) if is_mirrored else crop,
            labels=torch.from_numpy(record.labels[row : row + 1]),
            prompts=torch.randint(0, len(TEMPLATES), (1,), generator=generator),
        )

    def collate(self, items: list[CropBatch]) -> CropBatch:
        """Join items into one batch."""
        names = ("crops", "labels", "prompts")
        return CropBatch(**{name: torch.cat([getattr(item, name) for item in items]) for name in names})


class ContrastiveLearner(Learner):
    """Contrastive training of a compact model; the loss is that of ``contrastive_loss``.

    Args:
        model: The model; its sentence encoder stays frozen.
        classes: Names of the classes.
    """

    def __init__(self, model: CompactModel, classes: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        # All prompts of all names, (K, 63, 384): the encoder that reads them is frozen.
        prompts = Vocabulary.of_classes(classes).prompts()
        self.register_buffer("sentences", torch.stack([model.read_texts(lines) for lines in prompts]), False)
        self.sentences: Tensor

    def training_step(self, batch: CropBatch) -> dict[str, Tensor]:
        """Compute the symmetric cross-entropy between the objects of a step and a sentence about each."""
        images = functional.normalize(self.model.embed_images(self.model.normalised(batch.crops)), dim=1)
        read = self.sentences[batch.labels, batch.prompts]
        texts = functional.normalize(self.model.project_texts(read), dim=1)
        labels = batch.labels.to(images.device)
        return {"loss_contrastive": contrastive_loss(images, texts, labels, self.model.scale())}

    def product(self) -> CompactModel:
        """Return the model."""
        return self.model
