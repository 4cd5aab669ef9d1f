"""Demo page: a cine of a phantom, which frames show the organ, and where. ``python -m demos.ultrasound``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

TITLE, ABOUT = "Ultrasound reader", "A cine: which frames show the organ, where it is, and what the gate keeps clean."
PAIR = Path(__file__).resolve().parent / "checkpoints" / "ultrasound-demo"


def page() -> "Page":
    """The ultrasound reader with the shipped pair, cines of a phantom made now, and a real one of another kind."""
    from apps.cases import Example
    from apps.ui import session_folder
    from apps.ultrasound_reader.app import build
    from apps.ultrasound_reader.handlers import Reader
    from pipelines.ultrasound.config import UltrasoundConfig
    from pipelines.ultrasound.phantom.examples import make_examples
    from pipelines.ultrasound.predict import UltrasoundPredictor

    load = UltrasoundPredictor.from_checkpoint
    gate = load(PAIR / "screen", config=UltrasoundConfig(segment=PAIR / "segment"))
    made = make_examples(session_folder() / "demo" / "ultrasound")
    return build(Reader(gate=gate, alone=load(PAIR / "segment")), [Example(**each) for each in made])


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, ABOUT))
