"""Features that other programs made, or that were changed or damaged: right, refused, or told."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines.wsi.__main__ import main
from pipelines.wsi.predict import WsiPredictor, columns
from tests.bad_inputs.seen import Seen
from tests.pipelines.wsi.tiny import DIM, FEATURE_WORDS, make_bundle, make_features
from vision_core.errors import InputError
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import Features, read_features, write_features
from vision_core.slides.features.grids import grid_step
from vision_core.slides.outputs.heatmap import heatmap_caption

ENCODER = {"name": "lite0", "input_px": 64, "weights": "ab" * 32, "mean": [1.0, 2.0, 3.0]}


def grid(side: int, columns: int = 4, rows: int = 3, first: tuple[int, int] = (32, 32)) -> NDArray[np.int64]:
    ys, xs = np.mgrid[:rows, :columns]
    return np.asarray(np.stack([xs.ravel(), ys.ravel()], axis=1) * side + np.array(first), np.int64)


def write(
    path: Path,
    coords: NDArray[Any] | None,
    of_coords: Mapping[str, Any] | None = None,
    **others: Any,  # noqa: ANN401
) -> Path:
    """A file of another program; ``others`` are data sets."""
    with h5py.File(path, "w") as file:
        count = 12 if coords is None else len(coords)
        file[others.pop("rows", "features")] = np.random.default_rng(0).normal(size=(count, DIM)).astype("f4")
        if coords is not None:
            file["coords"] = coords
            file["coords"].attrs.update(of_coords or {})
        for name, value in others.items():
            if name == "attributes":
                file.attrs.update(value)
            else:
                file[name], attributes = value
                file[name].attrs.update(attributes)
    return path


def _sides(features: Features) -> tuple[object, object]:
    return features.attributes.get("tile_px"), features.attributes.get("tile_side")


PATCHES = {"patch_size": 512, "patch_level": 0, "downsample": np.array([1.0, 1.0])}
IMAGES = (np.zeros((12, 256, 256, 3), "u1"), {"patch_level": 1, "downsample": np.array([4.0, 4.0])})


@pytest.mark.parametrize(
    ("said", "sides"),
    [
        (PATCHES, (512, 512)),
        (PATCHES | {"custom_downsample": 2}, (256, 512)),
        (PATCHES | {"target_patch_size": np.array([224, 224])}, (224, 512)),
        (PATCHES | {"target_patch_size": -1}, (512, 512)),
        ({"patch_size": 256, "patch_level": 1, "downsample": 2.0000021}, (256, 512)),
        ({"patch_size": "256", "patch_level": "1", "downsample": np.array([2.0, 2.0])}, (256, 512)),
        ({"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40}, (256, 512)),
    ],
)
def test_scale__as_the_file_says_it(said: Mapping[str, Any], sides: tuple[int, int], tmp_path: Path) -> None:
    found = read_features(write(tmp_path / "a.h5", grid(512), said))
    assert _sides(found) == sides and found.notes == ()
    assert found.coords is not None
    np.testing.assert_array_equal(found.coords, grid(512))


@pytest.mark.parametrize(
    ("said", "scale", "side"),
    [
        ({}, 4, 1024),
        ({"custom_downsample": 2}, 8, 2048),
        ({"level_dim": (8000, 6000), "downsampled_level_dim": (4000, 3000)}, 8, 2048),
    ],
)
def test_scale__corners_of_the_first_clam_are_in_pixels_of_their_level(
    said: Mapping[str, Any], scale: int, side: int, tmp_path: Path
) -> None:
    images = (IMAGES[0], {**IMAGES[1], **said})
    found = read_features(write(tmp_path / "a.h5", grid(256), imgs=images))
    assert _sides(found) == (256, side)
    assert found.coords is not None and found.coords[0].tolist() == [32 * scale, 32 * scale]
    np.testing.assert_array_equal(found.coords, grid(256) * scale)
    assert f"{scale} times reduced were multiplied" in found.notes[0]


def test_scale__the_first_clam_without_a_level_draws_nothing(tmp_path: Path) -> None:
    found = read_features(write(tmp_path / "a.h5", grid(256), imgs=(IMAGES[0], {})))
    assert found.coords is None and "not of which level they are" in found.notes[0]


def test_scale__tiles_closer_than_they_are_large_draw_nothing(tmp_path: Path) -> None:
    said = {"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0])}
    found = read_features(write(tmp_path / "a.h5", grid(256), said))
    assert found.coords is None and "only 256 px apart" in found.notes[0]
    found = read_features(write(tmp_path / "b.h5", grid(1024), said))
    assert found.coords is not None and _sides(found) == (256, 1024)


def test_scale__without_attributes_it_is_that_of_the_grid_or_none(tmp_path: Path) -> None:
    found = read_features(write(tmp_path / "a.h5", grid(448)))
    assert _sides(found) == (None, 448) and "448 px of level 0 were inferred from their grid" in found.notes[0]
    scattered = np.random.default_rng(0).integers(0, 10_000, (12, 2))
    for number, corners in enumerate((scattered, scattered[:1])):
        found = read_features(write(tmp_path / f"{number}.h5", corners))
        assert found.coords is None and found.notes[0].endswith("no tiles are drawn.")


def test_scale__corners_outside_the_slide_draw_nothing(tmp_path: Path) -> None:
    for number, said in enumerate((PATCHES, {})):
        found = read_features(write(tmp_path / f"{number}.h5", grid(512, first=(-512, 0)), said))
        assert found.coords is None
        assert found.notes == ("Corners from x -512, y 0 on lie outside the slide: no tiles are drawn.",)


def test_scale__tiles_at_one_place_draw_nothing(tmp_path: Path) -> None:
    found = read_features(write(tmp_path / "a.h5", np.full((12, 2), 256), PATCHES))
    assert found.coords is None and found.notes == ("All 12 tiles lie at one place: no tiles are drawn.",)


def test_content__the_same_features_in_all_tiles_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_features(tmp_path)
    path = tmp_path / "features" / "s1.h5"
    write_features(path, Features(features=np.ones((9, DIM), np.float32), coords=None, attributes={}))
    seen, words = Seen(main, capsys), [f"data.root={tmp_path}", *FEATURE_WORDS]
    told = "THE SAME FEATURES IN ALL TILES of 1 slides: did their encoder fail? (s1)"
    assert told in seen.done(["validate", *words])
    assert told in seen.done(["train", "--out", str(tmp_path / "run"), *words, "method=plain", "--dry-run"])
    evaluate = ["evaluate", "--checkpoint", str(known_bundle(tmp_path)), *words, "data.eval_split=train"]
    assert told in seen.done(evaluate)


def test_scale__microns_of_stamp(tmp_path: Path) -> None:
    said = {"unit": "um", "tile_size_um": 256.0, "tile_size_px": 224, "extractor": "ctranspath"}
    found = read_features(write(tmp_path / "a.h5", grid(256) * 0.5, attributes=said, rows="feats"))
    assert found.coords is None and "written in microns" in found.notes[0]
    assert found.attributes["mpp"] == pytest.approx(256 / 224) and found.attributes["tile_px"] == 224


def test_grid_step__of_random_grids_with_gaps_and_offsets() -> None:
    for seed in range(40):
        generator = np.random.default_rng(seed)
        side = int(generator.integers(64, 2048))
        parts = [grid(side, 6, 5, tuple(generator.integers(0, 50_000, 2).tolist())) for _ in range(3)]
        corners = np.concatenate(parts)[generator.random(90) > 0.15]
        assert grid_step(generator.permutation(corners)) == side


# What a model makes of them


def known_bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "model", DIM, preprocessing={"encoder": ENCODER, "mpp": 0.5, "tile_px": 128})


def _stated(tmp_path: Path, **attributes: Any) -> Path:  # noqa: ANN401
    rows = np.random.default_rng(0).normal(size=(12, DIM)).astype("f4")
    stated = {"encoder": ENCODER, "mpp": 0.5, "tile_px": 128, "tile_side": 128} | attributes
    write_features(tmp_path / "a.h5", Features(features=rows, coords=grid(128), attributes=stated))
    return tmp_path / "a.h5"


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"mpp": 1.0, "tile_px": 64}, "of tiles of 1 microns per pixel, the model was trained on 0.5"),
        ({"mpp": "1.0", "tile_px": "64"}, "of tiles of 1 microns per pixel, the model was trained on 0.5"),  # as text
        ({"encoder": ENCODER | {"name": "uni"}}, "name was 'lite0', here it is 'uni'"),
        ({"encoder": ENCODER | {"weights": "cd"}}, "weights was 'abab"),
        ({"encoder": ENCODER | {"mean": [0.0, 0.0, 0.0]}}, "mean was '[1.0, 2.0, 3.0]'"),
    ],
)
def test_origin__another_one_is_refused_by_predict_and_evaluate(
    attributes: Mapping[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, path = known_bundle(tmp_path), _stated(tmp_path, **attributes)
    with pytest.raises(InputError) as caught:
        WsiPredictor.from_checkpoint(bundle)(path)
    assert told in str(caught.value)
    (tmp_path / "labels.csv").write_text("slide,label\na,normal\n")
    words = ["data.format=features", f"data.features={tmp_path}", f"data.labels={tmp_path / 'labels.csv'}"]
    assert told in Seen(main, capsys).ended(["evaluate", "--checkpoint", str(bundle), *words], 2)[1]


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"mpp": 0.52}, "Tiles have 0.52 microns per pixel; the model was trained on 0.5."),
        ({"tile_px": 224}, "Tiles have 224 px a side; the model was trained on 128 px."),
        ({}, ""),
    ],
)
def test_origin__small_differences_are_told(attributes: Mapping[str, Any], told: str, tmp_path: Path) -> None:
    result = WsiPredictor.from_checkpoint(known_bundle(tmp_path))(_stated(tmp_path, **attributes))
    assert told in result.notes if told else not any("trained on" in note for note in result.notes)


def test_origin__what_a_file_does_not_say_is_told_and_no_dots_are_drawn(tmp_path: Path) -> None:
    predictor = WsiPredictor.from_checkpoint(known_bundle(tmp_path))
    path = write(tmp_path / "a.h5", np.random.default_rng(0).integers(0, 9000, (12, 2)))
    result = predictor(path)
    assert "The features do not state their encoder nor microns per pixel nor the side of their tiles" in str(
        result.notes
    )
    assert [file.name for file in predictor.write(result, path, tmp_path / "out")] == ["a.json"]
    path = write(tmp_path / "b.h5", grid(448))
    result = predictor(path)
    assert result.tile_side == 448 and "inferred from their grid" in str(result.notes)
    # No scale is made up from that of the model: not in the record, the tiles, the table, or a bar under the heatmap.
    predictor.write(result, path, tmp_path / "out")
    with gzip.open(tmp_path / "out" / "b.tiles.geojson.gz") as file:
        tiles = json.load(file)
    assert json.loads((tmp_path / "out" / "b.json").read_text())["mpp"] is tiles["mpp"] is None
    assert columns(result)["mpp"] is None and heatmap_caption(result, 100).um_per_px == 0


# Damaged, changed, or something else

_TORCH = b"PK\x03\x04" + bytes(100)
CONTENT: Mapping[str, tuple[str, bytes, str]] = {
    "web page": ("a.h5", b"\n<!DOCTYPE html><title>Log in</title>", "is a web page, not features"),
    "web page as npy": ("a.npy", b"<html>", "is a web page, not features"),
    "web page as pt": ("a.pt", b"<html>", "is a web page, not features"),
    "pointer": ("a.h5", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
    "pointer as pt": ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "tensors as h5": ("a.h5", _TORCH, "is a zip, as torch writes tensors, not what its suffix says. Rename it"),
    "array as pt": ("a.pt", b"\x93NUMPY\x01\0", "is a NumPy array, not what its suffix says"),
}


@pytest.mark.parametrize("case", CONTENT)
def test_content__the_true_cause(case: str, tmp_path: Path) -> None:
    name, content, told = CONTENT[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_features(tmp_path / name)
    assert told in str(caught.value)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, object])
def test_content__numbers_that_are_no_features(dtype: type, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, DIM), dtype), allow_pickle=True)
    with pytest.raises(InputError, match=r"type u?int8|pickle of objects"):
        read_features(tmp_path / "a.npy")
    if dtype is not object:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["features"] = np.ones((4, DIM), dtype)
        with pytest.raises(InputError, match="expected floats of shape"):
            read_features(tmp_path / "a.h5")
        torch.save(torch.ones(4, DIM, dtype=torch.int8), tmp_path / "a.pt")
        with pytest.raises(InputError, match="type int8"):
            read_features(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("words", "px", "mpp"), [(["read.mpp=0.25"], 256, 0.5), (["tiles.mpp=0.5", "tiles.tile_px=256"], 256, 0.5)]
)
def test_adopt__tiles_that_clam_reduced(
    words: list[str], px: int, mpp: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("h5_files", "patches"):
        (tmp_path / "clam" / name).mkdir(parents=True)
    write(tmp_path / "clam" / "h5_files" / "a.h5", grid(512))
    said = PATCHES | ({"custom_downsample": 2} if words[0].startswith("read") else {})
    write(tmp_path / "clam" / "patches" / "a.h5", grid(512), said)
    command = ["adopt", "--clam", str(tmp_path / "clam"), "--out", str(tmp_path / "ours"), "encoder.name=uni"]
    Seen(main, capsys).done([*command, *words])
    found = read_any_features(tmp_path / "ours" / "features" / "a.adopted.json")
    assert (*_sides(found), found.attributes["mpp"]) == (px, 512, mpp)
    assert found.attributes["slide_mpp"] == 0.25


def test_adopt__corners_of_the_first_clam(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("h5_files", "patches"):
        (tmp_path / "clam" / name).mkdir(parents=True)
    write(tmp_path / "clam" / "h5_files" / "a.h5", grid(256))
    write(tmp_path / "clam" / "patches" / "a.h5", grid(256), imgs=IMAGES)
    command = ["adopt", "--clam", str(tmp_path / "clam"), "--out", str(tmp_path / "ours"), "encoder.name=uni"]
    told = Seen(main, capsys).done([*command, "read.mpp=0.125"])
    found = read_any_features(tmp_path / "ours" / "features" / "a.adopted.json")
    assert found.coords is not None and found.coords[0].tolist() == [128, 128]
    assert (*_sides(found), found.attributes["mpp"]) == (256, 1024, 0.5)
    assert "Of 1 slides: Corners in pixels of a level 4 times reduced were multiplied." in told
