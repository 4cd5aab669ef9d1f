from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from pipelines.wsi.adoption.reencoding import Grid, compare_features
from tests.vision_core.slides.tiffs import Kind, pyramid, tissue, write_tiff
from vision_core.errors import DataError
from vision_core.slides.encoders.encoder import Encoder, EncoderNetwork
from vision_core.slides.features.files import Features
from vision_core.slides.reading.slide import Slide, open_slide
from vision_core.slides.settings import ReadSettings


class Colours(nn.Module):
    """Means of an 8 x 8 division of a tile, without the overall mean."""

    def forward(self, images: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
        return pooled - pooled.mean(dim=1, keepdim=True)


ENCODER = Encoder(EncoderNetwork(name="colours", network=Colours(), weights="c0"), 64, precision="off")
CORNERS = np.array([[x, y] for y in range(0, 384, 128) for x in range(0, 512, 128)], np.int64)
READ = ReadSettings()


def _encoded(slide: Slide, side: int, noise: float = 0.0) -> Features:
    """Tiles read at level 0 and reduced by their encoder, as other programs do."""
    tiles = np.stack([slide.read(0, int(x), int(y), side, side) for x, y in CORNERS])
    rows = ENCODER.encode(tiles).numpy()
    rows = rows + noise * rows.std() * np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    return Features(features=rows, coords=CORNERS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiff(tmp_path / "a.tif", pyramid(tissue((640, 768))), Kind())


def test_compare_features__alike_though_read_at_another_level(path: Path) -> None:
    with open_slide(path) as slide:
        assert compare_features(_encoded(slide, 64), slide, Grid(side=64, tile_px=64, mpp=0.5), ENCODER, READ) > 0.9999
        assert compare_features(_encoded(slide, 128), slide, Grid(side=128, tile_px=64, mpp=1.0), ENCODER, READ) > 0.98


@pytest.mark.parametrize("said", [Grid(side=64, tile_px=64, mpp=0.5), Grid(side=256, tile_px=64, mpp=2.0)])
def test_compare_features__another_scale_than_said(said: Grid, path: Path) -> None:
    with (
        open_slide(path) as slide,
        pytest.raises(DataError, match=r"a\.tif': tiles encoded again by colours are unlike"),
    ):
        compare_features(_encoded(slide, 128), slide, said, ENCODER, READ)


def test_compare_features__other_features(path: Path) -> None:
    with open_slide(path) as slide:
        with pytest.raises(DataError, match="are unlike its features"):
            compare_features(_encoded(slide, 64, noise=1.0), slide, Grid(side=64, tile_px=64, mpp=0.5), ENCODER, READ)
        nothing = Features(features=np.zeros((12, 192), np.float32), coords=CORNERS)
        with pytest.raises(DataError, match=r"cosine '0\.000'"):
            compare_features(nothing, slide, Grid(side=64, tile_px=64, mpp=0.5), ENCODER, READ)
