"""A run from data to bundle: what is read, what is refused, and that no novel box reaches a weight."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.ovd import pipeline as pipeline_module
from pipelines.ovd.__main__ import main
from pipelines.ovd.bundles import load_open_detector
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.learner import OpenLearner, ProposalLearner
from pipelines.ovd.pipeline import OvdPipeline, stored_regions
from pipelines.ovd.pseudo_labels.making import LABELS_FILE
from pipelines.ovd.views import OpenViews
from tests.pipelines.ovd.tiny import CLASSES, make_data, words
from vision_core.config.loading import load
from vision_core.detection.boxes import largest_iou
from vision_core.errors import ConfigError, DataError, InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), count=6)


def _config(data: Path, *more: str) -> OvdConfig:
    return load(OvdConfig, None, words(data, *more))


@pytest.mark.parametrize(
    ("method", "learner"), [("marvel", OpenLearner), ("vl_plm", OpenLearner), ("proposals", ProposalLearner)]
)
def test_prepare__a_learner_by_method(method: str, learner: type, data: Path) -> None:
    unscored = ["data.eval_split=null"] if method == "proposals" else []
    prepared = OvdPipeline().prepare(_config(data, f"method={method}", *unscored))
    assert type(prepared.learner) is learner
    batches = [prepared.items[0, index] for index in range(len(prepared.items))]
    labels = torch.cat([each.targets[0].labels for each in batches])
    is_base = torch.cat([each.targets[0].is_base for each in batches])
    assert set(labels[is_base].tolist()) <= {0, 1}
    pseudo = set(labels[~is_base].tolist())
    assert pseudo <= {2, 3}
    assert bool(pseudo) is (method != "proposals")


def _poison(root: Path) -> Path:
    """Move the novel boxes of the training list, and add one."""
    index = json.loads((root / "train.json").read_text())
    novel = {each["id"] for each in index["categories"] if each["name"] in CLASSES[2:]}
    for number, each in enumerate([each for each in index["annotations"] if each["category_id"] in novel]):
        each["bbox"] = [1.0 + number, 2.0, 30.0, 20.0]
    extra = {"image_id": 0, "bbox": [3.0, 3.0, 20.0, 20.0], "area": 400.0, "iscrowd": 0, "category_id": max(novel)}
    index["annotations"].append({"id": 10_000, **extra})
    (root / "train.json").write_text(json.dumps(index))
    return root


def _trained(root: Path, steps: int = 2) -> tuple[dict[str, Tensor], str]:
    """Weights after a few steps on images of a list, by its pseudo-labels; and what the run says it trains on."""
    unsure = ("marvel.theta_burn=0.5", "marvel.delta=0.5")  # so that the candidate is learned in both phases
    prepared = OvdPipeline().prepare(_config(root, "marvel.burn_in_last_iter=0", *unsure))
    learner = prepared.learner.train()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.01)
    batch = prepared.items.collate([prepared.items[0, index] for index in range(3)])
    for step in range(steps):  # the first in the burn-in, the second with mining
        learner.step = step
        optimizer.zero_grad()
        torch.stack([*learner(batch).values()]).sum().backward()
        optimizer.step()
    return learner.state_dict(), prepared.manifest


def test_prepare__novel_boxes_of_the_index_change_nothing(data: Path, tmp_path: Path) -> None:
    """Poisoned labels: boxes of novel classes are moved and added; those of pseudo-labels alone change a weight."""
    poisoned = _poison(make_data(tmp_path / "data", count=6))
    (poisoned / LABELS_FILE).write_bytes((data / LABELS_FILE).read_bytes())
    (weights, manifest), (others, other_manifest) = _trained(data), _trained(poisoned)
    assert manifest == other_manifest != ""
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())
    labels = json.loads((poisoned / LABELS_FILE).read_text())
    for each in labels["annotations"]:
        if each["is_pseudo"]:
            each["bbox"][0] += 9
    (poisoned / LABELS_FILE).write_text(json.dumps(labels))
    moved, moved_manifest = _trained(poisoned)
    assert moved_manifest != manifest
    assert any(not torch.equal(tensor, moved[name]) for name, tensor in weights.items())


@pytest.mark.slow
def test_train__poisoned_labels_leave_the_same_bundle(data: Path, tmp_path: Path) -> None:
    """The whole command on both lists: weights, embeddings and background regions, byte for byte."""
    poisoned = _poison(make_data(tmp_path / "data", count=6))
    (poisoned / LABELS_FILE).write_bytes((data / LABELS_FILE).read_bytes())
    for name, root in (("clean", data), ("poisoned", poisoned)):
        run = words(root, "train.epochs=1", "data.eval_split=null")
        assert main(["train", "--out", str(tmp_path / name), "--device", "cpu", *run]) == 0
    clean, other = (tmp_path / name / "model" / "weights.safetensors" for name in ("clean", "poisoned"))
    assert clean.read_bytes() == other.read_bytes()


def test_prepare__without_pseudo_labels(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    (data / LABELS_FILE).unlink()
    with pytest.raises(DataError, match="Make them with the verb pseudo-label"):
        OvdPipeline().prepare(_config(data))


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("data.novel=[rounds]", "'rounds', which is none of the classes"),
        ("data.novel=[]", "leaves no novel class"),
        ("data.classes=[]", "data.classes is empty"),
        ("method=proposals", r"method=proposals has no score\. Set it to null"),
    ],
)
def test_prepare__vocabulary_refused(word: str, told: str, data: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        OvdPipeline().prepare(_config(data, word))


def test_prepare__labels_of_another_vocabulary_order(data: Path) -> None:
    with pytest.raises(DataError, match="is for 4 classes"):
        OvdPipeline().prepare(_config(data, "data.classes=[square,disc,round,block]"))


def test_prepare__a_damaged_image_is_left_out_and_the_pseudo_labels_still_fit(tmp_path: Path) -> None:
    data = make_data(tmp_path, count=4)
    whole = data / "train" / "001.png"
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(DataError, match=r"001\.png"):
        OvdPipeline().prepare(_config(data))
    prepared = OvdPipeline().prepare(_config(data, "data.on_corrupt=skip"))
    assert len(prepared.items) < 4
    assert "001.png" not in prepared.items.names(range(len(prepared.items)))


def test_prepare__scored_images_that_are_trained_on_are_told(data: Path) -> None:
    notes = OvdPipeline().prepare(_config(data, "data.eval_split=train")).notes
    assert any(note.startswith("TRAINED ON") for note in notes)
    assert not any(note.startswith("TRAINED ON") for note in OvdPipeline().prepare(_config(data)).notes)


def test_validate__reads_the_pseudo_labels_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path, count=2)
    assert main(["validate", *words(data)]) == 0
    (data / LABELS_FILE).write_text("{}")
    assert main(["validate", *words(data)]) == 2
    assert "is no file of pseudo-labels" in capsys.readouterr().err


def test_deliver__a_bundle_with_background_and_fingerprint(data: Path, tmp_path: Path) -> None:
    pipeline = OvdPipeline()
    config = _config(data)
    prepared = pipeline.prepare(config)
    card = pipeline.deliver(config, prepared.learner, tmp_path / "model")
    content = load_open_detector(tmp_path / "model")
    assert content.split.novel == ("round", "block")
    assert content.regions.background.shape[1] == content.regions.objects.shape[1] == 16
    assert len(content.regions.background) > 0
    assert set(content.regions.labels.tolist()) == {0, 1}  # the base classes alone
    assert card.preprocessing["image_text"] == "by hand"
    [row] = pipeline.evaluate(config, {"trained": tmp_path / "model"}, None)
    assert set(row.metrics) == {"novel_ap50", "base_ap50", "all_ap50"}


def test_evaluate__what_was_trained_on_is_asked_of_the_card(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    shutil.copytree(data, first)
    pipeline, config = OvdPipeline(), _config(first)
    pipeline.deliver(config, pipeline.prepare(config).learner, tmp_path / "model")
    other = make_data(tmp_path / "other", count=2)
    shutil.copy(first / "train" / "000.png", other / "test" / "000.png")

    def told(root: Path, split: str) -> list[str]:
        [row] = pipeline.evaluate(_config(root, f"data.eval_split={split}"), {"trained": tmp_path / "model"}, None)
        return [note.partition(" of data")[0] for note in row.notes if note.startswith("TRAINED ON")]

    assert told(first, "train") == told(first, "train") == ["TRAINED ON: 6 of the 6 images"]
    assert capsys.readouterr().out.count("TRAINED ON: 6 of the 6 images") == 1
    assert told(first, "test") == []
    assert told(other, "test") == ["TRAINED ON: 1 of the 2 images"]
    (other / "train" / "000.png").write_bytes((other / "train" / "000.png").read_bytes() + b"0")
    first.rename(tmp_path / "second")
    assert told(other, "train") == []  # a list of that name, which nothing was trained on
    assert told(tmp_path / "second", "train") == ["TRAINED ON: 6 of the 6 images"]


def test_evaluate__images_above_the_limit_of_the_list_are_refused(data: Path, tmp_path: Path) -> None:
    pipeline, config = OvdPipeline(), _config(data)
    pipeline.deliver(config, pipeline.prepare(config).learner, tmp_path / "model")
    bundles = {"trained": tmp_path / "model"}
    pipeline.evaluate(config, bundles, tmp_path)  # which has found the files sound
    with pytest.raises(InputError, match=r"or raise data\.max_megapixels"):
        pipeline.evaluate(_config(data, "data.max_megapixels=0.001"), bundles, None)


def test_stored__regions_are_of_images_all_over_the_list(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve of three images: four of each, the most object-like proposal first, and up to four boxes."""
    monkeypatch.setattr(pipeline_module, "_REGIONS", 12)
    monkeypatch.setattr(pipeline_module, "_REGION_IMAGES", 3)
    prepared = OvdPipeline().prepare(_config(data))
    assert isinstance(prepared.items, OpenViews) and isinstance(prepared.learner, OpenLearner)
    detector = prepared.learner.detector
    found = stored_regions(prepared.learner, prepared.items)
    assert found.background.shape == (12, 16)
    detector.eval()
    labels = []
    for place, index in enumerate((0, 2, 4)):
        batch = prepared.items[0, index]
        with torch.no_grad():
            features = detector.features(batch.weak)
            [proposals] = detector.propose(features)
            base = batch.targets[0].boxes[batch.targets[0].is_base]
            free = proposals.boxes[largest_iou(proposals.boxes, base) <= 0.3]  # no step learns the unsure candidate
            first = detector.classifier.project(detector.embed(detector.pool(features, [free[:1]])))
        torch.testing.assert_close(found.background[4 * place], first[0], atol=1e-5, rtol=1e-4)
        labels += batch.targets[0].labels[batch.targets[0].is_base][:4].tolist()
    assert found.labels.tolist() == labels and len(found.objects) == len(labels)


