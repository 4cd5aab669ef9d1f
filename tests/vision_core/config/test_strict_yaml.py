import os
from pathlib import Path

import pytest
import yaml

from vision_core.config.strict_yaml import load_yaml, parse_yaml, read_yaml
from vision_core.errors import ConfigError

REFUSED = [
    ("train:\n\tepochs: 3", r"a\.yaml:2:1: .*'\\t'.* Indent with spaces"),
    ("a: 1\na: 2", r"a\.yaml:2:1: key 'a' is given twice"),
    ("t: {b: 1, b: 2}", r"a\.yaml:1:11: key 'b' is given twice"),
    ("1: 2", "key 1 is not text"),
    ("null: 2", "key None is not text"),
    ("yes: 2", "key True is not text"),
    ("? [a]\n: 3", r"key \['a'\] is not text"),
    ("- a", "should hold 'key: value' lines, found a list"),
    ("words", "found a str"),
    ("a: 1\n---\nb: 2", "another document"),
    ("a: *b", r"a\.yaml:1:4: alias '\*b': write the value out"),
    ("a: &a {b: *a}", r"alias '\*a'"),
    ('a: "open', "end of stream"),
    ("a: \x00", "not YAML: .*#x0000"),
    ("a: 2021-99-99", "cannot be read .month must be in 1..12"),
    ("a: " + "9" * 5000, "cannot be read .*value has 5000 digits"),
    ("[" * 5000, "cannot be read .*recursion"),
    ("x: " + "{a: " * 3000, "cannot be read .*recursion"),
    ("a: !!python/object/apply:os.system [touch x]", "python/object/apply:os.system"),
]


@pytest.mark.parametrize(("text", "told"), REFUSED, ids=range(len(REFUSED)))
def test_parse_yaml__refused_in_one_line_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse_yaml(text, "a.yaml")
    assert "\n" not in str(error.value)


def test_parse_yaml__aliases_that_multiply_cost_nothing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="alias"):
        parse_yaml("\n".join(lines), "bomb.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_parse_yaml__empty_text_is_an_empty_mapping(text: str) -> None:
    assert parse_yaml(text, "a.yaml") == {}


def test_read_yaml__byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffname: größe\r\nnumber: 2\r\n".encode())
    assert read_yaml(path) == {"name": "größe", "number": 2}


def test_read_yaml__other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("a: größe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a\.yaml is not UTF-8 text \(byte 5\)"):
        read_yaml(path)


def test_read_yaml__missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").touch()
    with pytest.raises(ConfigError, match=r"dmo\.yaml does not exist\. Did you mean '.*/demo\.yaml'\?"):
        read_yaml(tmp_path / "dmo.yaml")


def test_read_yaml__missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Nor does the folder '.*/absent'"):
        read_yaml(tmp_path / "absent" / "a.yaml")


def test_read_yaml__folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; give the YAML file"):
        read_yaml(tmp_path)


def test_read_yaml__name_beyond_the_systems_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        read_yaml(tmp_path / ("a" * 300))


def test_read_yaml__link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Too many levels"):
        read_yaml(tmp_path / "a.yaml")


def test_read_yaml__endless_device_is_refused_at_a_bound() -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_yaml(Path("/dev/zero"))


def test_read_yaml__pipe_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a: 1")
    os.close(writing)
    try:
        assert read_yaml(Path(f"/dev/fd/{reading}")) == {"a": 1}
    finally:
        os.close(reading)


def test_load_yaml__keys_of_other_programs_are_each_given_once_too() -> None:
    assert load_yaml("{0: a, 1: {yes: b}}", other_keys=True) == {0: "a", 1: {True: "b"}}
    for text in ("{0: a, 0: b}", "a: {1: x, 1: y}", "? [a]\n: 3", "a: &b 1\nc: *b"):
        with pytest.raises(yaml.YAMLError):
            load_yaml(text, other_keys=True)
