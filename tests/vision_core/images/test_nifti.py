import gzip
import struct
from pathlib import Path

import numpy as np

from vision_core.images.nifti import write_masks


def test_write_masks__header_and_order_of_nifti(tmp_path: Path) -> None:
    masks = np.zeros((3, 4, 5), bool)
    masks[2, 1, 3] = masks[0, 3, 0] = True
    write_masks(tmp_path / "a.nii.gz", masks, spacing_mm=(0.3, 0.2))
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert struct.unpack_from("<i", content, 0) == (348,)
    assert struct.unpack_from("<8h", content, 40) == (3, 5, 4, 3, 1, 1, 1, 1)
    assert struct.unpack_from("<2h", content, 70) == (2, 8)  # uint8
    assert np.allclose(struct.unpack_from("<4f", content, 76), (1, 0.2, 0.3, 1))
    assert struct.unpack_from("<f", content, 108) == (352,)
    assert content[123] == 2  # millimetres
    assert content[344:348] == b"n+1\0"
    voxels = np.frombuffer(content, np.uint8, offset=352).reshape((5, 4, 3), order="F")  # x runs fastest
    assert np.argwhere(voxels).tolist() == [[0, 3, 0], [3, 1, 2]]


def test_write_masks__the_same_bytes_again_and_no_unit_where_the_spacing_is_unknown(tmp_path: Path) -> None:
    masks = np.ones((1, 2, 2), bool)
    for name in "ab":
        write_masks(tmp_path / f"{name}.nii.gz", masks)
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert first == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress(first)[123] == 0
