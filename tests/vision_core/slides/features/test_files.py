import json
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from vision_core.errors import EnvironmentFault, InputError
from vision_core.slides.features.files import Features, read_features, reason_not_reusable, write_features

ENCODER = {"name": "lite0", "dim": 6, "weights": "ab" * 32, "mean": [127.0, 127.0, 127.0], "precision": "off"}
ATTRIBUTES = {
    "mpp": 0.5,
    "tile_px": 256,
    "tile_side": 512,
    "encoder": ENCODER,
    "slide": "{a}.svs",
    "slide_size": 1000,
    "slide_ends": "aa",
    "fingerprint": "f1",
}


def made(count: int = 50, dim: int = 6, dtype: str = "float16", **changes: object) -> Features:
    rows = np.random.default_rng(0).normal(size=(count, dim)).astype(dtype)
    coords = np.arange(2 * count, dtype=np.int64).reshape(count, 2)
    return Features(features=rows, coords=coords, attributes=ATTRIBUTES | {"encoder": ENCODER | {"dim": dim}} | changes)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_write_features__read_back(tmp_path: Path, dtype: str, count: int) -> None:
    features = made(count, dtype=dtype)
    write_features(tmp_path / "a.h5", features)
    found = read_features(tmp_path / "a.h5")
    assert found.features.dtype == dtype and found.features.shape == (count, 6)
    np.testing.assert_array_equal(np.asarray(found.features), features.features)
    assert found.coords is not None
    np.testing.assert_array_equal(found.coords, features.coords)
    assert dict(found.attributes) == {**ATTRIBUTES, "format": "domainsight-features/1"}


def test_write_features__same_features_same_bytes_in_chunks_of_a_megabyte(tmp_path: Path) -> None:
    features = made(3000, 1024)
    for name in ("a.h5", "b.h5"):
        write_features(tmp_path / name, features)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"].chunks == (512, 1024)
        assert file["coords"].dtype == np.int64
    np.testing.assert_array_equal(np.asarray(read_features(tmp_path / "a.h5").features), features.features)


def test_write_features__from_a_file_to_another(tmp_path: Path) -> None:
    write_features(tmp_path / "a.h5", made(7000, 1024))
    write_features(tmp_path / "b.h5", read_features(tmp_path / "a.h5"))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_rows__any_rows_in_any_order(tmp_path: Path) -> None:
    features = made(3000, 1024)
    write_features(tmp_path / "a.h5", features)
    rows, expected = read_features(tmp_path / "a.h5").features, np.asarray(features.features)
    random = np.random.default_rng(1).integers(-3000, 3000, 500)
    for index in (slice(10, 700), slice(None), slice(5, 2), slice(2, 3000, 700), slice(None, None, -999), random):
        np.testing.assert_array_equal(rows[index], expected[index])
    assert rows[np.array([], np.int64)].shape == (0, 1024)
    for wrong in (np.array([3000]), np.array([0.5]), np.ones(3000, bool)):
        with pytest.raises(IndexError):
            rows[wrong]


def test_rows__a_copy_for_a_worker_opens_the_file_anew(tmp_path: Path) -> None:
    write_features(tmp_path / "a.h5", made())
    rows = read_features(tmp_path / "a.h5").features
    copy = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(copy[3:9], rows[3:9])


def test_write_features__no_space_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_features(path, made())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    try:
        with pytest.raises(EnvironmentFault, match=r"Cannot write '.*a\.h5': file too large, after \d+ bytes"):
            write_features(path, made(3000, 1024))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]


