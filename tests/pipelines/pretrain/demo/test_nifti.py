import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from pipelines.pretrain.demo.nifti import read_volume
from vision_core.assets import brain_volumes
from vision_core.errors import InputError

VOXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def _write(path: Path, *, kind: int = 2, shape: tuple[int, ...] = (2, 3, 4), magic: bytes = b"n+1\0") -> Path:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into(f"<{len(shape) + 1}h", header, 40, len(shape), *shape)
    struct.pack_into("<h", header, 70, kind)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = magic
    path.write_bytes(gzip.compress(bytes(header) + VOXELS.tobytes(order="F")))
    return path


def test_read_volume__first_axis_runs_fastest(tmp_path: Path) -> None:
    assert np.array_equal(read_volume(_write(tmp_path / "a.nii.gz")), VOXELS)


def test_read_volume__the_brain_is_its_own_mirror_image() -> None:
    volume = read_volume(brain_volumes()["t1"])
    assert volume.shape == (197, 233, 189)
    assert np.array_equal(volume, volume[::-1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": 16}, "kind '16'"),
        ({"shape": (2, 3)}, "'2' dimensions"),
        ({"magic": b"ni1\0"}, "no NIfTI-1 volume"),
        ({"shape": (2, 3, 5)}, "'24' voxels, 30 are needed"),
        ({"shape": (2, -3, 4)}, "damaged"),
        ({"shape": (30000, 30000, 30000)}, "damaged"),
    ],
)
def test_read_volume__what_is_not_such_a_volume_is_refused(tmp_path: Path, change: dict[str, int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_volume(_write(tmp_path / "a.nii.gz", **change))  # type: ignore[arg-type]


def test_read_volume__damaged_compression_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_volume(path)
