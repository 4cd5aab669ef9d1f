import pytest
from pydantic import ValidationError

from pipelines.pretrain.data_settings import Augmentation, PretrainData


def test_defaults__are_the_published_recipe() -> None:
    augment = PretrainData().augment
    assert (augment.crop_area, augment.crop_aspect, augment.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert (augment.policy, augment.erasing) == ("none", 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"crop_area": [1.0, 0.08]}, "crop_area should go from the smaller to the larger value, got '1, 0.08'"),
        ({"crop_aspect": [2.0, 1.0]}, "crop_aspect should go from"),
        ({"crop_area": [0.0, 1.0]}, "greater than 0"),
        ({"policy": "cutout"}, "'randaugment'"),
    ],
)
def test_augmentation__refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Augmentation.model_validate(keys)


def test_data__the_square_must_fit_into_what_is_resized() -> None:
    with pytest.raises(ValidationError, match="resize_px should be at least image_px '300', got '256'"):
        PretrainData(image_px=300)
