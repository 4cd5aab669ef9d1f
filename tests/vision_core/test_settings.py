import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError

from tests.vision_core.toy import ToyConfig
from vision_core.detection.settings import DetectionData, DetectorSettings
from vision_core.settings import Optim, Section, Source, Teacher, Train
from vision_core.view_settings import StrongViewSettings

SECTIONS = [Source, Train, Optim, Teacher, DetectionData, DetectorSettings, StrongViewSettings]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_section__every_key_is_described_and_the_defaults_are_valid(section: type[BaseModel]) -> None:
    assert all(field.description for field in section.model_fields.values())
    section()


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
    code = "import sys, vision_core.detection.settings, vision_core.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_config__text_of_numbers_is_a_number() -> None:
    assert ToyConfig.model_validate({"optim": {"lr": "1e-3"}}).optim.lr == 1e-3
