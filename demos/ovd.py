"""Demo page: words in, boxes of what they name out. ``python -m demos.ovd``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

TITLE, ABOUT = "Word detector", "Type words and see boxes; which words it has learned, and how, stands beside them."
DEMO = Path(__file__).resolve().parent / "checkpoints" / "ovd-demo"


def page() -> "Page":
    """The word detector with the shipped bundles, and scenes drawn now."""
    from apps.ui import session_folder
    from apps.word_detector.app import build
    from apps.word_detector.handlers import WordExample
    from pipelines.ovd.config import ImageText
    from pipelines.ovd.demo.examples import make_examples
    from pipelines.ovd.predict import WordDetector

    model = ImageText(kind="compact", weights=DEMO / "image-text")
    made = make_examples(session_folder() / "demo" / "ovd")
    return build(WordDetector.from_checkpoint(DEMO / "detector", model), [WordExample(**each) for each in made])


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, ABOUT))
