from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import Field

from tests.vision_core.toy import ToyConfig
from vision_core.config.loading import describe, dump, fingerprint, from_mapping, load, load_runs, nearest_key, replace
from vision_core.config.schema import Config, Section
from vision_core.config.strict_yaml import parse_yaml
from vision_core.errors import ConfigError


class Labels(Section):
    threshold: float = Field(0.7, ge=0, le=1, description="Scores strictly above.")


class DeepConfig(ToyConfig):
    labels: Labels = Labels()
    names: tuple[str, ...] = ()
    folder: Path | None = None


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def test_load__words_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    config = load(DeepConfig, written(tmp_path, "train: {epochs: 2, seed: 4}"), ["train.epochs=3"])
    assert (config.train.epochs, config.train.seed, config.train.workers) == (3, 4, "auto")


def test_load__the_later_of_two_words_wins() -> None:
    assert load(DeepConfig, None, ["train.epochs=3", "train.epochs=4"]).train.epochs == 4


def test_load__dotted_and_nested_keys_mean_the_same(tmp_path: Path) -> None:
    dotted = load(DeepConfig, written(tmp_path, "train.epochs: 2\noptim: {lr: 1e-4}\noptim.momentum: 0"))
    nested = load(DeepConfig, written(tmp_path, "train: {epochs: 2}\noptim: {lr: 0.0001, momentum: 0}"))
    assert dotted == nested


def test_load__key_given_twice_in_two_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs: is given twice  \[.*a\.yaml\]"):
        load(DeepConfig, written(tmp_path, "train.epochs: 2\ntrain: {epochs: 3}"))


def test_load__all_problems_at_once_each_with_its_origin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(DeepConfig, written(tmp_path, "optim: {nmae: sgd}"), ["train.epochs=zero"])
    path = tmp_path / "a.yaml"
    assert error.value.lines() == (
        "error[CONFIG] 2 problems in the configuration:\n"
        "  train.epochs: should be a valid integer, got 'zero'  [command line]\n"
        f"  optim.nmae: unknown key; did you mean 'name'?  [{path}]"
    )


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("thresold=0.3", r"thresold: unknown key; did you mean 'labels\.threshold'\?"),
        ("labels.thresold=0.3", r"labels\.thresold: unknown key; did you mean 'threshold'\?"),
        ("epochs=3", r"did you mean 'train\.epochs'\?"),
        ("zzz=3", r"zzz: unknown key; known here: .*train, .*labels"),
        ("runs=3", "runs: unknown key"),
        ("labels.threshold=-1", r"labels\.threshold: should be greater than or equal to 0, got -1"),
        ("optim.momentum=1.7", r"optim\.momentum: should be less than or equal to 1, got 1\.7"),
        ("train.epochs=ten", r"train\.epochs: should be a valid integer, got 'ten'"),
        ("train.epochs=2.5", r"train\.epochs: should be a valid integer, got 2\.5"),
        ("train.epochs=", r"train\.epochs: should be a valid integer, got nothing"),
        ("train.epochs.deep=3", r"train\.epochs: should be a valid integer, got \{'deep': 3\}"),
        ("train=3", r"train: should be a section of 'key: value' lines, got 3"),
        ("names=car", r"names: should be a list such as \[a, b\], got 'car'"),
        ("names=[yes]", r"names\.0: should be text, a number in quotes, got True"),
        ("folder=2024", "folder: should be a path, got 2024"),
        ("optim.name=sdg", "optim.name: should be 'sgd', 'adam' or 'adamw', got 'sdg'"),
        ("optim.lr=.nan", "optim.lr: should be a finite number, got nan"),
        ("optim.lr=NaN", "optim.lr: should be a finite number, got 'NaN'"),
        ("optim.lr=inf", "optim.lr: should be a finite number"),
        ("optim.lr=1e400", "optim.lr: should be a finite number"),
        ("names=[a,b", r"names: cannot read the value '\[a,b'; quote it"),
        ("names=*a", "names: cannot read the value"),
        ("labels={threshold: 1, threshold: 0}", "labels: cannot read the value"),
        ("train.seed=" + "9" * 5000, "train.seed: cannot read the value '9999"),
        ("folder=2021-99-99", "folder: cannot read the value"),
        ("=3", "'=3': expected key=value"),
        ("/", "'/': expected key=value; a folder of data is given as data.root=/ "),
        ("train.epochs", "'train.epochs': expected key=value"),
        ("train..epochs=3", "'train..epochs=3': expected key=value"),
        ("train.=3", "'train.=3': expected key=value"),
    ],
    ids=lambda text: text[:24],
)
def test_load__word_is_refused(word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told + r".*\[command line\]$"):
        load(DeepConfig, None, [word])


