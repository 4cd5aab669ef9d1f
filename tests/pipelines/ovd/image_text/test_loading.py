"""The model that the settings name, from local files alone."""

from pathlib import Path

import pytest

from pipelines.ovd.config import ImageText
from pipelines.ovd.image_text.compact import CompactModel, save_compact
from pipelines.ovd.image_text.loading import load_image_text
from pipelines.ovd.image_text.minilm import MiniLM
from tests.pipelines.ovd.image_text.test_compact import CARD
from vision_core.assets import sentence_encoder
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
