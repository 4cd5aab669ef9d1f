"""Rows H1 to H10: checkpoints and bundles that are damaged, foreign or hostile."""

import json
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.bad_inputs.bundles import SETTINGS, change_card, change_tensors, make_bundle, trust
from tests.bad_inputs.seen import Seen, tree
from tests.vision_core.detection.synthetic import make_coco, make_voc
from tests.vision_core.toy_bundle import edit_card
from vision_core.training import checkpoint

HEAD = "roi_heads.box_predictor.cls_score"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


class Evil:
    """Touches the file ``proof`` when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("proof").absolute(),)


def zipped(folder: Path, name: str = "model.zip") -> Path:
    with zipfile.ZipFile(folder.parent / name, "w") as content:
        for path in folder.iterdir():
            content.write(path, path.name)
    return folder.parent / name


def test_sound_bundle_is_verified(seen: Seen, bundle: Path) -> None:
    for path in (bundle, zipped(bundle)):
        assert "Golden pair: relative deviation 0 " in seen.done(["verify", str(path)])


@pytest.mark.parametrize("name", ["model.pkl", "model.pth"])
@pytest.mark.parametrize(
    "argv",
    [
        ["verify", "{}"],
        ["predict", "--checkpoint", "{}", "--input", "in", "--out", "out"],
        ["evaluate", "--checkpoint", "{}"],
        ["train", "--out", "run", "source.weights={}", "data.root=in", "data.format=images"],
        ["import-weights", "{}", "--out", "imported"],
    ],
    ids=lambda argv: argv[0],
)
def test_h1__code_in_a_pickle_is_never_run(seen: Seen, tmp_path: Path, name: str, argv: list[str]) -> None:
    (tmp_path / "in").mkdir()
    if name.endswith("pth"):
        torch.save({"model": Evil()}, name)
    else:
        Path(name).write_bytes(pickle.dumps({"model": Evil()}))
    seen.refused([word.format(name) for word in argv], 2, name, "import-weights")
    assert not (tmp_path / "proof").exists()
    assert not (tmp_path / "imported").exists()


def test_h1__not_even_when_the_file_is_trusted(seen: Seen, tmp_path: Path) -> None:
    Path("model.pkl").write_bytes(pickle.dumps({"model": Evil()}))
    seen.refused(["import-weights", "model.pkl", "--out", "imported", "--i-trust-this-file"], 2, "model.pkl")
    assert not (tmp_path / "proof").exists()


def test_h1__pickle_under_the_name_of_the_weights(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    (bundle / "weights.safetensors").write_bytes(pickle.dumps(Evil()))
    trust(bundle)
    seen.refused(["verify", str(bundle)], 2, "weights.safetensors is damaged")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.safetensors"])
def test_h3__one_flipped_bit(seen: Seen, bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[-9] ^= 1
    (bundle / name).write_bytes(data)
    seen.refused(["verify", str(bundle)], 2, f"{name} has sha256 ", "Fetch the bundle again")


def test_h3__weights_of_another_bundle(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    shutil.copy(other / "weights.safetensors", bundle)
    seen.refused(["verify", str(bundle)], 2, "weights.safetensors has sha256 ")
    trust(bundle)
    seen.refused(["verify", str(bundle)], 2, "compute another output for sfod/source/")


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.safetensors"])
def test_h3__missing_file(seen: Seen, bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    seen.refused(["verify", str(bundle)], 2, f"{name} is missing")


@pytest.mark.parametrize("entry", ["../evil", "/evil", "a/../../evil", "..\\evil"])
def test_h4__zip_that_leaves_its_folder(seen: Seen, bundle: Path, tmp_path: Path, entry: str) -> None:
    with zipfile.ZipFile(zipped(bundle), "a") as content:
        content.writestr(entry, "evil")
    seen.refused(["verify", "model.zip"], 2, "leaves the folder")
    assert "evil" not in {Path(name).name for name in tree(tmp_path.parent)}


def test_h4__zip_with_a_link(seen: Seen, bundle: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zipped(bundle), "a") as content:
        content.writestr(link, "/etc/passwd")
    seen.refused(["verify", "model.zip"], 2, "entry 'link' is a link")


def test_h4__zip_bomb(seen: Seen, bundle: Path) -> None:
    with zipfile.ZipFile(zipped(bundle), "a", zipfile.ZIP_DEFLATED) as content:
        content.writestr("zeros", bytes(8 * 2**20))
    seen.refused(["verify", "model.zip"], 2, "entry 'zeros' inflates ")


def test_h4__zip_of_many_files(seen: Seen, bundle: Path) -> None:
    with zipfile.ZipFile(zipped(bundle), "a") as content:
        for number in range(10_000):
            content.writestr(str(number), "")
    seen.refused(["verify", "model.zip"], 2, "holds 10003 files, at most 10000")


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_h4__zip_that_breaks_off(seen: Seen, bundle: Path, cut: int) -> None:
    path = zipped(bundle)
    path.write_bytes(path.read_bytes()[:cut])
    seen.refused(["verify", "model.zip"], 2, "is not a whole zip")


def test_h5__card_is_missing(seen: Seen, bundle: Path) -> None:
    (bundle / "card.json").unlink()
    seen.refused(["verify", str(bundle)], 2, "has no card.json (found: golden.safetensors, weights.safetensors)")
    zipped(bundle)
    seen.refused(["verify", "model.zip"], 2, "has no card.json")


def test_h5__card_of_a_newer_version(seen: Seen, bundle: Path) -> None:
    change_card(bundle, format=3)
    seen.refused(["verify", str(bundle)], 2, "has format 3, this version reads 1 to 2. Update domainsight")


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "mean": lambda card: card["architecture"].update(pixel_mean=[1.0, 2.0, 3.0]),
    "described mean": lambda card: card["preprocessing"].update(mean=[1.0, 2.0, 3.0]),
    "std": lambda card: card["architecture"].update(pixel_std=[2.0, 2.0, 2.0]),
    "channel order": lambda card: card["architecture"].update(channel_order="bgr"),
    "size": lambda card: card["architecture"].update(shortest_edge_px=600),
    "class name": lambda card: card.update(classes=["Shrub", "Car"]),
    "order of classes": lambda card: card.update(classes=["Car", "Tree"]),
    "title": lambda card: card.update(class_titles={"Tree": "A car"}),
    "data": lambda card: card["trained_on"].update(synthetic=False),
    "score": lambda card: card.update(metrics={"test": {"coco_ap": 0.9}}),
    "threshold": lambda card: card.update(calibration={"operating_score": 0.01}),
    "seal": lambda card: card.pop("sha256"),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_an_edited_card_is_refused_by_every_verb(
    seen: Seen, bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_card(bundle, change, sealed=False)
    data = f"data.root={make_voc(tmp_path / 'data', classes=('Tree', 'Car'))}"
    given = ["--checkpoint", str(bundle)]
    for argv in (
        ["verify", str(bundle)],
        ["predict", *given, "--input", "data/JPEGImages", "--out", "out"],
        ["evaluate", *given, data, "data.eval_split=test"],
        ["export", *given, "--out", "a.onnx"],
        ["train", "--out", "run", f"source.weights={bundle}", data, "train.max_steps=1"],
        ["train", "--out", "run", f"source.weights={bundle}", data, "train.max_steps=1", "method=source"],
    ):
        seen.refused(argv, 2, "card.json was changed after it was written", "Fetch the bundle again")
    assert not any(Path(name).exists() for name in ("out", "a.onnx", "run"))


def test_a_card_that_names_a_key_twice_or_begins_with_a_mark(seen: Seen, bundle: Path) -> None:
    text = (bundle / "card.json").read_text(encoding="utf-8")
    predict = ["predict", "--checkpoint", str(bundle), "--input", str(bundle), "--out", "out"]
    (bundle / "card.json").write_text(text.replace('"task":', '"task": "sfod", "task":', 1), encoding="utf-8")
    for argv in (["verify", str(bundle)], predict):
        seen.refused(argv, 2, "an object names the key 'task' twice")
    (bundle / "card.json").write_text(text, encoding="utf-8-sig")
    for argv in (["verify", str(bundle)], predict):
        seen.refused(argv, 2, "card.json is not JSON (it begins with a byte order mark")


def test_format_1_passed_off_by_an_edit(seen: Seen, bundle: Path) -> None:
    edit_card(bundle, lambda card: card.update(format=1), sealed=False)
    seen.refused(["verify", str(bundle)], 2, "card.json was changed after it was written")
    edit_card(bundle, lambda card: card.pop("sha256"), sealed=False)
    seen.refused(["verify", str(bundle)], 2, "golden.safetensors is of format 2: the card was changed")


def test_h5__label_map_is_not_that_of_the_head(seen: Seen, bundle: Path) -> None:
    change_card(bundle, classes=["Tree"])
    seen.refused(["verify", str(bundle)], 2, "card.json lists 1 classes", f"'{HEAD}' has 2")


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ({"layers": 3}, "It is no detector's card"),
        (SETTINGS.model_dump(mode="json") | {"fpn_channels": 16}, "The weights do not fit the architecture"),
        (SETTINGS.model_dump(mode="json") | {"neck": "c4"}, "the architecture cannot be built"),
    ],
)
def test_h5__architecture_is_not_that_of_the_weights(
    seen: Seen, bundle: Path, architecture: dict[str, object], told: str
) -> None:
    change_card(bundle, architecture=architecture)
    seen.refused(["verify", str(bundle)], 2, told)


def test_h5__bundle_of_another_task(seen: Seen, bundle: Path) -> None:
    change_card(bundle, task="wsi")
    seen.refused(["verify", str(bundle)], 2, "is of pipeline 'wsi', not 'sfod'")


def test_h5__backbone_without_a_head(seen: Seen, bundle: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: tensor for name, tensor in load_file(bundle / "weights.safetensors").items() if "roi" not in name}
    save_file(weights, bundle / "weights.safetensors")
    trust(bundle)
    seen.refused(["verify", str(bundle)], 2, "has no detector head", "it is a backbone")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_h7__number_that_is_none_in_the_weights(seen: Seen, bundle: Path, number: float) -> None:
    change_tensors(bundle, {f"{HEAD}.bias": torch.tensor([0.0, number, 0.0])})
    seen.refused(["verify", str(bundle)], 2, f"NaN or infinity in 1 tensors, first '{HEAD}.bias'")


def test_h9__another_answer(seen: Seen, bundle: Path) -> None:
    golden = load_file(bundle / "golden.safetensors")
    change_tensors(bundle, {"output.logits": golden["output.logits"] * 1.1}, "golden.safetensors")
    seen.refused(["verify", str(bundle)], 2, "another output", "relative deviation 0.09", "at most 0.01")


def test_h9__slightly_different_answer_is_a_warning(seen: Seen, bundle: Path) -> None:
    golden = load_file(bundle / "golden.safetensors")
    change_tensors(bundle, {"output.logits": golden["output.logits"] * 1.005}, "golden.safetensors")
    assert "warning: this machine computes visibly different values" in seen.done(["verify", str(bundle)])


def test_h9__golden_pair_that_proves_nothing(seen: Seen, bundle: Path) -> None:
    golden = load_file(bundle / "golden.safetensors")
    change_tensors(bundle, {"output.logits": golden["output.logits"] * float("nan")}, "golden.safetensors")
    seen.refused(["verify", str(bundle)], 2, "another output")


def test_h10__bundle_made_on_a_gpu(seen: Seen, bundle: Path) -> None:
    change_card(bundle, device="cuda:0")
    assert "hashes and numbers are sound" in seen.done(["verify", str(bundle), "--device", "cpu"])


def test_h10__run_checkpoint_saved_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no GPU here: the tag that one leaves on a saved tensor is put there by hand.
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    checkpoint.save(tmp_path, {"config": {}, "learner": {"weight": torch.ones(3)}})
    found = checkpoint.load(tmp_path, {})
    assert found is not None
    assert found["learner"]["weight"].device.type == "cpu"


def test_a_run_given_for_its_bundle(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    for name in ("best", "model"):
        shutil.copytree(bundle, tmp_path / "run" / name)
    seen.refused(["verify", "run"], 2, "it is not a bundle. Give 'run/model'.")


@pytest.mark.parametrize("path", ["absent", "absent.zip", "a" * 300])
def test_missing_bundle(seen: Seen, path: str) -> None:
    seen.refused(["verify", path], (2, 5), path[:50])


def _fine_tuned(seen: Seen, bundle: Path, out: str, *words: str) -> tuple[bytes, str]:
    """One step on labels, from the bundle: the weights that it delivers, and what was told."""
    start = ["train", "--out", out, f"source.weights={bundle}", "method=source", "train.max_steps=1", "optim.lr=0.01"]
    told = seen.done([*start, "optim.clip_norm=1", "strong_view.kind=none", "teacher.keep_rate=0", *words])
    return (Path(out) / "model" / "weights.safetensors").read_bytes(), told


def test_classes_in_another_order_are_matched_by_name(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    """The labels give `Car, Tree`, sorted; the bundle's logits are `Tree, Car`."""
    data = f"data.root={make_voc(tmp_path / 'data', classes=('Tree', 'Car'))}"
    right, _ = _fine_tuned(seen, bundle, "right", data, "data.classes=[Tree,Car]")
    for out, words in (("unsaid", ()), ("turned", ("data.classes=[Car,Tree]",))):
        found, told = _fine_tuned(seen, bundle, out, data, *words)
        assert found == right
        assert json.loads((Path(out) / "model" / "card.json").read_text())["classes"] == ["Tree", "Car"]
        assert "'Tree, Car', in the order of the bundle; the data's 'Car, Tree' are matched by name" in told


