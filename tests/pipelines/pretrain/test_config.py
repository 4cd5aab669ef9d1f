import pytest
from pydantic import ValidationError

from pipelines.pretrain.config import Bases, Mask, Mixing, Reinforce, Released


def test_defaults__are_the_released_recipe() -> None:
    assert Mask().model_dump() == {"grid": 64, "kernel": 13, "sigma": 6.0, "unlearned_concentration": 1.6}
    assert Bases().model_dump() == {"share": 0.9, "keep_rate": 0.99}
    assert Released().scale_classifier
    assert Mixing().model_dump() == {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0}
    assert (Reinforce().baseline_keep_rate, Reinforce().entropy_weight) == (0.9, 0.0)


def test_mask__even_kernel_is_refused_with_its_value() -> None:
    with pytest.raises(ValidationError, match="should be odd"):
        Mask(kernel=12)


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"sigma": 0.0}, {"unlearned_concentration": -1.0}])
def test_mask__impossible_value_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Mask.model_validate(wrong)
