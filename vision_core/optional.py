"""Import of optional packages, with the command that installs a missing one."""

import importlib
from types import ModuleType

from vision_core.errors import MissingDependencyError

_PACKAGES_OF = {
    "slides": ("h5py", "openslide", "pyvips", "simplejpeg", "tifffile"),
    "medical": ("gdcm", "highdicom", "monai", "nibabel", "pydicom"),
    "words": ("open_clip", "tokenizers"),
    "apps": ("gradio",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "cluster": ("ray",),
    "simulation": ("pymust",),
}
_REMEDY_OF = {
    "detectron2": "run 'make setup' (detectron2 is not on the package index; see CONTRIBUTING.md)",
    **{name: f"pip install 'domainsight[{extra}]'" for extra, names in _PACKAGES_OF.items() for name in names},
}


def require(name: str, why: str) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        MissingDependencyError: It is not installed; the message has ``why`` it is needed and how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        if missing != name.partition(".")[0]:
            raise MissingDependencyError(
                f"Package '{missing}', which '{name}' needs, is not installed; {why}. Run 'make setup'."
            ) from error
        remedy = _REMEDY_OF.get(missing, f"pip install {missing}")
        raise MissingDependencyError(f"Package '{missing}' is not installed; {why}. Install it: {remedy}.") from error
