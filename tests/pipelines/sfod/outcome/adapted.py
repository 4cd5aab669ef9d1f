"""One adaptation to a plain folder, with kept teachers and a selection; to be left as it is."""

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

from tests.made_once import made_once
from tests.pipelines.sfod.tiny import adapt
from tests.vision_core.detection.synthetic import make_voc

WORDS = (
    "data.format=images",
    "method=mt",
    "teacher.every=step",
    "teacher.keep_rate=0.9",
    "train.epochs=6",
    "train.save_every=2",
    "verdict.images=24",
    "verdict.select=true",
    "train.keep_teachers=3",
)


@cache
def adapted_run() -> Path:
    """The parent of the folders ``images`` and ``run``; what was printed is in ``told.txt``."""

    def make(folder: Path) -> None:
        made = make_voc(folder / "data", count=1, seed=1)
        (made / "JPEGImages").rename(folder / "images")
        here = Path.cwd()
        os.chdir(folder)
        try:
            with redirect_stdout(io.StringIO()) as told, redirect_stderr(io.StringIO()):
                assert adapt(Path("run"), Path("images"), *WORDS) == 0
        finally:
            os.chdir(here)
        (folder / "told.txt").write_text(told.getvalue())

    return made_once("sfod-adapted", make)
