import html
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from apps.cine import MOST_SHOWN, CineFrame, Mark, cine_bar, legend, shown_numbers
from apps.viewer import Figure

HIGH, LOW = (
    Mark(name="present", colour=(230, 159, 0), height=1.0),
    Mark(name="absent", colour=(156, 163, 175), height=0.25),
)


def frames(count: int = 3) -> list[CineFrame]:
    return [
        CineFrame(
            number=10 * number,
            base=Path(f"/tmp/case/frame {number}.png"),
            over=f'<svg data-of="{number}"></svg>',
            words=f"It says '{number}' & \"more\".",
            mark=LOW if number else HIGH,
        )
        for number in range(count)
    ]


def test_shown_numbers__all_of_a_short_cine_and_both_ends_of_a_long_one() -> None:
    assert shown_numbers(3) == [0, 1, 2]
    found = shown_numbers(3000)
    assert len(found) == MOST_SHOWN == len(set(found))
    assert (found[0], found[-1]) == (0, 2999)
    assert {after - before for before, after in pairwise(found)} <= {15, 16}


def test_cine_bar__holds_picture_layer_and_words_of_each_frame() -> None:
    deep = [replace(each, values=Path("/tmp/values.png")) if each.number == 10 else each for each in frames()]
    bar = cine_bar(deep, lambda path: f"/{path.name}", 1, 40)
    found = re.search('data-frames="([^"]*)"', bar)
    assert found
    content = json.loads(html.unescape(found[1]))
    words = "Frame 11 of 40. It says '1' & \"more\"."
    assert content[1] == ["/frame 1.png", '<svg data-of="1"></svg>', words, "/values.png"]
    assert content[0][3] == ""
    assert 'aria-valuetext="Frame 11 of 40. It says &#x27;1&#x27; &amp; &quot;more&quot;."' in bar
    assert (bar.count("<rect"), bar.count('height="1.00"')) == (3, 1)  # marks differ in height, not in colour alone


def test_figure__a_single_frame_has_no_slider() -> None:
    def drawn(count: int) -> str:
        some = frames(count)
        return Figure(key="k", base=some[0].base, size=(4, 4), alt="a", over=some[0].over, frames=some).html()

    assert 'class="frames"' not in drawn(1)
    assert 'class="frames"' in drawn(2)
    assert "/gradio_api/file=/tmp/case/frame%201.png" in html.unescape(drawn(2))


@pytest.mark.parametrize(("count", "is_told"), [(2, True), (0, False)])
def test_legend__kinds_without_a_frame_are_left_out(count: int, is_told: bool) -> None:
    told = legend([(HIGH, 1), (LOW, count)])
    assert "present (1)" in told
    assert ("absent (2)" in told) == is_told
