import numpy as np
import pytest

from vision_core.slides.reading.subpixel import PositionedTile, SubpixelPosition, composite_tiles, subpixel_position


def test_subpixel_position__whole_pixels_and_the_share_beyond_them() -> None:
    assert subpixel_position(3.25, 7.0) == SubpixelPosition(x=3, y=7, right=0.25, down=0.0)
    assert subpixel_position(-1.25, 0.5) == SubpixelPosition(x=-2, y=0, right=0.75, down=0.5)
    assert subpixel_position(2.9999999, 0.0) == SubpixelPosition(x=3, y=0, right=0.0, down=0.0)


def test_composite_tiles__bilinear_by_hand() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[..., 0] = [[0, 100], [40, 200]]
    tile = PositionedTile(pixels=pixels, x=0, y=0)
    found = composite_tiles([tile], SubpixelPosition(x=0, y=0, right=0.25, down=0.5), (1, 1))
    # 0.5 * (0.75 * 0 + 0.25 * 100) + 0.5 * (0.75 * 40 + 0.25 * 200) = 52.5
    assert found[0, 0].tolist() == [52, 0, 0]


def test_composite_tiles__edges_of_the_slide_fade_to_white() -> None:
    tile = PositionedTile(pixels=np.zeros((4, 4, 3), np.uint8), x=0, y=0)
    found = composite_tiles([tile], SubpixelPosition(x=-2, y=0, right=0.5, down=0.0), (7, 3))
    assert found[1, :, 0].tolist() == [255, 127, 0, 0, 0, 127, 255]


@pytest.mark.parametrize("right", [0.0, 0.3, 0.5, 0.9])
def test_composite_tiles__an_even_area_shows_no_seams(right: float) -> None:
    tiles = [PositionedTile(pixels=np.full((8, 8, 3), 90, np.uint8), x=x, y=y) for y in (8, 0) for x in (8, 0)]
    found = composite_tiles(tiles, SubpixelPosition(x=2, y=3, right=right, down=0.4), (12, 11))
    assert np.abs(found.astype(int) - 90).max() <= 3  # a rounding for each tile that meets another


def test_composite_tiles__no_tiles_is_white() -> None:
    assert (composite_tiles([], SubpixelPosition(x=0, y=0, right=0.5, down=0.5), (3, 2)) == 255).all()
