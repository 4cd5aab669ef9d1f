from pathlib import Path

import numpy as np
import pytest
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image

from vision_core.errors import DataError, InputError
from vision_core.images.drawing import SKY_BLUE, draw_boxes, write_png
from vision_core.images.reading import image_size, list_images, read_image, resize_shortest, shortest_edge_size
from vision_core.images.untrusted import UntrustedImages

ORIENTATION = 0x0112


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_write_png__read_image_gives_the_same_pixels(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", _noise(20, 30))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), _noise(20, 30))


def test_read_image__orientation_is_applied_and_known_from_the_header(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turned by a quarter
    Image.fromarray(_noise(20, 30)).save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(image, np.rot90(_noise(20, 30), -1))
    assert image_size(tmp_path / "turned.png") == image.shape[:2] == (30, 20)


def test_image_size__orientation_behind_the_pixels_of_a_png_is_known(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(_noise(20, 30)).save(path, exif=exif)
    data = path.read_bytes()
    begin = data.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(data[begin : begin + 4], "big")
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:begin] + data[end:last] + data[begin:end] + data[last:])
    assert image_size(path) == read_image(path).shape[:2] == (30, 20)


def test_image_size__decodes_no_png(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    write_png(path, _noise(200, 300))
    path.write_bytes(path.read_bytes()[:1000])
    assert image_size(path) == (200, 300)


def test_read_image__missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.png' cannot be opened: no such file"):
        read_image(tmp_path / "absent.png")


def test_read_image__limit_is_on_the_product_of_the_edges(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", _noise(20, 30))
    assert read_image(tmp_path / "a.png", max_megapixels=600e-6).shape == (20, 30, 3)
    with pytest.raises(InputError, match="30 x 20 pixels"):
        read_image(tmp_path / "a.png", max_megapixels=599e-6)


def test_list_images__sorted_case_insensitive_without_hidden_files_and_folders(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", ".partial-1-0-0.png", "note.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]


def test_list_images__no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        list_images(tmp_path / "absent")


def test_shortest_edge_size__same_as_detectron2_for_every_size() -> None:
    generator = np.random.default_rng(0)
    sizes = [(1024, 2048), (1, 2), (333, 500), *generator.integers(1, 3000, (500, 2)).tolist()]
    for height, width in sizes:
        expected = ResizeShortestEdge.get_output_shape(height, width, 600, 1333)
        assert shortest_edge_size((height, width), 600, 1333) == tuple(expected)


@pytest.mark.parametrize("size", [(40, 100), (100, 40), (64, 64)])
def test_resize_shortest__same_pixels_as_detectron2(size: tuple[int, int]) -> None:
    image = _noise(*size)
    transform = ResizeShortestEdge(64, 120).get_transform(image)
    np.testing.assert_array_equal(resize_shortest(image, 64, 120), transform.apply_image(image))


def test_draw_boxes__draws_on_a_copy_in_the_colour_and_nowhere_else() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    drawn = draw_boxes(image, np.array([[50, 60, 150, 160]], np.float32), [""], SKY_BLUE)
    assert (image == 128).all()
    np.testing.assert_array_equal(drawn[100, 51], SKY_BLUE)
    assert (drawn[70:150, 60:140] == 128).all()
    assert (drawn[:50] == 128).all()


def test_draw_boxes__label_of_a_box_at_the_top_right_stays_inside() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    drawn = draw_boxes(image, np.array([[80, 0, 100, 40]], np.float32), ["Tree 0.93"], (255, 0, 0))
    assert (drawn[2:8, :75, 0] > 200).any()


def test_draw_boxes__one_text_per_box() -> None:
    with pytest.raises(ValueError, match="shorter"):
        draw_boxes(_noise(50, 50), np.zeros((2, 4), np.float32), ["only one"])


def test_read_image__the_setting_is_named_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(path)
    with pytest.raises(InputError) as refused:
        read_image(path, max_megapixels=599e-6)
    assert "data." not in str(refused.value) and "Cut it into tiles, or make it smaller." in str(refused.value)
    with pytest.raises(InputError, match=r"Cut it into tiles, or raise data\.max_megapixels\."):
        read_image(path, max_megapixels=599e-6, key="data.max_megapixels")
    limited = UntrustedImages(max_megapixels=599e-6, key="data.max_megapixels")
    with limited as images, pytest.raises(InputError, match=r"or raise data\.max_megapixels\."):
        images.read_image(path)
