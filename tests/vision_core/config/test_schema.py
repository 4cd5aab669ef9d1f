import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tests.vision_core.toy import ToyConfig
from vision_core.config.schema import Optim, Section, Source, Teacher, Train, merged
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.images.augmentation_settings import StrongViewSettings

SECTIONS = [Source, Train, Optim, Teacher, DetectionData, DetectorSettings, StrongViewSettings]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_section__every_key_is_described_and_the_defaults_are_valid(section: type[BaseModel]) -> None:
    assert all(field.description for field in section.model_fields.values())
    section()


class Inner(Section):
    red: int = 1
    green: int = 1
    blue: int = 1


class Outer(Section):
    inner: Inner = Inner(red=2)


class Outermost(Section):
    outer: Outer = Outer(inner=Inner(green=3))
    plain: Outer = Outer()
    is_blue: bool = False

    @classmethod
    def conditional_defaults(cls, keys: Mapping[str, Any]) -> Mapping[str, Any]:
        return merged({"plain": {"inner": {"blue": 9}}}, keys) if keys.get("is_blue") else keys


@pytest.mark.parametrize(
    ("given", "colours"),
    [
        ({}, (1, 3, 1)),
        ({"outer": {}}, (1, 3, 1)),
        ({"outer": {"inner": {"blue": 5}}}, (1, 3, 5)),
        ({"outer": {"inner": Inner(blue=5)}}, (1, 1, 5)),
    ],
)
def test_section__given_in_part_keeps_the_defaults_of_its_place(
    given: dict[str, object], colours: tuple[int, ...]
) -> None:
    inner = Outermost.model_validate(given).outer.inner
    assert (inner.red, inner.green, inner.blue) == colours


def test_section__defaults_that_hang_on_other_keys_yield_to_what_is_given() -> None:
    inner = Outermost.model_validate({"is_blue": True}).plain.inner
    assert (inner.red, inner.green, inner.blue) == (2, 1, 9)
    inner = Outermost.model_validate({"is_blue": True, "plain": {"inner": {"green": 4, "blue": 5}}}).plain.inner
    assert (inner.red, inner.green, inner.blue) == (2, 4, 5)


def test_section__is_frozen_and_refuses_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Train().epochs = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Train.model_validate({"epoch": 3})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (Train, "epochs", 0),
        (Train, "batch_size", 0),
        (Train, "accumulate", 0),
        (Train, "max_steps", 0),
        (Train, "seed", -1),
        (Train, "workers", -1),
        (Train, "save_every", 0),
        (Train, "log_every", 0),
        (Train, "precision", "fp8"),
        (Optim, "lr", 0),
        (Optim, "lr", float("nan")),
        (Optim, "momentum", 1.1),
        (Optim, "weight_decay", -1),
        (Optim, "clip_norm", float("inf")),
        (Teacher, "keep_rate", -0.1),
        (Teacher, "keep_rate", float("nan")),
        (DetectorSettings, "freeze_at", 6),
        (DetectorSettings, "longest_edge_px", 0),
        (DetectionData, "max_megapixels", 0),
    ],
)
def test_section__value_out_of_range_is_refused(section: type[Section], key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        section.model_validate({key: value})


@pytest.mark.parametrize("said", [False, "off"])
def test_train__precision_takes_the_bare_off_of_yaml(said: object) -> None:
    assert Train.model_validate({"precision": said}).precision == "off"


def test_settings__import_no_torch() -> None:
    code = "import sys, vision_core.detection.settings, vision_core.config.loading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_config__text_of_numbers_is_a_number() -> None:
    assert ToyConfig.model_validate({"optim": {"lr": "1e-3"}}).optim.lr == 1e-3
