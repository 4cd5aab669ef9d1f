"""Demo page: slides with and without altered nuclei, and where a MIL network looked. ``python -m demos.wsi``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

BUNDLE = Path(__file__).resolve().parent / "checkpoints" / "wsi-demo"
SHOWN = {"slide-018": "normal", "slide-007": "altered nuclei", "slide-000": "unknown"}
MADE = (
    "Made slides are recomposed from the real one. The model was trained on none of these; the first two are of the "
    "list that chose its epoch and threshold, the third, normal, is of the fold held out. Of the demo's five folds it "
    "is the model that left the smallest share of that list undecided. "
)


def page(slides_root: Path | None = None) -> "Page":
    """The slide reader with the shipped bundle, slides made now, and the real one that they are made of."""
    from apps.cases import Example
    from apps.slide_reader.app import build
    from apps.ui import session_folder
    from pipelines.wsi.demo.demo_data import make_demo_data, plan_slides
    from pipelines.wsi.predict import WsiPredictor
    from vision_core.assets import aperio_slide, aperio_slide_origin

    origin, slides = MADE + aperio_slide_origin().line(), [each for each in plan_slides() if each.slide in SHOWN]
    made = make_demo_data(session_folder() / "demo", slides) / "slides"
    shown = [Example(name=f"made slide, {text}", path=made / f"{at}.tif", origin=origin) for at, text in SHOWN.items()]
    shown.append(Example(name="real slide, Aperio", path=aperio_slide(), origin=origin, is_own=False))
    return build(WsiPredictor.from_checkpoint(BUNDLE), shown, slides_root)


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, "Where a model looks on a whole slide.", has_slides=True))
