"""The matrix for what models come from and are made of: feature files, weights of other programs, bundles."""

import shutil
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.pretrain.__main__ import main as pretrain
from pipelines.sfod.__main__ import main as sfod
from pipelines.wsi.__main__ import main as wsi
from tests.bad_inputs import feature_files as features
from tests.bad_inputs import weight_files as weights
from tests.bad_inputs.bundles import change_card, change_tensors, make_bundle
from tests.bad_inputs.matrix import Entry, Kind, Main, Verb, Words, assert_told, cases, classifier, kept
from tests.bad_inputs.seen import Seen
from tests.pipelines.pretrain import tiny as tiny_pretrain
from tests.pipelines.sfod import tiny as tiny_sfod
from tests.pipelines.wsi import tiny as tiny_wsi
from tests.vision_core.bundles.test_bundle import as_format_1
from tests.vision_core.detection.synthetic import make_voc
from vision_core.backbones.networks import build_backbone

ROWS = "NaN or infinity in 1 of 9 rows, first 3. Extract it again."
FEATURES: list[tuple[Callable[[Path], Path], str]] = [
    (features.empty, "is empty. Extract the features again"),
    (features.web_page, "is a web page, not features"),
    (features.pointer, "is a Git LFS pointer, not the features"),
    (features.half, "is damaged or no HDF5 file"),
    (features.flipped, "does not have the sum that was written with it"),
    (features.infinite_half, ROWS),
    (features.not_a_number, ROWS),
    (features.beyond_float32, ROWS),
    (features.whole_numbers, r"features have shape \(9, 6\) and type uint8; expected floats"),
    (features.one_axis, r"features have shape \(6,\) and type float32"),
    (features.turned, "has 9 features a tile, (?:the model takes|most files have) 6"),
    (features.fewer_corners, "9 rows of features, but 8 coords"),
    (features.turned_corners, r"coords have shape \(2, 9\)"),
    (features.no_rows, "has no data set 'features'; it holds 'embeddings_of_what'"),
    (features.code, "may be a pickle of objects"),
    (features.pickled, "is no PyTorch file, or a pickle of objects"),
    (features.other_microns, "mpp is '1.0'|tiles of 1 microns per pixel, the model was trained on 0.5"),
]
OTHER = {
    "wsi": "expected a released MHIM-MIL v1",
    "sfod": "has no detector head; this is a backbone",
    "pretrain": "has '0%' of the tensors of",
}
OTHER_BACKBONE = "shares no tensor with a r18 backbone"
WEIGHTS: list[tuple[weights.Spoil, str]] = [
    (weights.empty, "is damaged or no PyTorch file"),
    (weights.web_page, "is a web page, not weights"),
    (weights.pointer, "is a Git LFS pointer"),
    (weights.half, "breaks off"),
    (weights.flipped_bit, r"does not have the sum \(CRC-32\) that the file states"),
    (weights.code, "could run code when it is read"),
    (weights.counters, "holds no tensors by name"),
    (weights.not_a_number, "NaN or infinity in [0-9]+ tensors"),
    (weights.whole_numbers, "hold 'int8' and no scales: quantised weights"),
    (weights.overflowing, "output is not finite .on the golden input., while its input is sound"),
]
BUNDLES: list[tuple[weights.Spoil, str]] = [
    (weights.broken_weights, "weights.safetensors has sha256 .*, the card says"),
    (weights.without_weights, "weights.safetensors is missing"),
    (weights.without_golden_pair, "golden.safetensors is missing"),
    (weights.without_card, "has no card.json"),
    (weights.half_a_card, "card.json is not JSON"),
    (weights.edited_card, "card.json was changed after it was written"),
    (weights.newer_format, "has format 3, this version reads 1 to 2"),
    (weights.passed_off_as_format_1, "is of format 2: the card was changed"),
    (weights.one_class_less, "lists . classes|with 1 classes|has the classes normal, the data|trained on 2 classes"),
    (weights.not_a_number_inside, "NaN or infinity in 1 tensors"),
    (weights.pickle_inside, "weights.safetensors is damaged"),
]


