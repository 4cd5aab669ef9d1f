"""Demo page: tree crowns in fog and by night, before and after adaptation. ``python -m demos.sfod``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

TITLE, ABOUT = "Detection before and after adaptation", "Tree crowns in fog: what a detector gains without new labels."
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


def page() -> "Page":
    """The detection viewer with the shipped bundles, and tiles of real aerial images to try."""
    from apps.cases import Example
    from apps.detection_viewer.app import build
    from apps.detection_viewer.handlers import ModelPair
    from apps.ui import session_folder
    from pipelines.sfod.demo.examples import make_examples
    from pipelines.sfod.predict import SfodPredictor
    from vision_core.assets import tree_crowns_origin

    load, origin = SfodPredictor.from_checkpoint, tree_crowns_origin().line()
    source = load(CHECKPOINTS / "sfod-source")
    fog = ModelPair(name="Tree crowns, day to fog", source=source, adapted=load(CHECKPOINTS / "sfod-fog"))
    night = ModelPair(name="Tree crowns, day to night", source=source, adapted=load(CHECKPOINTS / "sfod-night"))
    examples = [
        Example(name=name, path=path, origin=origin, why=why, model=(night if "night" in name else fog).name)
        for name, (path, why) in make_examples(session_folder() / "demo" / "sfod").items()
    ]
    return build([fog, night], examples)


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, ABOUT))
