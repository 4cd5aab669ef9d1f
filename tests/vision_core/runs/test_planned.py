"""Which runs a command describes: seeds, folds and stages."""

import argparse
from pathlib import Path

import pytest

from tests.vision_core.toy import ToyConfig
from vision_core.config.loading import dump, replace
from vision_core.config.schema import Config
from vision_core.errors import UsageError
from vision_core.runs.planned import describe_runs


class StagedConfig(ToyConfig):
    """Two stages, as long as neither is named."""

    def expand(self) -> dict[str, Config]:
        if self.method != "toy":
            return {"": self}
        first = replace(self, {"method": "first"})
        return {"first": first, "second": replace(self, {"method": "second", "source.run": "first"})}


def asked(**options: object) -> argparse.Namespace:
    known = {"config": None, "out": None, "resume": False, "seeds": None, "device": None, "words": ["data.root=x"]}
    return argparse.Namespace(**{**known, **options})


def test_describe_runs__stages_of_each_seed_start_from_their_own() -> None:
    runs = describe_runs(asked(seeds=(0, 1)), StagedConfig)
    assert list(runs) == ["seed-0-first", "seed-0-second", "seed-1-first", "seed-1-second"]
    assert [config.source.run for config in runs.values()] == [None, "seed-0-first", None, "seed-1-first"]
    assert [config.train.seed for config in runs.values()] == [0, 0, 1, 1]


def test_describe_runs__found_ones_come_behind_what_they_start_from(tmp_path: Path) -> None:
    written = describe_runs(asked(), StagedConfig)
    for folder, name in (("z", "first"), ("a", "second")):
        (tmp_path / folder).mkdir()
        config = replace(written[name], {"source.run": "z" if name == "second" else None})
        (tmp_path / folder / "config.yaml").write_text(dump(config))
    found = describe_runs(asked(resume=True, out=tmp_path, words=[]), StagedConfig)
    assert list(found) == ["z", "a"]


def test_describe_runs__what_it_starts_from_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text(dump(describe_runs(asked(), StagedConfig)["second"]))
    with pytest.raises(UsageError, match="Run 'a' starts from the run 'first', which is not here"):
        describe_runs(asked(resume=True, out=tmp_path, words=[]), StagedConfig)
