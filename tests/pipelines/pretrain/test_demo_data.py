from pathlib import Path

import numpy as np

from pipelines.pretrain.data import read_images
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.demo_data import PARTS, SIZE_PX, make_demo_data
from vision_core.images import read_image


def test_make_demo_data__four_kinds_in_three_lists_always_the_same(tmp_path: Path) -> None:
    told = make_demo_data(tmp_path / "one")
    make_demo_data(tmp_path / "two")
    assert "not how well" in told
    for part, count in PARTS.items():
        images = read_images(PretrainData(root=tmp_path / "one", cache=None), part)
        assert images.classes == ("checks", "discs", "rings", "stripes")
        assert images.class_counts.tolist() == [count] * 4
    for name in ("train/rings/003.png", "test/discs/001.png"):
        first, second = (read_image(tmp_path / each / name) for each in ("one", "two"))
        assert first.shape == (SIZE_PX, SIZE_PX, 3)
        assert np.array_equal(first, second)
    assert not np.array_equal(
        read_image(tmp_path / "one/train/rings/003.png"), read_image(tmp_path / "one/val/rings/003.png")
    )
