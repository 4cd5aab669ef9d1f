from pathlib import Path

from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data_settings import PretrainData
from pipelines.pretrain.demo.demo_data import make_demo_data
from pipelines.pretrain.demo.small_real import HELD_OUT, NOTICE


def test_make_demo_data__three_lists_of_reduced_real_images_that_say_what_they_are(tmp_path: Path) -> None:
    told = make_demo_data(tmp_path, 24)
    assert NOTICE in told
    for part in ("train", "val", "test"):
        images = read_images(PretrainData(root=tmp_path, cache=None), part)
        assert len(images.classes) == 28
        assert not set(HELD_OUT) & set(images.classes)
        assert max(images.read(0).shape) == 24
    assert NOTICE in (tmp_path / "ATTRIBUTION.txt").read_text(encoding="utf-8")