def test_write_features__no_space_ends_the_process_cleanly(tmp_path: Path) -> None:
    code = f"""
import resource, numpy as np
from pathlib import Path
from vision_core.errors import EnvironmentFault
from vision_core.slides.features.files import Features, write_features
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
try:
    write_features(Path({str(tmp_path)!r}) / "a.h5", Features(features=np.ones((3000, 1024), np.float32)))
except EnvironmentFault as error:
    print("told")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n", "")
    assert list(tmp_path.iterdir()) == []


# What others wrote


def test_read_features__clam(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.ones((4, 8), "f4")
        file["coords"] = np.arange(8, dtype="i4").reshape(4, 2) * 1024
        file["coords"].attrs.update(
            patch_size=256, patch_level=1, downsample=np.array([4.0, 4.0]), name="a", level_dim=(10, 20)
        )
    found = read_features(tmp_path / "a.h5")
    assert found.coords is not None and found.coords.dtype == np.int64
    assert (found.attributes["origin"], found.attributes["tile_px"], found.attributes["tile_side"]) == (
        "CLAM",
        256,
        1024,
    )
    assert found.attributes["level_dim"] == [10, 20] and "mpp" not in found.attributes


def test_read_features__clam_without_attributes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", data=np.ones((4, 8), "f4"), chunks=(1, 8), maxshape=(None, 8))
        file["coords"] = np.zeros((4, 2), "i8")
    found = read_features(tmp_path / "a.h5")
    assert (len(found), found.dim, dict(found.attributes)) == (4, 8, {})


def test_read_features__trident(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.ones((4, 8), ">f4")
        file["coords"] = np.zeros((4, 2), "i8")
        file["coords"].attrs.update(
            patch_size=256, patch_size_level0=512, level0_magnification=40, target_magnification=20, overlap=0
        )
    found = read_features(tmp_path / "a.h5")
    assert found.attributes["origin"] == "TRIDENT"
    assert (found.attributes["tile_side"], found.attributes["target_magnification"]) == (512, 20)
    assert found.features.dtype.isnative and torch.from_numpy(found.features[:]).sum() == 32


@pytest.mark.parametrize("is_zip", [True, False])
def test_read_features__pt_tensor(tmp_path: Path, is_zip: bool) -> None:
    rows = torch.randn(5, 8, requires_grad=True)
    torch.save(rows, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    found = read_features(tmp_path / "a.pt")
    assert found.coords is None
    np.testing.assert_array_equal(found.features[:], rows.detach().numpy())


def test_read_features__pt_with_coords_in_bfloat16(tmp_path: Path) -> None:
    corners = torch.tensor([[9 * number, 4] for number in range(5)])
    torch.save({"feats": torch.ones(5, 8, dtype=torch.bfloat16), "coords": corners}, tmp_path / "a.pt")
    found = read_features(tmp_path / "a.pt")
    assert found.features.dtype == np.float32 and found.coords is not None and found.coords[4].tolist() == [36, 4]


def test_read_features__npy_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 8), np.float16))
    found = read_features(tmp_path / "a.npy").features
    assert isinstance(found, np.memmap) and found.shape == (5, 8)


# Refusals


class Running:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (Path("ran"),)


def _h5(path: Path, **data: Any) -> None:  # noqa: ANN401
    with h5py.File(path, "w") as file:
        for name, value in data.items():
            file[name] = value


def _pt_pickle(path: Path) -> None:
    torch.save({"features": Running()}, path)


def _old_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Running()))


def _external_link(path: Path) -> None:
    _h5(path.parent / "other.h5", features=np.ones((3, 2), "f4"))
    _h5(path, features=h5py.ExternalLink("other.h5", "features"))


def _soft_link_through_another_file(path: Path) -> None:
    _h5(path.parent / "other.h5", features=np.ones((3, 2), "f4"))
    _h5(path, elsewhere=h5py.ExternalLink("other.h5", "/"), features=h5py.SoftLink("/elsewhere/features"))


def _virtual(path: Path) -> None:
    _h5(path.parent / "other.h5", x=np.ones((3, 2), "f4"))
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 2))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)


def _external_storage(path: Path) -> None:
    (path.parent / "raw").write_bytes(bytes(24))
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (3, 2), "f4", external=[(str(path.parent / "raw"), 0, 24)])


def _half_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (30, 2), "f4", chunks=(10, 2))[:10] = 1


def _never_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (30, 2), "f4")


def _truncated(path: Path) -> None:
    write_features(path, made(300, 100))
    path.write_bytes(path.read_bytes()[:30_000])


def _other_dim(path: Path) -> None:
    write_features(path, made(3, 7, encoder=ENCODER))


def _damaged_json(path: Path) -> None:
    write_features(path, made())
    with h5py.File(path, "r+") as file:
        file.attrs["encoder"] = '{"name"'


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.h5", lambda path: None, "is not a file"),
    "folder": ("a.h5", lambda path: path.mkdir(), "is not a file"),
    "empty": ("a.h5", lambda path: path.touch(), "is empty"),
    "html": ("a.h5", lambda path: path.write_text("<html>"), "is a web page, not features"),
    "truncated": ("a.h5", _truncated, "is damaged or no HDF5 file"),
    "suffix": ("a.csv", lambda path: path.write_text("1,2"), "no file of features"),
    "no_rows": ("a.h5", lambda path: _h5(path, rows=np.ones(3)), "no data set 'features'; it holds 'rows'"),
    "group": ("a.h5", lambda path: h5py.File(path, "w").create_group("features"), "is a group"),
    "external_link": ("a.h5", _external_link, "is a link"),
    "soft_link": ("a.h5", _soft_link_through_another_file, "is a link"),
    "virtual": ("a.h5", _virtual, "from other files"),
    "external_storage": ("a.h5", _external_storage, "from other files"),
    "half_written": ("a.h5", _half_written, "not written to its end"),
    "never_written": ("a.h5", _never_written, "not written to its end"),
    "integers": ("a.h5", lambda path: _h5(path, features=np.ones((3, 2), "i4")), "type int32"),
    "three_axes": ("a.h5", lambda path: _h5(path, features=np.ones((1, 3, 2), "f4")), r"shape \(1, 3, 2\)"),
    "null_space": ("a.h5", lambda path: _h5(path, features=h5py.Empty("f4")), "shape None"),
    "scalar": ("a.h5", lambda path: _h5(path, features=np.float32(1)), r"shape \(\)"),
    "no_width": ("a.h5", lambda path: _h5(path, features=np.ones((3, 0), "f4")), r"shape \(3, 0\)"),
    "beyond_float32": ("a.h5", lambda path: _h5(path, features=np.array([[1, 1e300]])), "infinity in 1 of 1 rows"),
    "lengths": (
        "a.h5",
        lambda path: _h5(path, features=np.ones((3, 2), "f4"), coords=np.ones((2, 2), int)),
        "3 rows.*2 coords",
    ),
    "coords_of_four": (
        "a.h5",
        lambda path: _h5(path, features=np.ones((3, 2), "f4"), coords=np.ones((3, 4), int)),
        "coords have shape",
    ),
    "half_pixels": (
        "a.h5",
        lambda path: _h5(path, features=np.ones((3, 2), "f4"), coords=np.full((3, 2), 0.5)),
        "no whole pixels",
    ),
    "nan": ("a.h5", lambda path: _h5(path, features=np.array([[1, 2], [np.nan, 0]], "f2")), "in 1 of 2 rows, first 1"),
    "other_dim": ("a.h5", _other_dim, "7 features a tile, but its encoder gives 6"),
    "damaged_json": ("a.h5", _damaged_json, "attribute 'encoder' is damaged"),
    "pt_pickle": ("a.pt", _pt_pickle, "could run code when it is read: it asks for '.*pathlib"),
    "pt_old_pickle": ("a.pt", _old_pickle, "pickle of objects"),
    "pt_damaged": ("a.pt", lambda path: path.write_bytes(b"PK\x03\x04 damaged"), "no PyTorch file"),
    "pt_empty": ("a.pt", lambda path: path.touch(), "no PyTorch file"),
    "pt_weights": (
        "a.pt",
        lambda path: torch.save({"weight": torch.ones(2, 2)}, path),
        r"holds \['weight'\], no 'features'",
    ),
    "pt_list": ("a.pt", lambda path: torch.save([torch.ones(2, 2)], path), "holds a list"),
    "pt_sparse": ("a.pt", lambda path: torch.save(torch.ones(2, 2).to_sparse(), path), "dense tensor"),
    "pt_one_axis": ("a.pt", lambda path: torch.save(torch.ones(2), path), r"shape \(2,\)"),
    "pt_no_width": ("a.pt", lambda path: torch.save(torch.ones(2, 0), path), r"shape \(2, 0\)"),
    "pt_infinite": ("a.pt", lambda path: torch.save(torch.full((2, 2), torch.inf), path), "in 2 of 2 rows, first 0"),
    "pt_lengths": (
        "a.pt",
        lambda path: torch.save({"features": torch.ones(3, 2), "coords": torch.ones(2, 2).long()}, path),
        "2 coords",
    ),
    "npy_pickle": ("a.npy", lambda path: np.save(path, np.array([Running()]), allow_pickle=True), "pickle of objects"),
    "npy_foreign_pickle": ("a.npy", lambda path: path.write_bytes(pickle.dumps(Running())), "pickle of objects"),
    "npy_empty": ("a.npy", lambda path: path.touch(), "damaged or no NumPy file"),
    "npy_long_doubles": ("a.npy", lambda path: np.save(path, np.ones((2, 2), np.longdouble)), "type float128"),
    "npy_records": ("a.npy", lambda path: np.save(path, np.ones((2, 2), [("a", "f4")])), "features have shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_read_features__refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    name, make, reason = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises(InputError, match=reason) as error:
        read_features(tmp_path / name)
    assert str(error.value).startswith(f"'{tmp_path / name}'")
    assert not (tmp_path / "ran").exists()


def test_read_features__npy_cut_off(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((100, 8), np.float32))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:900])
    with pytest.raises(InputError, match="damaged or no NumPy file"):
        read_features(tmp_path / "a.npy")


# Resuming


def test_reason_not_reusable__empty_when_whole_and_as_wanted(tmp_path: Path) -> None:
    write_features(tmp_path / "a.h5", made())
    assert reason_not_reusable(tmp_path / "a.h5", ATTRIBUTES) == ""
    on_another_machine = json.loads(json.dumps(ATTRIBUTES | {"encoder": ENCODER | {"precision": "bf16"}}))
    assert reason_not_reusable(tmp_path / "a.h5", on_another_machine) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mpp": 0.25}, "mpp was 0.5, now 0.25"),
        ({"tile_px": 224}, "tile_px was 256, now 224"),
        ({"fingerprint": "f2"}, "fingerprint was 'f1', now 'f2'"),
        ({"slide_size": 1001}, "the slide had 1000 bytes, now 1001"),
        ({"slide_ends": "bb"}, "the slide has changed since"),
        ({"encoder": ENCODER | {"weights": "cd"}}, f"encoder.weights was '{'ab' * 32}', now 'cd'"),
        ({"encoder": ENCODER | {"mean": [0.0] * 3}}, "encoder.mean was [127.0, 127.0, 127.0], now [0.0, 0.0, 0.0]"),
        ({"new": 1}, "new was None, now 1"),
    ],
)
def test_reason_not_reusable__says_what_differs(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    write_features(tmp_path / "a.h5", made())
    assert reason_not_reusable(tmp_path / "a.h5", ATTRIBUTES | change) == reason


def test_reason_not_reusable__missing_damaged_or_foreign(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert reason_not_reusable(path, ATTRIBUTES) == "there is no file yet"
    _truncated(path)
    assert "is damaged or no HDF5 file" in reason_not_reusable(path, ATTRIBUTES)
    _h5(path, features=np.ones((3, 2), "f4"))
    assert reason_not_reusable(path, {}) == "the file has format 'None', now 'domainsight-features/1'"
