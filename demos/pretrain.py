"""Demo page: what a policy hides in real images, and what the classifier says. ``python -m demos.pretrain``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

RUN = Path(__file__).resolve().parent / "checkpoints" / "pretrain-demo"
SHOWN = (  # pieces that trained nothing, and which line of the attribution is theirs
    ("CT, head", "test/CT__head__top", 1),
    ("MR, brain", "test/MR__brain-t1__coronal-middle", 0),
    ("ultrasound, heart", "test/US__heart__near", 1),
    ("histology, skin", "test/histology__skin__he", 2),
    ("retina, of no class that it knows", "held_out/test/fundus__retina__centre", 5),
)


def page() -> "Page":
    """The mask explorer with the shipped bundles, and slices and blocks of real images made now."""
    from apps.cases import Example
    from apps.mask_explorer.app import build
    from apps.mask_explorer.explorer import MaskExplorer
    from apps.ui import session_folder
    from pipelines.pretrain.demo.small_real import NOTICE, attribution, make_small_real

    make_small_real(data := session_folder() / "demo", longest_px=96)
    origin = attribution()
    examples = [Example(name=name, path=min((data / part).iterdir()), origin=origin[at]) for name, part, at in SHOWN]
    return build(MaskExplorer.from_run(RUN), examples, [f"Trained on few files; examples are parts of them: {NOTICE}."])


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, "What a policy of noise masks hides in an image."))
