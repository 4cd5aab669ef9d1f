import logging
from pathlib import Path

import pytest
import torch

from tests.forked import run
from vision_core.errors import CheckpointError
from vision_core.training import checkpoint

CONFIG = {"train": {"epochs": 2, "workers": 0}, "names": ["a"]}


def state(number: int) -> checkpoint.State:
    return {"config": CONFIG, "learner": {"weight": torch.full((300,), float(number))}, "counters": {"step": number}}


def weight(folder: Path) -> float:
    found = checkpoint.load(folder, CONFIG)
    assert found is not None
    return float(found["learner"]["weight"].unique())


def test_load__nothing_there_is_nothing(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path, CONFIG) is None


def test_save__newest_is_read_and_the_one_before_is_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        checkpoint.save(tmp_path, state(number))
    assert weight(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.prev.pt", "last.pt"]
    (tmp_path / "last.pt").unlink()
    assert weight(tmp_path) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_load__damaged_file_is_noticed_and_the_one_before_is_taken(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    path = tmp_path / "last.pt"
    whole = path.read_bytes()
    place = whole.index(torch.full((300,), 2.0).numpy().tobytes()) + 40
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    path.write_bytes({"flip": flipped, "cut": whole[:900], "empty": b"", "text": b"words"}[damage])
    with caplog.at_level(logging.WARNING):
        assert weight(tmp_path) == 1
    assert "last.pt is damaged" in caplog.text
    assert "Going on from last.prev.pt" in caplog.text


def test_load__a_checkpoint_from_before_the_rules_for_images_left_out_is_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    assert checkpoint.load(tmp_path, CONFIG | {"data": {"on_missing": "refuse", "on_corrupt": "skip"}}) is not None


def test_load__both_damaged_are_told_with_the_remedy(tmp_path: Path) -> None:
    for name in ("last.pt", "last.prev.pt"):
        (tmp_path / name).write_bytes(b"words")
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(tmp_path, CONFIG)
    assert len(error.value.problems) == 2
    assert all("is damaged" in problem and "--overwrite" in problem for problem in error.value.problems)


def test_load__code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (proof,)  # type: ignore[return-value]

    torch.save({"format": 1, "config": CONFIG, "learner": Evil()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(tmp_path, CONFIG)
    assert not proof.exists()


@pytest.mark.parametrize("found", [{"format": 1, "config": {}}, {"weight": torch.zeros(1)}, [1, 2]])
def test_load__other_formats_are_refused(tmp_path: Path, found: object) -> None:
    torch.save(found, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"has format (1|None), expected 2"):
        checkpoint.load(tmp_path, CONFIG)


def test_load__other_settings_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    with pytest.raises(CheckpointError, match=r"train\.epochs: 2 then, 3 now"):
        checkpoint.load(tmp_path, {**CONFIG, "train": {"epochs": 3, "workers": 0}})


def test_load__number_of_workers_may_change(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    assert checkpoint.load(tmp_path, {**CONFIG, "train": {"epochs": 2, "workers": 4}}) is not None


def test_load__tuples_equal_the_lists_that_json_makes_of_them(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    assert checkpoint.load(tmp_path, {**CONFIG, "names": ("a",)}) is not None


# A real full disk needs a file system of our own; the limit on file size fails at the same calls.
FILL = """
import resource, sys, torch
from pathlib import Path
from vision_core.training import checkpoint
from vision_core.errors import EnvironmentFault
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, before[1]))
try:
    checkpoint.save(Path(sys.argv[1]), {{"config": {{}}, "learner": {{"weight": torch.ones(100_000)}}}})
except EnvironmentFault as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)  # of what is printed, too
    print(error)
"""


@pytest.mark.parametrize("limit", [pytest.param(10, marks=pytest.mark.slow), 50_000])
def test_save__full_disk_leaves_the_checkpoint_before(tmp_path: Path, limit: int) -> None:
    checkpoint.save(tmp_path, state(1))
    code = FILL.format(limit=limit)
    told, _ = run(["-c", code, str(tmp_path)])
    assert f"Cannot write '{tmp_path / 'last.pt'}': file too large, after {limit} bytes" in told
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert weight(tmp_path) == 1


def test_load__entries_that_are_not_finite_are_those_that_are_checked(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2) | {"learner": {"weight": torch.full((300,), torch.inf)}})
    found = checkpoint.load(tmp_path, CONFIG)
    assert found is not None
    assert found["counters"]["step"] == 2  # nothing is known of this entry: it may be a record of what is to come
    found = checkpoint.load(tmp_path, CONFIG, checked=["weight"])
    assert found is not None
    assert found["counters"]["step"] == 1


def test_load__a_state_of_the_optimizer_that_is_not_finite_is_none(tmp_path: Path) -> None:
    bad = {"optimizers": {"": {"state": {0: {"exp_avg": torch.tensor([torch.nan]), "step": torch.tensor(3)}}}}}
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2) | bad)
    assert weight(tmp_path) == 1
    (tmp_path / "last.prev.pt").unlink()
    with pytest.raises(
        CheckpointError, match=r"1 entries that are not finite, first 'optimizer..*exp_avg'.*--overwrite"
    ):
        checkpoint.load(tmp_path, CONFIG)


def test_checked_entries__parameters_and_statistics_of_norms() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    module.register_buffer("record", torch.full((1,), torch.nan))
    names = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert checkpoint.checked_entries(module) == names


@pytest.mark.parametrize("key", ["on_bad_loss", "on_nothing", "preset"])
def test_load__a_checkpoint_from_before_a_free_setting_is_read(tmp_path: Path, key: str) -> None:
    checkpoint.save(tmp_path, state(1))
    section = {"on_bad_loss": "train", "on_nothing": "pseudo_labels"}.get(key)
    new = {section: {**CONFIG.get(section, {}), key: "stop"}} if section else {key: "small"}  # type: ignore[dict-item]
    assert checkpoint.load(tmp_path, {**CONFIG, **new}) is not None


@pytest.mark.parametrize(
    ("key", "is_accepted"),
    [
        ("train.epochs", True),
        ("policy_optim.lr", True),
        ("transfer.data.root", True),
        ("source.weights", True),
        ("optim.name", False),
        ("data.split", False),
        ("model.lr", False),
        ("lr", False),
    ],
)
def test_load__accepted_changes(tmp_path: Path, key: str, is_accepted: bool) -> None:
    keys: checkpoint.State = {}
    inner = keys
    *sections, name = key.split(".")
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = 1
    checkpoint.save(tmp_path, {"config": keys})
    assert checkpoint.load(tmp_path, keys) is not None
    inner[name] = 2
    with pytest.raises(CheckpointError, match="was made with other settings") as refused:
        checkpoint.load(tmp_path, keys)
    assert ("--accept-changes" in str(refused.value)) == is_accepted
    if is_accepted:
        assert checkpoint.load(tmp_path, keys, accepts_changes=True) is not None
    else:
        with pytest.raises(CheckpointError, match=f"{key}: 1 then, 2 now"):
            checkpoint.load(tmp_path, keys, accepts_changes=True)
