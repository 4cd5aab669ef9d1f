"""Contrastive training: its loss by a loop, and a compact model that learns three colours."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.image_text.compact import CompactModel
from pipelines.ovd.image_text.contrastive import ContrastiveSettings, contrastive_loss, train_compact
from pipelines.ovd.image_text.vocabulary import Vocabulary, embed_vocabulary
from tests.pipelines.ovd.image_text.encoders import HashedWords
from vision_core.errors import DataError
from vision_core.randomness import seeded

NAMES = ("red thing", "green thing", "blue thing")


def _by_loop(images: Tensor, texts: Tensor, labels: list[int], scale: float) -> float:
    total = 0.0
    for first, second in ((images, texts), (texts, images)):
        for row, label in enumerate(labels):
            cosines = [scale * float(first[row] @ second[column]) for column in range(len(labels))]
            log_sum = torch.tensor(cosines).logsumexp(dim=0).item()
            positives = [column for column, other in enumerate(labels) if other == label]
            total -= sum(cosines[column] - log_sum for column in positives) / len(positives)
    return total / (2 * len(labels))


def test_loss__equals_the_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (functional.normalize(torch.randn(6, 4, generator=generator), dim=1) for _ in range(2))
    labels = [0, 1, 0, 2, 2, 0]
    found = contrastive_loss(images, texts, torch.tensor(labels), torch.tensor(7.0))
    assert found.item() == pytest.approx(_by_loop(images, texts, labels, 7.0), abs=1e-5)


def _crops(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    crops = torch.randint(0, 120, (count, 3, 16, 16), generator=generator)
    crops[torch.arange(count), labels] += 120
    return crops.byte(), labels


def test_train__learns_to_tell_colours_by_their_names() -> None:
    with seeded(0):
        model = CompactModel(HashedWords(), embed_dim=16, image_size=16)
    crops, labels = _crops(60, 0)
    losses = train_compact(model, crops, labels, NAMES, ContrastiveSettings(steps=40, batch_size=24))
    assert losses[-1] < 0.7 * losses[0]
    others, wanted = _crops(30, 1)
    names = embed_vocabulary(model, Vocabulary.of_classes(NAMES))
    assert (model.encode_images(others) @ names.T).argmax(dim=1).eq(wanted).float().mean().item() > 0.9


def test_train__one_class_teaches_nothing() -> None:
    crops, labels = _crops(6, 0)
    with seeded(0), pytest.raises(DataError, match="two classes or more"):
        train_compact(CompactModel(HashedWords(), image_size=16), crops, labels * 0, NAMES)
