"""A detection page whose model works until a file is there, for tests: ``python -m tests.demos.waiting_page``."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

GATE = "WAITING_PAGE_GATE"  # the environment variable that names the file; beside it, a line for each call of a model


def page() -> "Page":
    """The detection viewer, with a model that finds one box as soon as it may, and two examples."""
    import numpy as np
    from numpy.typing import NDArray

    from apps.cases import Example
    from apps.detection_viewer.app import build
    from apps.detection_viewer.handlers import ModelPair
    from apps.ui import session_folder
    from tests.apps.stand_in import StandIn
    from vision_core.bundles.card import Card, TrainedOn
    from vision_core.images.drawing import write_png
    from vision_core.results import Detections

    class Waiting(StandIn[Detections]):
        def __init__(self) -> None:
            self.card = Card(
                task="sfod",
                method="mt",
                config={},
                architecture={},
                preprocessing={},
                classes=("tree",),
                trained_on=TrainedOn(description="nothing", synthetic=True),
            )

        def __call__(self, item: str | Path | NDArray[np.uint8]) -> Detections:
            assert isinstance(item, np.ndarray)
            with Path(os.environ[GATE] + ".calls").open("a") as calls:
                calls.write("called\n")
            while not Path(os.environ[GATE]).exists():
                time.sleep(0.05)
            return Detections(
                boxes=np.array([[10, 10, 30, 30]], np.float32),
                scores=np.array([0.9], np.float32),
                labels=np.zeros(1, np.int64),
                classes=("tree",),
                image_size=(item.shape[0], item.shape[1]),
                model="sfod/mt/123",
            )

    examples = []
    for name, grey in (("Dark", 60), ("Light", 190)):
        path = session_folder() / "demo" / f"{name}.png"
        write_png(path, np.full((80, 120, 3), grey, np.uint8))
        examples.append(Example(name=name, path=path, origin="made"))
    return build([ModelPair(name="trees", source=Waiting(), adapted=Waiting())], examples)


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, "A page for tests."))