def test_classes_that_are_a_part_of_the_bundles_keep_their_heads(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    data = f"data.root={make_voc(tmp_path / 'data', classes=('Car',))}"
    right, _ = _fine_tuned(seen, bundle, "right", data, "data.classes=[Tree,Car]")
    assert _fine_tuned(seen, bundle, "unsaid", data)[0] == right


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["train", "dry-run"])
def test_classes_of_other_names_are_refused(seen: Seen, bundle: Path, tmp_path: Path, dry: list[str]) -> None:
    data = f"data.root={make_voc(tmp_path / 'data', classes=('bus', 'tram'))}"
    start = ["train", "--out", "run", *dry, f"source.weights={bundle}", data]
    seen.refused([*start, "method=source"], 2, "model' detects 'Tree, Car', the labels name 'bus, tram'")
    other = "model' detects 'Tree, Car', data.classes names 'bus'"
    seen.refused([*start, "method=source", "data.classes=[Tree,bus]"], 2, other)
    seen.refused([*start, "method=mt", "data.classes=[Tree,bus]"], 2, other)
    assert not (tmp_path / "run").exists()


def test_classes_of_other_names_are_found_by_validate(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    data = make_coco(tmp_path / "data", classes=("bus", "Tree"))
    words = [f"data.root={data}", "data.format=coco", f"source.weights={bundle}"]
    seen.refused(["validate", "method=source", *words], 2, "the labels name 'bus'")
    seen.refused(["validate", "method=mt", "data.classes=[bus,Tree]", *words], 2, "data.classes names 'bus'")


def test_adaptation_keeps_the_order_of_the_bundle(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    data = make_voc(tmp_path / "data", classes=("Tree", "Car"))
    words = [f"source.weights={bundle}", f"data.root={data}", "data.classes=[Car,Tree]", "train.epochs=1"]
    words += ["pseudo_labels.on_nothing=continue"]
    told = seen.done(["train", "--out", "run", "method=mt", "data.eval_split=test", *words])
    assert "in the order of the bundle; the data's 'Car, Tree'" in told
    assert json.loads(Path("run/model/card.json").read_text())["classes"] == ["Tree", "Car"]


def test_evaluate_refuses_a_class_that_the_model_lacks(seen: Seen, bundle: Path, tmp_path: Path) -> None:
    data = make_voc(tmp_path / "data", classes=("Tree", "bus"))
    words = ["--checkpoint", str(bundle), f"data.root={data}", "data.eval_split=test"]
    told = ("'bus' is not detected by", "whose classes are 'Tree, Car'")
    seen.refused(["evaluate", *words, "data.classes=[Tree,bus]"], 2, *told)
