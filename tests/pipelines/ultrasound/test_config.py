import pytest

from pipelines.ultrasound.config import BEDSIDE, UltrasoundConfig
from vision_core.config.loading import load
from vision_core.errors import ConfigError
from vision_core.segmentation.settings import THIN


def test_config__defaults_are_the_published_pair_and_schedule() -> None:
    config = UltrasoundConfig()
    assert (config.segmenter.layers, config.segmenter.first, config.screen.network) == (5, 16, "densenet161")
    assert (config.train.epochs, config.train.eval_every, config.train.patience) == (200, 5, 5)
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 1e-3, 0)
    assert load(UltrasoundConfig, None, ["method=screen"]).train.patience == 0


def test_config__a_preset_gives_way_to_what_is_stated() -> None:
    config = load(UltrasoundConfig, None, ["preset=bedside", "segmenter.layers=3"])
    assert config.screen == BEDSIDE
    assert config.segmenter == THIN.model_copy(update={"layers": 3})


def test_config__the_method_decides_on_the_loss() -> None:
    assert load(UltrasoundConfig, None, ["method=segment_frame_aware"]).loss.frame_aware.weight == 0.5
    for words in (["loss.frame_aware.weight=1"], ["method=segment_frame_aware", "loss.frame_aware.weight=0"]):
        with pytest.raises(ConfigError, match="does not fit method"):
            load(UltrasoundConfig, None, words)


def test_config__what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch normalisation needs at least 2 frames"):
        load(UltrasoundConfig, None, ["train.batch_size=1"])
    with pytest.raises(ConfigError, match=r"data\.classes"):
        load(UltrasoundConfig, None, ["data.classes=[a,b]"])
