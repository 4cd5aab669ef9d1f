"""The defaults of a task: what a pipeline does that writes its five abstract methods alone."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.vision_core.toy import ToyConfig, ToyItems, ToyLearner, toy_config
from tests.vision_core.toy_classifier import write_classifier
from vision_core.bundles.bundle import Golden, Tensors, read_card, save
from vision_core.bundles.card import Card, TrainedOn
from vision_core.commands.bundles import verify
from vision_core.errors import Checked, DataError, InputError, UsageError
from vision_core.evaluation.rows import Row
from vision_core.pipeline import Pipeline, Predictor, weights_hash
from vision_core.results import RESEARCH_NOTICE
from vision_core.training.learner import Learner, Prepared
from vision_core.training.loaders import Place
from vision_core.training.runtime import machine


class BadItems(ToyItems):
    """Items that cannot be read, by index."""

    def __init__(self, count: int, bad: Mapping[int, Exception]) -> None:
        super().__init__(count)
        self.bad = bad
        self.read: list[Place] = []

    def __getitem__(self, place: Place) -> Tensor:
        self.read.append(place)
        if place[1] in self.bad:
            raise self.bad[place[1]]
        return super().__getitem__(place)


class ToyPipeline(Pipeline[ToyConfig]):
    """The five abstract methods, and nothing else."""

    limits = "Doubles numbers."

    def __init__(self, items: ToyItems | None = None) -> None:
        self.items = items or ToyItems(7)

    def prepare(self, config: ToyConfig) -> Prepared:
        return Prepared(learner=ToyLearner(), items=self.items)

    def deliver(self, config: ToyConfig, learner: Learner, folder: Path) -> Card:
        raise NotImplementedError

    def evaluate(self, config: ToyConfig, bundles: Mapping[str, Path], folder: Path | None) -> list[Row]:
        raise NotImplementedError

    def predictor(self, bundle: Path, device: torch.device, config: ToyConfig | None = None) -> Predictor[Any]:
        raise NotImplementedError

    def demo_data(self, folder: Path) -> str:
        raise NotImplementedError


def validate(items: ToyItems, sample: int | None) -> tuple[Checked, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    found = ToyPipeline(items).validate(toy_config(), sample, lambda done, total: told.append((done, total)))
    assert len(found) == 1
    assert isinstance(found[0], Checked)
    return found[0], told


def test_validate__reads_every_training_item_and_lists_each_fault() -> None:
    faults = {2: InputError("'c.png' is bad."), 5: DataError(["'f.png' is bad.", "'f.txt' is bad."])}
    items = BadItems(7, faults)
    found, told = validate(items, None)
    assert [index for _, index in items.read] == list(range(7))
    assert told == [(done, 7) for done in range(1, 8)]
    assert found.faults == ("'c.png' is bad.", "'f.png' is bad.", "'f.txt' is bad.")
    assert found.num_read == 7
    assert found.lines() == ["train: 7 items, 7 read, 3 faults", *found.faults]


@pytest.mark.parametrize(("sample", "indices"), [(1, [0]), (3, [0, 2, 4]), (7, list(range(7))), (20, list(range(7)))])
def test_validate__a_sample_is_evenly_spaced(sample: int, indices: list[int]) -> None:
    items = BadItems(7, {})
    found, told = validate(items, sample)
    assert [index for _, index in items.read] == indices
    assert (found.num_read, len(told), told[-1]) == (len(indices), len(indices), (len(indices), len(indices)))


def test_validate__an_error_that_is_not_of_the_data_is_ours() -> None:
    with pytest.raises(ZeroDivisionError):
        validate(BadItems(3, {1: ZeroDivisionError()}), None)


def test_validate__rehearses_instead_of_preparing() -> None:
    class Rehearsing(ToyPipeline):
        def prepare(self, config: ToyConfig) -> Prepared:
            raise AssertionError("prepare may write files")

        def rehearse(self, config: ToyConfig) -> Prepared:
            return Prepared(learner=ToyLearner(), items=ToyItems(2))

    assert Rehearsing().validate(toy_config(), None, lambda done, total: None)[0].num_read == 2


def test_inputs__images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    assert ToyPipeline().inputs(tmp_path) == [tmp_path / "a.png", tmp_path / "b.png"]


def test_inputs__a_list_or_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("a.png\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"list\.csv' is a list; give an image, or a folder of images"):
        ToyPipeline().inputs(listed)
    with pytest.raises(DataError, match=r"holds 0 images; 1 \.csv"):
        ToyPipeline().inputs(tmp_path)


def test_answers__verify_asks_for_them_so_that_a_part_without_a_predictor_is_verified_too(tmp_path: Path) -> None:
    def doubled(inputs: Mapping[str, Tensor]) -> Tensors:
        return {"doubled": 2 * inputs["number"]}

    class OfParts(ToyPipeline):
        def answers(self, bundle: Path, device: torch.device) -> Callable[[Mapping[str, Tensor]], Tensors]:
            return doubled

    card = ToyPipeline().card(toy_config(), "part", trained_on=TrainedOn(description="numbers", synthetic=True))
    golden = Golden(inputs={"number": torch.ones(1)}, answer=lambda weights, inputs: doubled(inputs))
    save(tmp_path / "part", {"factor": torch.full((1, 1), 2.0)}, card, golden)
    arguments = Namespace(bundle=tmp_path / "part", device="cpu")
    assert verify.run(arguments, ToyConfig, OfParts) == 0
    with pytest.raises(NotImplementedError):  # of the predictor, which answers by default
        verify.run(arguments, ToyConfig, ToyPipeline)


def test_exportable_and_import_weights__refuse_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        ToyPipeline().exportable(tmp_path, None)
    assert refused.value.problems == ("This task has no export. Use its bundle with predict.",)
    with pytest.raises(UsageError) as refused:
        ToyPipeline().import_weights(tmp_path / "a.pth", toy_config(), tmp_path / "out", trusted=True)
    assert refused.value.problems == ("This task imports no foreign weights. Train with its verb train.",)


def test_card__what_the_cards_of_all_tasks_share() -> None:
    config = toy_config(**{"train.storage": "fp16"})
    trained_on = TrainedOn(description="numbers", synthetic=True)
    card = ToyPipeline().card(config, "doubling", trained_on=trained_on)
    assert (card.task, card.method, card.limits, card.storage) == ("toy", "doubling", "Doubles numbers.", "fp16")
    assert card.config == config.model_dump(mode="json")
    assert (card.architecture, card.preprocessing, card.classes, card.parent) == ({}, {}, (), None)
    assert card.software == machine()["versions"]
    assert (card.trained_on, card.intended_use) == (trained_on, RESEARCH_NOTICE)


def test_card__given_fields_win() -> None:
    trained_on = TrainedOn(description="numbers", synthetic=True)
    card = ToyPipeline().card(toy_config(), "x", trained_on=trained_on, classes=("a",), limits="None known.")
    assert (card.classes, card.limits) == (("a",), "None known.")


def test_defaults__add_nothing_to_a_run_or_a_batch(tmp_path: Path) -> None:
    pipeline, config = ToyPipeline(), toy_config()
    assert pipeline.rehearse(config).items is pipeline.items
    pipeline.check_runs({"": config})
    pipeline.conclude(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert (pipeline.compare({"a": tmp_path}), pipeline.columns(3), pipeline.inspector(None)) == ((), {}, None)
    assert pipeline.follows(config)(tmp_path / "a.png") == ""


def test_weights_hash__of_a_bundle_or_none(tmp_path: Path) -> None:
    write_classifier(tmp_path / "bundle", "resnet18")
    assert weights_hash(tmp_path / "bundle") == read_card(tmp_path / "bundle").hashes["weights.safetensors"]
    assert weights_hash(None) is None
