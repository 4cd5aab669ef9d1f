"""Settings of published benchmarks on tiny trees of the same layout."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipelines.sfod.config import SUPERVISED, SfodConfig
from tests.vision_core.detection.datasets.published import make_city_voc, make_cityscapes, make_kitti, make_voc_lists
from vision_core.config.loading import load
from vision_core.detection.average_precision import voc07_ap50
from vision_core.detection.datasets.reading import read_dataset
from vision_core.detection.datasets.voc import VOC_CLASSES
from vision_core.results import Detections

CONFIGS = Path(__file__).parents[3] / "configs" / "sfod"
CARS = partial(make_voc_lists, names=("car",))
TREES: dict[str, Callable[[Path], Path]] = {
    "cityscape/VOC2007": make_city_voc,
    "kitti/VOC2012": lambda root: CARS(root, {"trainval": ["000000"]}, suffix="png"),
    "sim10k/VOC2012": lambda root: CARS(root, {"val": ["3384645"]}),
    "VOC0712": lambda root: make_voc_lists(root, {"trainval": ["000005"]}, ("chair", "dog")),
    "clipart": lambda root: make_voc_lists(root, {"train": ["1"], "test": ["2"]}, ("chair", "dog")),
    "watercolor": lambda root: make_voc_lists(root, {"train": ["1"], "test": ["2"]}, ("dog", "person")),
    "cityscapes": make_cityscapes,
    "kitti": make_kitti,
}
OWN_TREES = {
    "cityscape/VOC2007": ["data.root=cityscapes", "data.split=train", "data.eval_split=val"],
    "kitti/VOC2012": ["data.root=kitti", "data.split=training"],
}
FILES = sorted(path for path in CONFIGS.glob("*.yaml") if "demo" not in path.name)


def check(path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    monkeypatch.chdir(root)
    config = load(SfodConfig, path, words)
    folder = str(config.data.root)
    TREES[folder](root / folder)
    train = read_dataset(config.data, config.data.split, with_labels=config.method in SUPERVISED)
    assert train.records
    assert train.classes == config.data.classes
    if config.data.eval_split:
        scored = read_dataset(config.data, config.data.eval_split, with_labels=True)
        assert sum(len(record.boxes) for record in scored.records)
        assert not {"images missing"} & scored.left_out.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published__the_folder_of_the_papers(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(path, tmp_path, monkeypatch, [])


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.stem[:3] in {"c2f", "k2c", "s2c"} or "city" in path.stem or "kitti" in path.stem],
    ids=lambda path: path.stem,
)
def test_published__the_tree_of_the_data_set_itself(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = OWN_TREES[str(load(SfodConfig, path, []).data.root)]
    assert all(word in path.read_text() for word in words)  # the file offers them
    check(path, tmp_path, monkeypatch, words)


def test_published__names_of_data_sets_bring_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CONFIGS / "v2cl_lpld.yaml"
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    TREES["clipart"](tmp_path / "clipart")
    config = load(SfodConfig, path, ["data.classes=[]"])
    assert read_dataset(config.data, "train", with_labels=True).classes == VOC_CLASSES
    assert read_dataset(config.data, "train", with_labels=False).classes == VOC_CLASSES


def test_published__a_second_class_of_kitti_that_never_occurs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    word = "data.classes=[car, background]"
    for name in ("source_kitti", "k2c_lpld", "k2c_wscol"):
        path = CONFIGS / f"{name}.yaml"
        assert word in path.read_text()
        assert load(SfodConfig, path, [word]).data.classes == ("car", "background")
    make_city_voc(tmp_path / "cityscape" / "VOC2007")
    config = load(SfodConfig, CONFIGS / "k2c_lpld.yaml", [word])
    scored = read_dataset(config.data, "test_s", with_labels=True)
    [record] = scored.records
    perfect = Detections(
        boxes=record.boxes, scores=record.boxes[:, 0] * 0 + 0.9, labels=record.labels, classes=scored.classes,
        image_size=(32, 64),
    )  # fmt: skip
    found = voc07_ap50(scored.records, [perfect], scored.classes)
    assert found.mean == pytest.approx(1)  # not one half
    assert found.per_class["background"] is None
