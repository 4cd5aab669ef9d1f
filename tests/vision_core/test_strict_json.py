"""JSON whose objects name a key twice is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from vision_core.strict_json import RepeatedKeyError, parse_json, to_json


@pytest.mark.parametrize("text", ["[]", "3", '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}', b'\xef\xbb\xbf{"a": 1}'])
def test_parse_json__as_pythons_own(text: str | bytes) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(("text", "key"), [('{"a": 1, "b": 2, "a": 1}', "a"), ('[{"x": {"ä": 1, "\\u00e4": 2}}]', "ä")])
def test_parse_json__a_key_that_is_named_twice_is_refused_by_name(text: str, key: str) -> None:
    with pytest.raises(RepeatedKeyError, match=f"names the key '{key}' twice"):
        parse_json(text)


def test_to_json__what_json_does_not_have_is_null() -> None:
    content = {"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": np.float64("-inf")}, "d": Path("x"), "ä": True}
    text = to_json(content, default=str)
    with pytest.raises(TypeError):
        to_json({"a": np.float32(1)})  # no number becomes text in silence
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, [None, 1.5]], "b": {"c": None}, "d": "x", "ä": True
    }  # fmt: skip
    assert "ä" in text


def test_parse_json__constants_as_the_caller_takes_them() -> None:
    assert parse_json("[NaN]", parse_constant=str) == ["NaN"]
