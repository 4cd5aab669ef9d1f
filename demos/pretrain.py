"""Demo page: what a policy hides in real images, and what the classifier says. ``python -m demos.pretrain``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

TITLE, ABOUT = "Mask explorer", "What a policy of noise masks hides in an image, and what the classifier makes of it."
RUN = Path(__file__).resolve().parent / "checkpoints" / "pretrain-demo"
SHOWN = (  # name, piece that trained nothing, line of the attribution, why it is offered
    ("Heart, ultrasound", "test/US__heart__near", 1, "The classifier gets it right, with the masks and without."),
    ("Brain, MR", "test/MR__brain-t1__axial-middle", 0, "Right as it is, and wrong under every mask."),
    ("Skin, histology", "test/histology__skin__he", 2, "Right as it is, and wrong under every mask."),
    ("Head, CT", "test/CT__head__top", 1, "The classifier gets it wrong."),
    ("Retina", "held_out/test/fundus__retina__centre", 5, "Of no class that it knows; it calls one all the same."),
)


def page() -> "Page":
    """The mask explorer with the shipped bundles, and slices and blocks of real images made now."""
    from apps.cases import Example
    from apps.mask_explorer.app import build
    from apps.mask_explorer.explorer import MaskExplorer
    from apps.ui import session_folder
    from pipelines.pretrain.demo.small_real import NOTICE, attribution, make_small_real

    make_small_real(data := session_folder() / "demo" / "pretrain", longest_px=96)
    of = {name: (min((data / part).iterdir()), attribution()[at], why) for name, part, at, why in SHOWN}
    examples = [Example(name=name, path=path, origin=origin, why=why) for name, (path, origin, why) in of.items()]
    return build(MaskExplorer.from_run(RUN), examples, [f"Trained on few files; examples are parts of them: {NOTICE}."])


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, ABOUT))
