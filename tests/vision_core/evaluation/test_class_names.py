import unicodedata

import pytest

from vision_core.evaluation.class_names import (
    are_near,
    are_variants,
    clean_name,
    find_variants,
    is_no_name,
    label_name,
    missing_value_problems,
    near_name,
    variant_problems,
    written_name,
)

COMPOSED = "caf\u00e9"


@pytest.mark.parametrize(
    "text", ["", " ", "nan", "NaN", "NA", "n/a", "#N/A", "#REF!", "#DIV/0!", "None", "<NA>", "\ufeff"]
)
def test_label_name__a_missing_value_is_no_name_unless_it_is_a_class(text: str) -> None:
    assert is_no_name(text) and label_name(text) == ""
    assert label_name(text, ("other", text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.0", "1"), ("01", "1"), ("1.", "1"), ("+1", "1"), ("0", "0"), ("00", "0"), ("-1.0", "-1"), ("10", "10"),
        ("0.5", "0.5"), ("1e3", "1e3"), ("v1.0", "v1.0"), ("  cat ", "cat"), ("\ufeffcat", "cat"), ("c\u200bat", "cat"),
        ("cat\u00a0", "cat"), (unicodedata.normalize("NFD", COMPOSED), COMPOSED), ("Cat", "Cat"),
    ],
)  # fmt: skip
def test_written_name__as_it_is_meant(text: str, expected: str) -> None:
    assert written_name(text) == label_name(text) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("cat", "CAT", True), ("traffic light", "traffic-light", True), ("traffic_light", "TrafficLight", True),
        ("1", "1.0", True), ("01", "1", True), ("car 2", "car2", True), ("\uff23at", "cat", True),
        ("stra\u00dfe", "STRASSE", True),
        ("1-2", "12", False), ("1", "-1", False), ("1", "2", False), ("cat", "car", False),
        ("grade 1", "grade 2", False),
        ("grade 1-2", "grade 12", False),
    ],
)  # fmt: skip
def test_are_variants__case_blanks_and_hyphens_between_letters(one: str, other: str, *, expected: bool) -> None:
    assert are_variants(one, other) is are_variants(other, one) is expected
    assert (find_variants([one, other]) == [(one, other)]) is expected


def test_are_near__plurals_and_misspellings_of_words() -> None:
    assert are_near("car", "cars") and are_near("pedestrain", "pedestrian")
    assert not are_near("cat", "car") and not are_near("class 1", "class 2")


def test_problems__say_both_names_and_what_to_do() -> None:
    (told,) = variant_problems(["b", "cat", "Cat"], "the files")
    assert told.startswith("the files name 'cat' and 'Cat'.") and told.endswith("list both in data.classes.")
    (told,) = missing_value_problems({"nan": 3, "cat": 5, "NA": 0}, (), "images")
    assert told.startswith("'3' images bear the name 'nan', which stands for a missing value.")
    assert missing_value_problems({"nan": 3}, ("nan",), "images") == []


def test_near_name__suggests_or_lists() -> None:
    assert near_name("CaT", ["dog", "cat"]) == "Did you mean 'cat'?"
    assert near_name("x", ["dog", "cat"]) == "There are: 'dog, cat'."
    assert clean_name(" a ") == "a"
