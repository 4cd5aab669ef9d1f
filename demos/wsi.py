"""Demo page: slides with and without altered nuclei, and what spoke for them. ``python -m demos.wsi``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

TITLE, ABOUT = "Slide reader", "Whole slides: what a model calls them, and which tissue spoke for it."
BUNDLE = Path(__file__).resolve().parent / "checkpoints" / "wsi-demo"
SHOWN = {  # made slide; its name, and why it is offered
    "slide-007": ("Altered nuclei", "Made, with altered nuclei; of the list that chose the model's epoch."),
    "slide-018": ("Normal", "Made, without altered nuclei; of the list that chose the model's epoch."),
    "slide-000": ("Unlike those", "Made, normal, and unlike what the model was trained on; of the fold held out."),
}


def page(slides_root: Path | None = None) -> "Page":
    """The slide reader with the shipped bundle, slides made now, and the real one that they are made of."""
    from apps.cases import Example
    from apps.slide_reader.app import build
    from apps.ui import session_folder
    from pipelines.wsi.demo.demo_data import make_demo_data, plan_slides
    from pipelines.wsi.predict import WsiPredictor
    from vision_core.assets import aperio_slide, aperio_slide_origin

    origin = f"Made slides are recomposed from the real one. {aperio_slide_origin().line()}"
    made = make_demo_data(session_folder() / "demo", [each for each in plan_slides() if each.slide in SHOWN]) / "slides"
    shown = [Example(name=n, path=made / f"{at}.tif", origin=origin, why=why) for at, (n, why) in SHOWN.items()]
    shown += [Example(name="Real slide", path=aperio_slide(), origin=origin, is_own=False)]
    return build(WsiPredictor.from_checkpoint(BUNDLE), shown, slides_root, BUNDLE)


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, ABOUT, has_slides=True))
