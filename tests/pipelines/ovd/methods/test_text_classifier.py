"""The text classifier against numbers worked out apart from it (P5, P17, P18e)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.ovd.methods.mining import novelty
from pipelines.ovd.methods.text_classifier import TextClassifier

ROWS = functional.normalize(torch.tensor([[1.0, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]]), dim=1)
EMBEDDED = torch.tensor([[2.0, -1, 0.5, 1], [0.3, 3, -1, -2], [-1, -1, -1, -1]])
LOGITS = torch.tensor(
    [
        [1.767767, -0.353553, 0.707107, 1.060660, 0],
        [-0.494975, 1.414213, 2.333452, -2.121320, 0],
        [-1.414214, -1.414214, -1.414214, -1.414214, 0],
    ]
)
PROBABILITIES = torch.tensor(
    [
        [0.469509, 0.056282, 0.162557, 0.231500, 0.080152],
        [0.037731, 0.254593, 0.638361, 0.007420, 0.061896],
        [0.123255, 0.123255, 0.123255, 0.123255, 0.506979],
    ]
)


def _identity(**words: object) -> TextClassifier:
    """A classifier whose projection returns its input, so that the input is ``e``."""
    classifier = TextClassifier(4, ROWS, **words)  # type: ignore[arg-type]
    with torch.no_grad():
        classifier.projection.weight.copy_(torch.eye(4))
    return classifier


def test_forward__the_numbers_of_the_specification() -> None:
    logits = _identity()(EMBEDDED)
    torch.testing.assert_close(logits, LOGITS, atol=1e-5, rtol=0)
    assert logits[:, 4].tolist() == [0, 0, 0]
    probabilities = logits.softmax(dim=1)
    torch.testing.assert_close(probabilities, PROBABILITIES, atol=1e-5, rtol=0)
    background = 1 / (1 + logits[:, :4].exp().sum(dim=1))
    torch.testing.assert_close(probabilities[:, 4], background, atol=1e-6, rtol=0)
    novel = novelty(probabilities, torch.tensor([False, True, False, True]))
    torch.testing.assert_close(novel, torch.tensor([0.287782, 0.262012, 0.246510]), atol=1e-5, rtol=0)
    torch.testing.assert_close(1 - background, torch.tensor([0.919848, 0.938104, 0.493021]), atol=1e-5, rtol=0)


def test_forward__cosine_over_temperature_does_not_depend_on_the_length() -> None:
    classifier = _identity(normalise=True, temperature=0.1)
    logits = classifier(EMBEDDED)
    expected = LOGITS / EMBEDDED.norm(dim=1, keepdim=True) / 0.1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(classifier(EMBEDDED * 7), logits, atol=1e-4, rtol=0)


def test_class_matrix__of_sixty_five_classes() -> None:
    rows = functional.normalize(torch.randn(65, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    matrix = TextClassifier(16, rows).class_matrix()
    assert matrix.shape == (66, 512)
    assert not matrix[-1].any()
    torch.testing.assert_close(matrix[:-1].norm(dim=1), torch.ones(65))


def test_background__learned_starts_as_zero_does_and_then_moves() -> None:
    zero, learned = _identity(), _identity(background="learned")
    assert torch.equal(zero(EMBEDDED), learned(EMBEDDED))
    learned(EMBEDDED)[:, 4].sum().backward()
    assert learned.background is not None
    torch.testing.assert_close(learned.background.grad, EMBEDDED.sum(dim=0))
    assert "background" not in dict(zero.named_parameters())


def test_initial_weights__narrow_and_without_bias() -> None:
    classifier = TextClassifier(1024, functional.normalize(torch.randn(3, 512), dim=1))
    assert classifier.projection.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not classifier.projection.bias.any()


def test_gradient__reaches_the_projection_and_no_embedding() -> None:
    classifier = _identity()
    functional.cross_entropy(classifier(EMBEDDED), torch.tensor([0, 2, 4])).backward()
    assert classifier.projection.weight.grad is not None
    assert classifier.projection.weight.grad.any()
    assert not classifier.embeddings.requires_grad
    assert [name for name, _ in classifier.named_parameters()] == ["projection.weight", "projection.bias"]


def test_set_class_embeddings__another_vocabulary_keeps_what_is_trained() -> None:
    classifier = _identity()
    trained = [id(each) for each in classifier.parameters()]
    classifier.set_class_embeddings(ROWS[[3, 0]])
    assert classifier.num_classes == 2
    torch.testing.assert_close(classifier(EMBEDDED), LOGITS[:, [3, 0, 4]], atol=1e-5, rtol=0)
    assert [id(each) for each in classifier.parameters()] == trained
    assert classifier.state_dict()["embeddings"].shape == (2, 4)


def test_permuted_classes__same_loss() -> None:
    order = torch.tensor([2, 0, 3, 1])
    labels = torch.tensor([0, 2, 4])
    classifier = _identity()
    before = functional.cross_entropy(classifier(EMBEDDED), labels)
    classifier.set_class_embeddings(ROWS[order])
    new_labels = torch.cat([order.argsort(), torch.tensor([4])])[labels]
    torch.testing.assert_close(functional.cross_entropy(classifier(EMBEDDED), new_labels), before)


@pytest.mark.parametrize("rows", [ROWS * 2, ROWS[:, :3], ROWS[0]])
def test_set_class_embeddings__refused(rows: Tensor) -> None:
    with pytest.raises(ValueError, match="embeddings"):
        _identity().set_class_embeddings(rows)