@pytest.mark.slow
def test_evaluate__lvis_divides_by_frequency_and_scores_by_federation(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_data(tmp_path / "lvis", count=3)
    for split in ("train", "test"):
        index = json.loads((root / f"{split}.json").read_text())
        for category, frequency in zip(index["categories"], "fcrr", strict=True):
            category["frequency"] = frequency
        for image in index["images"]:
            image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
            image["coco_url"] = f"http://images.example.org/{split}/{image.pop('file_name')}"
        (root / f"lvis_v1_{split}.json").write_text(json.dumps(index))
    lvis = [f"data.root={root}", "data.classes=[]", "data.novel=[]", "data.evaluator=lvis", "data.split=lvis_v1_train",
            "data.eval_split=lvis_v1_test"]  # fmt: skip
    assert main(["validate", *words(root, *lvis, "method=proposals")]) == 0
    pipeline, config = OvdPipeline(), _config(data)
    pipeline.deliver(config, pipeline.prepare(config).learner, tmp_path / "model")
    capsys.readouterr()
    assert main(["evaluate", f"--checkpoint={tmp_path / 'model'}", f"--out={tmp_path / 'out'}", *lvis]) == 0
    [row] = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(row["metrics"]) == ["ap", "ap_r", "ap_c", "ap_f"]
    assert all(0 <= value <= 1 for value in row["metrics"].values())
    for image in index["images"]:
        del image["neg_category_ids"]
    (root / "lvis_v1_test.json").write_text(json.dumps(index))
    assert main(["evaluate", f"--checkpoint={tmp_path / 'model'}", *lvis]) == 2
    assert "this is no index of LVIS" in capsys.readouterr().err


def test_main__proposals_then_pseudo_label_refuses_other_bundles(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [*words(data, "method=proposals", "train.max_steps=1", "data.eval_split=null")]
    assert main(["train", "--out", str(tmp_path / "run"), *run]) == 0
    assert main(["predict", "--checkpoint", str(tmp_path / "run" / "model"), "--input", str(data / "test"), "--out",
                 str(tmp_path / "found")]) == 2  # fmt: skip
    assert "knows no names" in capsys.readouterr().err
    common = words(data, f"proposals.weights={tmp_path / 'run' / 'model'}")
    assert main(["pseudo-label", "--out", str(tmp_path / "labels"), *common]) == 2
    assert "image_text.weights is empty" in capsys.readouterr().err


def test_follows__the_list_of_names_which_may_change_under_its_path(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"

    def digest(*words: str) -> str:
        return OvdPipeline().follows(load(OvdConfig, None, list(words)))(tmp_path / "image.png")

    names.write_text("cat")
    before = digest(f"predict.classes_file={names}")
    names.write_text("dog")
    assert before != digest(f"predict.classes_file={names}") != ""
    assert digest() == digest(f"predict.classes_file={tmp_path / 'none.txt'}") == ""
    assert OvdPipeline().follows(None)(names) == ""


@pytest.mark.parametrize(
    ("method", "begins", "holds"),
    [
        ("marvel", "predict --checkpoint run/model", ""),
        ("proposals", "pseudo-label", "proposals.weights=run/model"),
        ("image_text", "pseudo-label", "image_text.weights=run/model"),
    ],
)
def test_next_command__is_one_that_takes_the_bundle(method: str, begins: str, holds: str) -> None:
    told = OvdPipeline().next_command(method, "run/model")
    assert told.startswith(begins) and holds in told
