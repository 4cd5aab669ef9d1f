"""What a decoder with a fault does: it ends its process with a signal."""

import os
import signal
from pathlib import Path
from typing import Any

from apps.slide_reader.scoring import score_in_child
from pipelines.ultrasound.data.files import facts_in_child


def score_or_crash(path: Path, **arguments: Any) -> Any:  # noqa: ANN401
    """Score a slide, or end the process for one that is called so."""
    if path.stem == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return score_in_child(path, **arguments)


def facts_or_crash(path: Path) -> Any:  # noqa: ANN401
    """Read what a file says of its frames, or end the process for one that is called so."""
    if path.stem == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return facts_in_child(path)