def test_load__a_value_with_a_space_stands_in_quotes() -> None:
    with pytest.raises(ConfigError, match=r"'images': .* stands in quotes: 'folder=my images'  "):
        load(DeepConfig, None, ["folder=my", "images"])


def test_load__long_values_are_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as error:
        load(DeepConfig, None, ["train.epochs=" + "z" * 10_000])
    assert len(str(error.value)) < 200


def test_load__bare_off_of_yaml_is_a_precision(tmp_path: Path) -> None:
    assert load(DeepConfig, written(tmp_path, "train: {precision: off}")).train.precision == "off"


def test_load__file_with_runs_is_refused_where_one_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"describes the runs fog, night; this command takes a file without 'runs'"):
        load(DeepConfig, written(tmp_path, "runs: {fog: {}, night: {}}"))


def test_load_runs__each_differs_from_what_they_share(tmp_path: Path) -> None:
    path = written(tmp_path, "train.epochs: 2\nruns:\n  fog.v2: {train.seed: 1}\n  night:\n")
    runs = load_runs(DeepConfig, path, ["train.workers=1"])
    found = {name: (run.train.epochs, run.train.seed, run.train.workers) for name, run in runs.items()}
    assert found == {"fog.v2": (2, 1, 1), "night": (2, 0, 1)}


def test_load_runs__problems_name_the_run_and_shared_ones_are_told_once(tmp_path: Path) -> None:
    text = "optim.lr: 0\nruns: {fog: {train.epoch: 3}, night: {train.epochs: zero}}"
    with pytest.raises(ConfigError) as error:
        load_runs(DeepConfig, written(tmp_path, text))
    path = tmp_path / "a.yaml"
    assert sorted(error.value.problems) == [
        f"optim.lr: should be greater than 0, got 0  [{path}]",
        f"train.epoch: unknown key; did you mean 'epochs'?  [{path}, run 'fog']",
        f"train.epochs: should be a valid integer, got 'zero'  [{path}, run 'night']",
    ]


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ("[a]", r"runs: should map names to keys, got \['a'\]"),
        ("3", "runs: should map names to keys, got 3"),
        ("{a: 3}", "runs.a: should be a section"),
        ("{a: {runs: {b: {}}}}", "runs: unknown key"),
        ("{../b: {}}", "runs: '../b' cannot name a folder"),
        ("{a/b: {}}", "runs: 'a/b' cannot name a folder"),
        ("{.hidden: {}}", "cannot name a folder"),
        ('{"": {}}', "runs: '' cannot name a folder"),
    ],
)
def test_load_runs__bad_runs_are_refused(tmp_path: Path, runs: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_runs(DeepConfig, written(tmp_path, f"runs: {runs}"))


@pytest.mark.parametrize("text", ["", "runs:", "runs: {}"])
def test_load_runs__without_names_there_is_one_run(tmp_path: Path, text: str) -> None:
    assert list(load_runs(DeepConfig, written(tmp_path, text))) == [""]


def test_from_mapping__problem_names_where_the_mapping_is_from() -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs: .*\[model/card\.json\]"):
        from_mapping(DeepConfig, {"train": {"epochs": 0}}, [], "model/card.json")


def test_replace__copies_and_checks() -> None:
    config = DeepConfig()
    assert replace(config, {"train.seed": 3}).train.seed == 3
    assert config.train.seed == 0
    with pytest.raises(ConfigError, match=r"train\.seed"):
        replace(config, {"train.seed": -1})


def test_load__does_not_change_what_it_was_given() -> None:
    keys = {"train": {"epochs": 2}}
    from_mapping(DeepConfig, keys, ["train.epochs=3"], "")
    assert keys == {"train": {"epochs": 2}}


@pytest.mark.parametrize("write", [dump, describe])
def test_dump_and_describe__load_to_the_same_configuration(write: Callable[[Config], str], tmp_path: Path) -> None:
    words = ["names=[a, 'no', '3', 'ü # b']", "folder=x y", "optim.lr=1e-5", "optim.milestones=[3, 3]"]
    config = load(DeepConfig, None, words)
    assert load(DeepConfig, written(tmp_path, write(config))) == config


def test_describe__every_key_has_a_description() -> None:
    lines = [line for line in describe(ToyConfig()).splitlines() if not line.endswith(":") and "method" not in line]
    assert all(len(line.partition("  # ")[2]) > 5 for line in lines)
    assert any("One of: sgd, adam, adamw." in line for line in lines)


def test_dump__is_strict_yaml() -> None:
    assert parse_yaml(dump(DeepConfig()), "dump")["train"]["epochs"] == 10


def test_fingerprint__depends_on_values_and_not_on_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@pytest.mark.parametrize(("name", "key"), [("thresold", "labels.threshold"), ("seed", "train.seed"), ("zzzz", "")])
def test_nearest_key__is_found_in_any_section(name: str, key: str) -> None:
    assert nearest_key(DeepConfig, name) == key
