"""What a person is told before an adaptation begins."""

import pytest

from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learners.adaptation import few_images_note
from vision_core.config.loading import load


@pytest.mark.parametrize(
    ("words", "num_images", "is_told"),
    [
        ((), 12, True),
        ((), 100, False),
        (("preset=small",), 12, False),
        (("teacher.every=step",), 12, False),
        (("method=bn",), 12, False),
    ],
)
def test_few_images_note__points_to_the_short_settings(words: tuple[str, ...], num_images: int, is_told: bool) -> None:
    told = few_images_note(load(SfodConfig, None, words), num_images)
    assert ["12 images under" in each and "10 times" in each and "preset=small" in each for each in told] == (
        [True] if is_told else []
    )
