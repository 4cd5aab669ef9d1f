"""The command, on features of a real slide by the shipped encoder, written as CLAM writes them."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.wsi.cohort.labels import read_labels
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.verbs import OWN
from tests.pipelines.wsi.adoption.foreign import make_clam, make_trident, patch_attributes, write_h5, write_splits
from tests.pipelines.wsi.lists import write_list
from tests.vision_core.slides.tiffs import Kind, pyramid, tissue, write_tiff
from vision_core.commands.main import run
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.encoders.networks import build_encoder
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.reading.slide import open_slide
from vision_core.slides.settings import EncoderSettings

CORNERS = np.array([[0, 0], [64, 0], [128, 64], [192, 128]], np.int64)


def _main(*argv: str | Path) -> int:
    def build() -> object:
        raise AssertionError("adopt builds no pipeline")

    return run(WsiConfig, build, ["adopt", *map(str, argv)], OWN)


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    return build_encoder(EncoderSettings(), precision="off")


@pytest.fixture
def clam(tmp_path: Path, lite0: Encoder) -> Path:
    """One slide of 0.5 microns, tiles of 64 px, and CLAM's files of it."""
    (tmp_path / "slides").mkdir()
    slide_path = write_tiff(tmp_path / "slides" / "a.tif", pyramid(tissue((320, 320))), Kind())
    with open_slide(slide_path) as slide:
        tiles = np.stack([slide.read(0, int(x), int(y), 64, 64) for x, y in CORNERS])
    features = lite0.encode(tiles).numpy()
    folder = tmp_path / "clam"
    write_h5(folder / "h5_files" / "a.h5", {"features": features, "coords": CORNERS.astype(np.int32)}, {})
    write_h5(folder / "patches" / "a.h5", {"coords": CORNERS}, patch_attributes(patch_size=64))
    return folder


def test_adopt__encodes_again_and_keeps_the_identity(
    clam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lite0: Encoder
) -> None:
    code = _main("--clam", clam, "--out", tmp_path / "ours", f"data.root={tmp_path / 'slides'}", "encoder.name=lite0")
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "Tiles of 1 slides encoded again are alike: lowest cosine" in told.out
    assert "Microns per pixel of 1 slides' tiles by the slide: 0.5." in told.out
    assert f"data.root={tmp_path / 'ours'} data.format=features" in told.out
    attributes = read_any_features(tmp_path / "ours" / "features" / "a.adopted.json").attributes
    assert attributes["encoder"]["weights"] == lite0.identity["weights"]
    assert (attributes["mpp"], attributes["tile_px"], attributes["tile_side"]) == (0.5, 64, 64)


def test_adopt__features_of_other_tiles_than_said(
    clam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = np.random.default_rng(0).normal(size=(4, 1280)).astype(np.float32)
    write_h5(clam / "h5_files" / "a.h5", {"features": other, "coords": CORNERS}, {})
    code = _main("--clam", clam, "--out", tmp_path / "ours", f"data.root={tmp_path / 'slides'}", "encoder.name=lite0")
    assert code == 2
    assert "encoded again by lite0 are unlike its features" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_adopt__features_of_another_width(clam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_h5(clam / "h5_files" / "a.h5", {"features": np.ones((4, 1024), np.float32), "coords": CORNERS}, {})
    code = _main("--clam", clam, "--out", tmp_path / "ours", f"data.root={tmp_path / 'slides'}", "encoder.name=lite0")
    assert code == 2
    assert "have '1024' values a tile, lite0 gives 1280" in capsys.readouterr().err


def test_adopt__what_is_missing_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_clam(tmp_path / "clam", {"a": 2, "b": 2})
    assert _main("--clam", folder, "--out", tmp_path / "ours") == 2
    told = capsys.readouterr().err
    assert told.count("error[DATA]") == 1
    assert "encoder.name=" in told and "tiles.mpp=" in told


def test_adopt__trident_with_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_trident(tmp_path / "trident", {"a": 2, "b": 2})
    labels = write_list(tmp_path, ["slide;label", "a;0", "b;1"])
    words = [f"data.labels={labels}", "data.classes=[normal, tumor]"]
    assert _main("--trident", folder, "--out", tmp_path / "our files", *words) == 0
    labels = tmp_path / "our files" / "labels.csv"
    assert [each.label for each in read_labels(labels, ("normal", "tumor")).slides] == [0, 1]
    told = capsys.readouterr().out
    assert "Not checked by encoding tiles again" in told
    quoted = shlex.quote(f"data.root={tmp_path / 'our files'}")
    assert told.endswith(f"train {quoted} data.format=features data.protocol=stratified\n")


def test_adopt__how_to_go_on_follows_from_what_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("encoder.name=uni", "tiles.mpp=0.5")
    folds = make_clam(tmp_path / "folds", {"a": 2, "b": 2})
    write_splits(folds, 0, ["a"], [], ["b"])
    write_splits(folds, 1, ["b"], [], ["a"])
    unlabelled = make_clam(tmp_path / "unlabelled", {"a": 2, "b": 2})
    (unlabelled / "dataset_csv" / "task.csv").unlink()
    for source, end in ((folds, "data.folds=2"), (unlabelled, "data.labels=LABELS.csv")):
        assert _main("--clam", source, "--out", source / "ours", *words) == 0
        assert capsys.readouterr().out.endswith(f" data.format=features {end}\n")


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda out: None, [], "one of the arguments --clam --trident is required"),
        (lambda out: out.mkdir(), ["--clam", "SOURCE/clam"], "is no folder"),
        (lambda out: write_list(out, ["mine"], "notes.txt"), ["--clam", "SOURCE"], "is not empty"),
        (lambda out: out.write_text("x"), ["--clam", "SOURCE"], "is a file; give a folder"),
    ],
)
def test_adopt__refused(
    prepare: Callable[[Path], object],
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make_clam(tmp_path / "source", {"a": 2, "b": 2})
    out = tmp_path / "ours"
    prepare(out)
    assert _main(*(each.replace("SOURCE", str(source)) for each in options), "--out", out) == 2
    assert message in capsys.readouterr().err


def test_adopt__never_over_what_is_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_clam(tmp_path / "clam", {"a": 2, "b": 2})
    for out in (source, tmp_path):
        assert _main("--clam", source, "--out", out, "--overwrite", "encoder.name=uni", "tiles.mpp=0.5") == 2
        assert "holds what is adopted, which stays as it is" in capsys.readouterr().err


def test_adopt__again_with_other_words(tmp_path: Path) -> None:
    source = make_clam(tmp_path / "clam", {"a": 2, "b": 2})
    out = source / "ours"  # below what is adopted, and passed over the second time
    assert _main("--clam", source, "--out", out, "encoder.name=uni", "tiles.mpp=0.5") == 0
    assert _main("--clam", source, "--out", out, "--overwrite", "encoder.name=uni", "tiles.mpp=1.0") == 0
    assert read_any_features(out / "features" / "a.adopted.json").attributes["mpp"] == 1.0


def test_adopt__a_folder_of_somebody_is_never_overwritten(
    clam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    write_list(own, ["slide,label,patient", "a,x,p1"])
    before = (own / "labels.csv").read_bytes()
    words = ["encoder.name=resnet50", "tiles.mpp=0.5"]
    assert _main("--clam", clam, "--out", own, "--overwrite", *words) == 2
    assert "is of no earlier adoption" in capsys.readouterr().err
    assert (own / "labels.csv").read_bytes() == before