@cache
def _bag_model() -> Path:
    return tiny_wsi.make_bundle(kept() / "model", tiny_wsi.DIM, preprocessing={"mpp": 0.5, "tile_px": 64})


@cache
def _detector() -> Path:
    return make_bundle(kept() / "model")


@cache
def _data(task: str) -> Path:
    """Sound data of a task, for a verb that should not come to it."""
    folder = kept() / "data"
    match task:
        case "sfod":
            return make_voc(folder, classes=("Tree", "Car"))
        case "pretrain":
            return tiny_pretrain.make_folders(folder)
        case _:
            return tiny_wsi.make_features(folder)


def _backbone(folder: Path) -> Path:
    """A ResNet-18 as torchvision saves it."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(build_backbone("resnet18", 3).state_dict(), folder / "resnet18.pth")
    return folder / "resnet18.pth"


def _features_words(path: Path) -> Words:
    return [f"data.root={path.parents[1]}", *tiny_wsi.FEATURE_WORDS]


FEATURE_FILES = Kind(
    name="feature file",
    makes_folder=True,
    entries=[Entry(make, line) for make, line in FEATURES],
    verbs=[
        Verb(
            "predict",
            wsi,
            lambda path, work: ["predict", f"--checkpoint={_bag_model()}", f"--input={path}", f"--out={work}/out"],
            3,
        ),
        Verb(
            "evaluate",
            wsi,
            lambda path, work: ["evaluate", f"--checkpoint={_bag_model()}", f"data.root={path.parents[1]}",
                                "data.format=features", "data.eval_split=val"],
            2,
        ),
        Verb("validate", wsi, lambda path, work: ["validate", *_features_words(path)], (4, 2)),
        Verb(
            "train",
            wsi,
            lambda path, work: ["train", f"--out={work}/run", "method=plain", *_features_words(path)],
            2,
        ),
    ],
)  # fmt: skip


def _spoilt(name: str, make: Callable[[Path], Path], spoil: weights.Spoil) -> Callable[[Path], Path]:
    @wraps(spoil)
    def made(folder: Path) -> Path:
        path = make(folder)
        spoil(path)
        return path

    return made


def _weights(name: str, main: Main, make: Callable[[Path], tuple[Path, Words]]) -> Kind:
    spoils = [*WEIGHTS, (weights.other_network, OTHER[name])]
    classes = {"wsi": ["data.classes=[normal,tumour]"], "sfod": ["data.classes=[disc,square]"], "pretrain": []}[name]
    return Kind(
        name=f"weights for {name}",
        makes_folder=True,
        entries=[Entry(_spoilt(name, lambda folder: make(folder)[0], spoil), line) for spoil, line in spoils],
        verbs=[
            Verb(
                "import-weights",
                main,
                lambda path, work: ["import-weights", str(path), f"--out={work}/model", *classes],
                2,
            )
        ],
        is_slow=name != "wsi",  # they read them through the same functions
    )


ON_RESNET = ["method=source", "detector.backbone=r18", "detector.neck=fpn", "detector.pool_size=7",
             "detector.anchor_sizes=[[32],[64],[128],[256],[512]]"]  # fmt: skip


def _sources(name: str, main: Main, make: Callable[[Path], Path], words: Callable[[], Words]) -> Kind:
    """Weights of another program as what a run starts from, without ``import-weights``."""
    refused = "Give a folder|import-weights first|is a file, not a bundle"
    found = {"sfod": dict(WEIGHTS[:-1]) | {weights.other_network: OTHER_BACKBONE}}.get(name)
    spoils = list(found.items()) if found else [(spoil, refused) for spoil, _ in WEIGHTS]
    return Kind(
        name=f"source weights of {name}",
        makes_folder=True,
        entries=[Entry(_spoilt(name, make, spoil), line) for spoil, line in spoils],
        verbs=[
            Verb("validate", main, lambda path, work: ["validate", f"source.weights={path}", *words()], 2),
            Verb(
                "train",
                main,
                lambda path, work: ["train", f"--out={work}/run", f"source.weights={path}", *words()],
                2,
            ),
        ],
    )


def _bundles(name: str, main: Main, sound: Callable[[], Path], words: Mapping[str, Callable[[], Words]]) -> Kind:
    def make(folder: Path) -> Path:
        return Path(shutil.copytree(sound(), folder / "model"))

    def argv(verb: str) -> Callable[[Path, Path], Words]:
        out = {"predict": "out", "export": "model.onnx"}.get(verb)
        return lambda bundle, work: [
            verb, *([f"--checkpoint={bundle}"] if verb != "train" else [f"source.weights={bundle}"]), *words[verb](),
            *([f"--out={work}/{out}"] if out else []), *([f"--out={work}/run"] if verb == "train" else []),
        ]  # fmt: skip

    verbs = [Verb("verify", main, lambda bundle, work: ["verify", str(bundle)], 2)]
    return Kind(
        name=f"bundle of {name}",
        entries=[Entry(_spoilt(name, make, spoil), line) for spoil, line in BUNDLES],
        verbs=[*verbs, *(Verb(verb, main, argv(verb), 2) for verb in words)],
    )


WORDS: Mapping[str, tuple[Main, Callable[[], Path], Mapping[str, Callable[[], Words]]]] = {
    "sfod": (
        sfod,
        _detector,
        {
            "predict": lambda: [f"--input={_data('sfod')}/JPEGImages"],
            "evaluate": lambda: [f"data.root={_data('sfod')}", "data.eval_split=test"],
            "export": lambda: ["--format=onnx"],
            "train": lambda: [f"data.root={_data('sfod')}"],
        },
    ),
    "wsi": (
        wsi,
        _bag_model,
        {
            "predict": lambda: [f"--input={_data('wsi')}/features"],
            "evaluate": lambda: [f"data.root={_data('wsi')}", "data.format=features"],
            "export": lambda: ["--format=onnx"],
            "train": lambda: [f"data.root={_data('wsi')}", *tiny_wsi.FEATURE_WORDS],
        },
    ),
    "pretrain": (
        pretrain,
        classifier,
        {
            "predict": lambda: [f"--input={_data('pretrain')}/val/dark"],
            "evaluate": lambda: tiny_pretrain.words(_data("pretrain")),
            "export": lambda: ["--format=onnx"],
            "train": lambda: ["method=finetune", *tiny_pretrain.words(_data("pretrain"))],
        },
    ),
}
KINDS = [
    FEATURE_FILES,
    _weights("wsi", wsi, tiny_wsi.make_foreign),
    _weights("sfod", sfod, tiny_sfod.make_foreign),
    _weights("pretrain", pretrain, tiny_pretrain.make_foreign),
    _sources("sfod", sfod, _backbone, lambda: [*WORDS["sfod"][2]["train"](), *ON_RESNET]),
    _sources("wsi", wsi, lambda folder: tiny_wsi.make_foreign(folder)[0], lambda: WORDS["wsi"][2]["train"]()),
    _sources(
        "pretrain",
        pretrain,
        lambda folder: tiny_pretrain.make_foreign(folder)[0],
        lambda: WORDS["pretrain"][2]["train"](),
    ),
    *(_bundles(name, *of_task) for name, of_task in WORDS.items()),
]


@pytest.mark.parametrize(("kind", "verb", "entry"), cases(KINDS))
def test_museum(kind: Kind, verb: Verb, entry: Entry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert_told(kind, verb, entry, tmp_path, capfd)
    assert not Path(weights.PROOF).exists()
    assert not list((tmp_path / "work").glob("model*"))


@pytest.mark.parametrize(
    "verb", ["verify", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("predict", "evaluate"))]
)
@pytest.mark.parametrize("task", WORDS)
def test_format_1__is_read_by_every_verb_with_one_line(
    task: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, sound, words = WORDS[task]
    bundle = Path(shutil.copytree(sound(), tmp_path / "model"))
    as_format_1(bundle)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    given = [str(bundle)] if verb == "verify" else [f"--checkpoint={bundle}", *words[verb]()]
    told = Seen(main, capsys).done([verb, *given, *([f"--out={tmp_path}/out"] if verb == "predict" else [])])
    assert told.count("is of format 1: its card has no seal, so edits cannot be seen.") == 1
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


@pytest.mark.parametrize("verb", ["verify", "predict", "evaluate", "export"])
@pytest.mark.parametrize("task", WORDS)
def test_bundle_of_another_task__is_refused_by_every_verb(
    task: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, _, words = WORDS[task]
    other, (_, bundle, _) = next((name, of_task) for name, of_task in WORDS.items() if name != task)
    given = [str(bundle())] if verb == "verify" else [f"--checkpoint={bundle()}", *words[verb]()]
    out = {"predict": [f"--out={tmp_path}/out"], "export": [f"--out={tmp_path}/out.onnx"]}.get(verb, [])
    Seen(main, capsys).refused([verb, *given, *out], 2, f"is of pipeline '{other}', not '{task}'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["validate", "train"])
@pytest.mark.parametrize("other", WORDS)
@pytest.mark.parametrize("task", WORDS)
def test_start_from_a_bundle_of_another_task__is_refused(
    task: str, other: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the network would fit, and the card's task alone is another."""
    main, _, words = WORDS[task]
    bundle = Path(shutil.copytree(WORDS[other][1](), tmp_path / "model"))
    if task == other:
        change_card(bundle, task="ultrasound")
    out = [f"--out={tmp_path}/run"] if verb == "train" else []
    told = "holds a classifier" if (task, other) == ("sfod", "pretrain") else "is of pipeline"
    Seen(main, capsys).refused([verb, f"source.weights={bundle}", *words["train"](), *out], 2, told)
    assert not (tmp_path / "run").exists()


