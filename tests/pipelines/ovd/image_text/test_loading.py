"""The model that the settings name, from local files alone."""

from pathlib import Path

import pytest

from pipelines.ovd.config import ImageText
from pipelines.ovd.image_text import loading
from pipelines.ovd.image_text.compact import CompactModel, save_compact
from pipelines.ovd.image_text.loading import load_image_text
from pipelines.ovd.image_text.minilm import MiniLM
from tests.pipelines.ovd.image_text.test_compact import CARD
from vision_core.assets import sentence_encoder
from vision_core.bundles.bundle import read_card
from vision_core.errors import ConfigError
from vision_core.randomness import seeded


def test_load__a_compact_model_with_the_installed_encoder(tmp_path: Path) -> None:
    with seeded(0):
        model = CompactModel(MiniLM.read(sentence_encoder()))
    save_compact(tmp_path / "model", model, CARD)
    loaded = load_image_text(ImageText(kind="compact", weights=tmp_path / "model"))
    assert loaded.fingerprint() == model.fingerprint()
    assert (loaded.embed_dim, loaded.image_size) == (64, 32)


@pytest.mark.parametrize(("kind", "told"), [("clip", "a safetensors file of open_clip"), ("compact", "a bundle")])
def test_load__nothing_is_downloaded(kind: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"give {told}.*Nothing is downloaded"):
        load_image_text(ImageText.model_validate({"kind": kind}))


def test_load__without_weights_both_kinds_and_the_shipped_model_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        load_image_text(ImageText())
    told = str(error.value)
    assert "a safetensors file of open_clip, or image_text.kind=compact image_text.weights=BUNDLE" in told
    assert f"(the shipped one: {loading._SHIPPED})" in told
    assert read_card(Path(loading.__file__).parents[3] / loading._SHIPPED).method == "image_text"
