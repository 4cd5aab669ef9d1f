"""What the demo page offers first shows the point, and something is offered that does not."""

from pathlib import Path

from pipelines.sfod.demo.examples import make_examples
from vision_core.images.reading import read_image


def test_examples__the_first_is_of_the_half_that_was_not_adapted_to(tmp_path: Path) -> None:
    shown = make_examples(tmp_path)
    [first, *_] = shown.values()
    assert "half of the image that the model did not adapt to; the fog is rendered" in first[1]
    assert any("no gain is expected" in why for _, why in shown.values())
    assert all(read_image(path).std() > 1 for path, _ in shown.values())