def test_start_from_a_sound_backbone_of_torchvision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The words that every spoilt one is refused with are those that a sound one is taken with."""
    given = [f"source.weights={_backbone(tmp_path / 'in')}", *WORDS["sfod"][2]["train"](), *ON_RESNET]
    Seen(sfod, capsys).done(["validate", *given])
    assert "torchvision" in Seen(sfod, capsys).done(["train", f"--out={tmp_path}/run", "--dry-run", *given])


def test_classifier_of_another_task__gives_no_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Path(shutil.copytree(classifier(), tmp_path / "model"))
    change_card(bundle, task="wsi")
    given = [f"source.weights={bundle}", "method=transfer", *tiny_pretrain.words(_data("pretrain"))]
    for verb in (["validate"], ["train", f"--out={tmp_path}/run"]):
        Seen(pretrain, capsys).refused([*verb, *given], 2, "is of pipeline 'wsi', not 'pretrain'")


@pytest.mark.parametrize("verb", ["predict", pytest.param("evaluate", marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", WORDS)
def test_bundle_of_a_training_that_diverged__is_no_empty_result(
    task: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finite weights whose outputs are not: detectron2 by itself leaves such boxes out, as if nothing was there."""
    main, sound, words = WORDS[task]
    bundle = Path(shutil.copytree(sound(), tmp_path / "model"))
    tensors = load_file(bundle / "weights.safetensors")
    change_tensors(bundle, {name: each * 1e30 for name, each in tensors.items() if each.is_floating_point()})
    argv = [verb, f"--checkpoint={bundle}", *words[verb](), *([f"--out={tmp_path}/out"] if verb == "predict" else [])]
    assert main(argv) == 2
    assert "error[CHECKPOINT] The network's output is not finite (" in capsys.readouterr().err
