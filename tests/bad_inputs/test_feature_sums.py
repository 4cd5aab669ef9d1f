"""Features that changed since they were written, copies of them, and the same ones under two names."""

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.wsi.__main__ import main
from pipelines.wsi.predict import WsiPredictor
from tests.bad_inputs.seen import Seen
from tests.bad_inputs.test_foreign_features import PATCHES, grid, known_bundle, write
from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features
from vision_core.errors import InputError
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import Features, read_features, write_features

Rows = NDArray[np.generic]


def _flip(path: Path) -> None:
    """Change one number of the rows, which stays finite."""
    with h5py.File(path, "r+") as file:
        file["features"][1, 2] += 0.5


def test_sum__a_changed_file_is_refused_by_all_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_features(tmp_path)
    read_features(tmp_path / "features" / "s4.h5")
    _flip(tmp_path / "features" / "s4.h5")
    told, seen = "s4.h5' does not have the sum that was written with it", Seen(main, capsys)
    words = [f"data.root={tmp_path}", "data.format=features"]
    train = ["train", "--out", str(tmp_path / "run"), *words, "method=plain", "--dry-run"]
    evaluate = ["evaluate", "--checkpoint", str(known_bundle(tmp_path)), *words, "data.eval_split=val"]
    for command in (train, evaluate):
        assert told in seen.ended(command, 2)[1]
    out, _ = seen.ended(["validate", *words], 4)
    assert told in out
    with pytest.raises(InputError, match="does not have the sum"):
        WsiPredictor.from_checkpoint(tmp_path / "model")(tmp_path / "features" / "s4.h5")


def _copy(path: Path, rows: Rows, corners: Rows) -> None:
    """Rows and corners as another program writes them back, which keeps the attributes."""
    with h5py.File(path, "r+") as file:
        for name, values in {"features": rows, "coords": corners}.items():
            del file[name]
            file[name] = values


COPIES: Mapping[str, Callable[[Rows, Rows], tuple[Rows, Rows]]] = {
    "rows reversed": lambda rows, corners: (rows[::-1], corners),
    "corners reversed": lambda rows, corners: (rows, corners[::-1]),
    "both reversed": lambda rows, corners: (rows[::-1], corners[::-1]),
    "another precision": lambda rows, corners: (rows.astype(np.float64), corners),
}


@pytest.mark.parametrize("kind", COPIES)
def test_sum__a_copy_in_another_order_or_precision_is_refused(kind: str, tmp_path: Path) -> None:
    make_features(tmp_path)
    path = tmp_path / "features" / "s4.h5"
    with h5py.File(path) as file:
        rows, corners = file["features"][:], file["coords"][:]
    _copy(path, *COPIES[kind](rows, corners))
    with pytest.raises(InputError, match="does not have the sum that was written with it"):
        read_features(path)


@pytest.mark.parametrize("kind", ["both reversed", "half precision"])
def test_copies__without_their_sum_are_told_loudly(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one slide under two names in the lists, converted or sorted anew on the way."""
    make_features(tmp_path)
    found = read_features(tmp_path / "features" / "s0.h5")
    rows = np.asarray(found.features)
    (tmp_path / "features" / "s4.h5").unlink()
    np.save(tmp_path / "features" / "s4.npy", rows[::-1] if kind == "both reversed" else rows.astype(np.float16))
    words = [f"data.root={tmp_path}", "data.format=features", "method=plain"]
    for verb in (["validate"], ["train", "--out", str(tmp_path / "run"), "--dry-run"]):
        out, err = Seen(main, capsys).ended([*verb, *words], 0)
        assert "THE SAME FEATURES IN ANOTHER ORDER OR PRECISION, as of a copy: 's0' and 's4'" in out + err


def test_sum__a_file_of_before_has_none_and_is_read(tmp_path: Path) -> None:
    make_features(tmp_path)
    with h5py.File(tmp_path / "features" / "s0.h5", "r+") as file:
        del file.attrs["content_sha256"]
    assert len(read_features(tmp_path / "features" / "s0.h5")) == 12


def test_sum__an_adopted_original_that_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clam = tmp_path / "clam" / "h5_files"
    clam.mkdir(parents=True)
    write(clam / "a.h5", grid(512), PATCHES)
    words = ["adopt", "--clam", str(tmp_path / "clam"), "--out", str(tmp_path / "ours"), "encoder.name=uni"]
    Seen(main, capsys).done([*words, "tiles.mpp=0.5"])
    assert len(read_any_features(tmp_path / "ours" / "features" / "a.adopted.json")) == 12
    _flip(clam / "a.h5")
    with pytest.raises(InputError, match="its sum is another"):
        read_any_features(tmp_path / "ours" / "features" / "a.adopted.json")


def test_folds__the_same_features_are_found_before_the_first_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both on the training list of one fold, on two lists of another; the files differ in what they say."""
    make_features(tmp_path, ("train",) * 8)
    rows = [f"s{number},p{number},{('normal', 'tumour')[number % 2]}" for number in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["slide,patient,label", *rows]) + "\n")
    found = read_features(tmp_path / "features" / "s0.h5")
    stated = {name: value for name, value in found.attributes.items() if name != "format"} | {"slide": "copy"}
    copy = Features(features=np.asarray(found.features), coords=found.coords, attributes=stated)
    write_features(tmp_path / "features" / "s2.h5", copy)
    words = [
        f"data.root={tmp_path}",
        *FEATURE_WORDS,
        "method=plain",
        "data.protocol=stratified",
        "data.folds=2",
        "data.val_share=0.5",
    ]
    _, err = Seen(main, capsys).ended(["train", "--out", str(tmp_path / "run"), *words], 2)
    assert "the same slide is there under 2 names" in err
    assert not list(tmp_path.glob("run/**/*.pt"))


def test_resume__features_that_changed_since_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_features(tmp_path)
    run = ["train", "--out", str(tmp_path / "run"), f"data.root={tmp_path}", "method=plain", "train.save_every=1"]
    seen = Seen(main, capsys)
    seen.done([*run, *FEATURE_WORDS, "train.max_steps=3"])
    path = tmp_path / "features" / "s1.h5"
    found = read_features(path)
    stated = {name: value for name, value in found.attributes.items() if name != "format"}
    write_features(path, Features(features=np.asarray(found.features) + 1, coords=found.coords, attributes=stated))
    (tmp_path / "run" / "run.json").unlink()
    _, err = seen.ended(["train", "--out", str(tmp_path / "run"), "--resume"], 2)
    assert "or their files have changed" in err
