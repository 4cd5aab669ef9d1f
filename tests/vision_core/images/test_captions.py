import numpy as np
import pytest

from vision_core.images.captions import MIN_WIDTH_PX, Caption, add_caption, font, scale_bar, wrap_lines


def test_add_caption__picture_above_the_strip_is_unchanged() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 700, 3)).astype(np.uint8)
    marked = add_caption(picture, Caption(headline="Result: normal", model="m"))
    np.testing.assert_array_equal(marked[:40], picture)
    assert marked[40:].min() < 64 and marked.shape[1] == 700


def test_add_caption__narrow_picture_gets_room_at_its_right() -> None:
    marked = add_caption(np.zeros((900, 20, 3), np.uint8), Caption(headline="Result: normal", model="m" * 300))
    assert marked.shape[1] == MIN_WIDTH_PX
    assert not marked[:900, :20].any() and (marked[:900, 20:] == 255).all()
    assert (marked[:, -5:] == 255).all() and (marked[-4:] == 255).all()  # no letter is cut off


def test_add_caption__bar_shows_the_colours_in_order() -> None:
    colours = np.linspace([0, 0, 0], [255, 0, 0], 256).astype(np.uint8)
    plain, barred = (
        add_caption(np.zeros((1, 900, 3), np.uint8), Caption(headline="a", model="m", colours=each))
        for each in (None, colours)
    )
    assert barred.shape[0] > plain.shape[0]
    row = barred[1 + 15]
    reds = row[(row[:, 0] > 0) & (row[:, 1] == 0), 0].astype(int)
    assert reds[0] < 5 and reds[-1] == 255 and (np.diff(reds) >= 0).all()


def test_wrap_lines__keeps_every_letter_within_the_width() -> None:
    face = font(14)
    text = "a few words\nand " + "x" * 200
    lines = wrap_lines(text, face, 120)
    assert "".join(lines).replace(" ", "") == "".join(text.split())
    assert max(face.getlength(line) for line in lines) <= 120
    assert lines[0] == "a few words and"
    assert wrap_lines("", face, 120) == []


def test_font__has_the_letters_of_class_names() -> None:
    missing = font(20).getmask("\uffff")
    for letter in "äßéłğøµαопухль":
        assert bytes(font(20).getmask(letter)) != bytes(missing), letter


@pytest.mark.parametrize(
    ("um_per_px", "longest", "length", "words"),
    [
        (0.5, 200, 200, "100 µm"),
        (0.25, 100, 80, "20 µm"),
        (10, 250, 200, "2 mm"),
        (250, 250, 200, "5 cm"),
        (1, 4.9, 2, "2 µm"),
    ],
)
def test_scale_bar__a_round_length_that_fits(um_per_px: float, longest: float, length: float, words: str) -> None:
    found, told = scale_bar(um_per_px, longest)
    assert found == pytest.approx(length) and told == words and found <= longest


def test_add_caption__scale_bar_has_its_length_and_unknown_is_said() -> None:
    picture = np.full((4, 800, 3), 255, np.uint8)
    plain, known, unknown = (
        add_caption(picture, Caption(headline="a", model="m", um_per_px=each)) for each in (None, 0.5, 0.0)
    )
    size = 13
    bar = known[4 + size, :, 0]
    assert (bar[size : size + 200] == 0).all() and (bar[size + 203 : size + 206] == 255).all()  # 100 µm
    assert known.shape == unknown.shape and known.shape[0] == plain.shape[0] + 2 * size
    assert not np.array_equal(known, unknown)
