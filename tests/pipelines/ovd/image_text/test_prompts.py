"""The prompts by their hashes (P17), and the ensemble by numbers worked out apart from it (P2)."""

import pytest
import torch

from pipelines.ovd.image_text.prompts import TEMPLATES, ensemble, ensemble_ragged, expand, prompts_hash


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("umbrella", "bad6eae4b6d39eb8e19db835c27a46d915828b99b2df4527beafd8e7988c3783"),
        ("cow", "9a5f344b2bb518533810d47168120a84eb316a118693356b1b76a89ce821d17c"),
        ("tie", "dd72b838b9d99a435a6f00e63eb0436a2be4ce2df33bd0af0e61d628c9533bdc"),
    ],
)
def test_expand__the_published_prompts(name: str, sha256: str) -> None:
    assert prompts_hash(expand(name)) == sha256


def test_expand__sixty_three_different_ones() -> None:
    assert len(TEMPLATES) == len(set(expand("apple"))) == 63
    assert expand("apple")[0] == "There is an apple in the scene."
    assert expand("hair_drier")[-1] == "a painting of a hair drier."


def test_expand__only_the_fitting_article_follows_the_name() -> None:
    assert "a photo of a nice apple." in expand("apple")
    assert "a cropped photo of an apple." in expand("apple")


def test_ensemble__each_prompt_counts_alike() -> None:
    raw = torch.tensor([[3.0, 4, 0], [0, 0, 2], [1, 0, 0]])
    torch.testing.assert_close(ensemble(raw), torch.tensor([0.780720, 0.390360, 0.487950]), atol=1e-6, rtol=0)
    assert ensemble(raw.half()).dtype == torch.float32


def test_ensemble_ragged__one_after_the_other() -> None:
    raw = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = ensemble_ragged(raw, [2, 3])
    torch.testing.assert_close(found, torch.stack([ensemble(raw[:2]), ensemble(raw[2:])]))
    assert ensemble_ragged(raw[:0], []).shape == (0, 4)
