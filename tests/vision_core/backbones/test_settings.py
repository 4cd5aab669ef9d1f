import pytest
from pydantic import ValidationError

from vision_core.backbones.settings import Preprocessing


def test_preprocessing__one_number_is_for_all_channels() -> None:
    assert Preprocessing.model_validate({"mean": 0.3162, "std": 0.3213}).mean == (0.3162, 0.3162, 0.3162)


def test_preprocessing__in_bytes() -> None:
    scaled = Preprocessing(mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.4)).in_bytes()
    assert scaled.values == "0 to 255"
    assert scaled.mean == pytest.approx((51.0, 102.0, 153.0))
    assert scaled.std == pytest.approx((25.5, 51.0, 102.0))
    assert scaled.in_bytes() == scaled


@pytest.mark.parametrize("std", [0.0, (0.1, 0.2), float("nan")])
def test_preprocessing__impossible_deviation(std: object) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({"mean": 0.5, "std": std})


def test_preprocessing__says_more_to_other_readers() -> None:
    assert Preprocessing.model_validate({"mean": 0.5, "std": 0.2, "alpha": "laid over white"}).std == (0.2, 0.2, 0.2)
