import logging
from pathlib import Path

import pytest

from vision_core.images.notes import gathered, tell
from vision_core.images.reading import shrink_notes


def test_tell__names_the_first_files_of_a_kind_in_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="domainsight"):
        for number in range(9):
            tell(tmp_path / f"{number}.png", ["is odd"])
        tell(tmp_path / "other" / "0.png", ["is odd"])
    assert caplog.messages == [
        *(f"'{tmp_path / f'{number}.png'}' is odd." for number in range(4)),
        f"'{tmp_path / '4.png'}' is odd. Further files like this are not named.",
        f"'{tmp_path / 'other' / '0.png'}' is odd.",
    ]


def test_gathered__counts_each_kind_and_shows_the_first_names() -> None:
    notes = {"a": ("is odd", "is large"), "b": (), **dict.fromkeys("cdef", ("is odd",))}
    assert gathered(notes) == ("5 of the files: is odd (a, c, d, ...)", "1 of the files: is large (a)")


def test_shrink_notes__an_image_that_is_shrunk_below_half() -> None:
    told = "has 4000 x 3000 pixels, of which the model sees 800 x 600: small objects are lost. Cut it into tiles"
    assert shrink_notes((3000, 4000), 600, 1333) == (told,)
    assert shrink_notes((1024, 2048), 600, 1333) == ()
    assert shrink_notes((3000, 3000), 0, 1000)[0].startswith("has 3000 x 3000 pixels, of which the model sees 1000 x")
    assert shrink_notes((30, 40), 600, 1333) == ()
