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


def assert_read(path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
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
    assert_read(path, tmp_path, monkeypatch, [])


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
    assert_read(path, tmp_path, monkeypatch, words)


CITY = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
PAPER_ART = ("bicycle", "bird", "car", "cat", "dog", "person")
# Lists and classes of the target, and the seed of WSCoL's release; of a source: steps, and where the rate falls.
TARGETS = {
    "c2f": ("train_t", "test_t", CITY, 17731508),
    "k2c": ("train_s", "test_s", ("car",), 17731508),
    "s2c": ("train_s", "test_s", ("car",), 17731508),
    "v2cl": ("train", "test", VOC_CLASSES, 17331508),
    "v2w": ("train", "test", PAPER_ART, 17731508),
}
SOURCES = {
    "source_cityscapes": ("train_s", CITY, 70_000, (50_000,)),
    "source_kitti": ("trainval", ("car",), 70_000, (50_000,)),
    "source_sim10k": ("val", ("car",), 70_000, (50_000,)),
    "source_voc": ("trainval", VOC_CLASSES, 170_000, (113_333, 151_111)),
    "source_voc6": ("trainval", PAPER_ART, 120_000, (90_000, 100_000)),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published__settings_are_those_of_the_specification(path: Path) -> None:
    config = load(SfodConfig, path, [])
    assert "Not run by us" in path.read_text()
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay, config.optim.clip_norm) == (
        1e-3, 0.9, 1e-4, 0,
    )  # fmt: skip
    assert (config.train.batch_size, config.optim.decay_norms, config.detector) == (1, False, None)
    if config.method == "source":
        split, classes, steps, milestones = SOURCES[path.stem]
        assert (config.data.split, config.data.classes, config.data.filter_empty) == (split, classes, True)
        assert (config.train.max_steps, config.optim.schedule, config.optim.milestones) == (
            steps, "warmup_multistep", milestones,
        )  # fmt: skip
        assert (config.optim.warmup_steps, config.optim.warmup_start) == (1000, 1e-3)
        assert (config.strong_view.kind, config.teacher.keep_rate) == ("none", 0)  # flips alone, and no average
        return
    task, _, method = path.stem.partition("_")
    split, scored, classes, seed = TARGETS[task]
    has_all = path.stem == "v2w_lpld"  # the detector of 20 classes, scored on 6
    assert (config.data.split, config.data.eval_split) == (split, scored)
    assert config.data.classes == (VOC_CLASSES if has_all else classes)
    assert config.data.eval_classes == (classes if has_all else ())
    assert config.data.fog_beta == (0.02 if task == "c2f" else None)
    assert not config.data.filter_empty
    assert config.strong_view == SfodConfig().strong_view
    assert (config.optim.schedule, config.train.max_steps) == ("constant", None)
    released = {"lpld": (0.7, 0.75, 10), "mt": (0.7, 0.75, 10), "wscol": (0.9, 0.9, 20)}
    assert (config.pseudo_labels.threshold, config.teacher.keep_rate, config.train.epochs) == released[method]
    assert (config.method, config.teacher.every) == ("wscol_core" if method == "wscol" else method, "epoch")
    if method == "wscol":
        assert config.train.seed == seed


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
