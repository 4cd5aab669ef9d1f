import numpy as np

from vision_core.images.captions import MIN_WIDTH_PX, Caption, add_caption, font, wrap_lines


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
