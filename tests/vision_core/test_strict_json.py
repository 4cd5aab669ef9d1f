"""JSON whose objects name a key twice is refused."""

import json

import pytest

from vision_core.strict_json import RepeatedKeyError, parse_json


@pytest.mark.parametrize("text", ["[]", "3", '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}', b'\xef\xbb\xbf{"a": 1}'])
def test_parse_json__as_pythons_own(text: str | bytes) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(("text", "key"), [('{"a": 1, "b": 2, "a": 1}', "a"), ('[{"x": {"ä": 1, "\\u00e4": 2}}]', "ä")])
def test_parse_json__a_key_that_is_named_twice_is_refused_by_name(text: str, key: str) -> None:
    with pytest.raises(RepeatedKeyError, match=f"names the key '{key}' twice"):
        parse_json(text)


def test_parse_json__constants_as_the_caller_takes_them() -> None:
    assert parse_json("[NaN]", parse_constant=str) == ["NaN"]
