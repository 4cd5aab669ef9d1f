"""A stand-in for a decoder that ends its process, loaded in the child process alone."""

import os
import signal
from pathlib import Path
from typing import Any

from vision_core.slides.reading.gate.inspection import inspect_slide

BAD = "bad.tif"


def crash_or_inspect(path: Path, **arguments: Any) -> Any:  # noqa: ANN401 (as the function that it stands for)
    """Inspect a slide, unless it is the bad one."""
    if path.name == BAD:
        os.kill(os.getpid(), signal.SIGSEGV)
    return inspect_slide(path, **arguments)
