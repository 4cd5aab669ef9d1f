"""Import an optional package where it is needed, or say which command installs it."""

import importlib
from types import ModuleType

from vision_core.errors import MissingDependencyError

_EXTRA_OF = {
    "detectron2": "run 'make setup' (detectron2 is not on the package index; see CONTRIBUTING.md)",
    "gradio": "pip install 'domainsight[apps]'",
    "tensorboard": "pip install tensorboard",
}


def require(name: str, why: str) -> ModuleType:
    """Import ``name``.

    Raises:
        MissingDependencyError: It is not installed; the message says what needs it and how to get it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        if missing != name.partition(".")[0]:
            raise MissingDependencyError(
                f"Package '{missing}', which '{name}' needs, is not installed; {why}. Run 'make setup'."
            ) from error
        remedy = _EXTRA_OF.get(missing, f"pip install {missing}")
        raise MissingDependencyError(f"Package '{missing}' is not installed; {why}. Install it: {remedy}.") from error
