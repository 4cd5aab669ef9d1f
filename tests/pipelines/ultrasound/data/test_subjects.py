import json
from pathlib import Path

import pytest

from pipelines.ultrasound.data.subjects import folds, read_splits, read_subjects, refuse_shared, split_subjects
from vision_core.errors import ConfigError, DataError

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
SUBJECTS = [f"{number:04d}" for number in range(11)]


def test_split_subjects__every_subject_is_in_one_list_by_largest_remainder() -> None:
    found = split_subjects(SUBJECTS, SHARES, 0, SUBJECTS).lists
    assert {name: len(own) for name, own in found.items()} == {"train": 7, "val": 2, "test": 2}  # of 6.6, 2.2, 2.2
    assert sorted(each for own in found.values() for each in own) == SUBJECTS


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.1), (0.8, 0.2, 0.0), (1 / 3, 1 / 3, 1 / 3), (0.0, 0.0, 1.0)])
def test_split_subjects__no_subject_is_dropped(shares: tuple[float, float, float]) -> None:
    for count in range(13):
        named = [str(number) for number in range(count)]
        lists = split_subjects(named, dict(zip(SHARES, shares, strict=True)), 1, named).lists
        assert sum(map(len, lists.values())) == count
        assert all(len(lists[name]) == 0 for name, share in zip(SHARES, shares, strict=True) if share == 0)


def test_split_subjects__shuffled_by_seed_alone() -> None:
    one, same, other = (
        split_subjects(each, SHARES, seed, ()).lists
        for each, seed in ((SUBJECTS, 3), (SUBJECTS[::-1], 3), (SUBJECTS, 4))
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize("shares", [{"train": 0.6, "val": 0.3}, {"train": 1.2, "val": -0.2}])
def test_split_subjects__shares_that_do_not_sum_to_one_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Give shares of 0 or more that sum to 1"):
        split_subjects(SUBJECTS, shares, 0, ())


def test_read_splits__as_written(tmp_path: Path) -> None:
    written = split_subjects(SUBJECTS, SHARES, 5, ["frame_0000_000"])
    written.write(tmp_path / "splits.json")
    assert read_splits(tmp_path / "splits.json", SUBJECTS) == written
    assert json.loads((tmp_path / "splits.json").read_text())["seed"] == 5


def test_read_splits__a_list_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text('{"seed": 0, "keys_sha256": "", "subjects": {"train": ["a", "b"], "train": ["a"], "val": ["c"]}}')
    with pytest.raises(DataError, match="names the key 'train' twice"):
        read_splits(path, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"train": ["a", "b"], "test": ["b", "c"]}, "subject 'b' is in 'train' and in 'test'"),
        ({"train": ["a", "b", "b"], "test": ["c"]}, "subject 'b' is in 'train' 2 times"),
        ({"train": ["a", "b"], "test": ["c", "d"]}, "subject 'd' is not in the data"),
        ({"train": ["a", "b"], "test": []}, "subject 'c' of the data is in no list"),
    ],
)
def test_read_splits__lists_that_do_not_fit_are_refused(tmp_path: Path, lists: object, told: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"seed": 0, "subjects": lists, "keys_sha256": ""}))
    with pytest.raises(DataError, match=told):
        read_splits(path, ["a", "b", "c"])


@pytest.mark.parametrize(
    "content", ["", "[]", '{"seed": 0}', '{"seed": 0, "subjects": [1], "keys_sha256": ""}', "\xff"]
)
def test_read_splits__damage_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "splits.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="Remove it to split anew"):
        read_splits(tmp_path / "splits.json", [])


def test_refuse_shared__names_the_first_and_counts_the_others() -> None:
    lists = {"train": SUBJECTS, "val": SUBJECTS}
    with pytest.raises(DataError, match="7 more of this kind") as refused:
        refuse_shared(lists, "data")
    assert len(refused.value.problems) == 5


def test_folds__what_is_left_over_goes_to_the_first() -> None:
    found = folds(SUBJECTS, 4, 0)
    assert [len(each) for each in found] == [5, 2, 2, 2]
    assert sorted(each for part in found for each in part) == SUBJECTS
    with pytest.raises(ConfigError, match="'12' folds of 11 subjects"):
        folds(SUBJECTS, 12, 0)


def test_read_subjects__of_a_list_beside(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    assert read_subjects(path, [0, 1]) == {}
    path.write_text("Index;Subject\n00001;b\n0;a\n")
    assert read_subjects(path, [0, 1]) == {(0,): "a", (1,): "b"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("index,patient\n0,a\n", "has no column 'subject'"),
        ("index,subject\n0,a\n0,b\n", "index '0' is listed twice"),
        ("index,subject\n0,a\n7,b\n", "index '7' is the number of no frame"),
        ("index,subject\n0,a\n", "names no subject for frame '1'"),
        ("index,subject\n0,a\n1,\n", "index '1' has no subject"),
        ("index,subject\nfirst,a\n", "index 'first' is the number of no frame"),
        ("", "has no column 'index'"),
    ],
)
def test_read_subjects__lists_that_do_not_fit_are_refused(tmp_path: Path, rows: str, told: str) -> None:
    (tmp_path / "subjects.csv").write_text(rows)
    with pytest.raises(DataError, match=told):
        read_subjects(tmp_path / "subjects.csv", [0, 1])
