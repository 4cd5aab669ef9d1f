"""The compact model: what is trained, what is stored, and who may load it."""

from pathlib import Path

import pytest
import torch

from pipelines.ovd.image_text.compact import METHOD, CompactModel, load_compact, save_compact
from tests.pipelines.ovd.image_text.encoders import HashedWords
from vision_core.bundles.bundle import load
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import CheckpointError
from vision_core.randomness import seeded

CARD = Card(
    task="ovd",
    method=METHOD,
    config={},
    architecture={},
    preprocessing={},
    classes=("disc", "square"),
    trained_on=TrainedOn(description="a test", synthetic=True),
)


def _model(seed: int = 0) -> CompactModel:
    with seeded(seed):
        return CompactModel(HashedWords())


def test_parameters__the_frozen_encoder_is_none_of_them() -> None:
    model = _model()
    assert sum(each.numel() for each in model.parameters()) == 52_656 + 98_368 + 384 * 64 + 64 + 1
    assert not any(name.startswith("_text") for name in model.state_dict())


def test_encode__length_one_and_no_gradient() -> None:
    model = _model()
    crops = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    images, texts = model.encode_images(crops), model.encode_texts(["a cat", "a dog"])
    assert images.shape == (3, 64)
    assert texts.shape == (2, 64)
    torch.testing.assert_close(torch.cat([images, texts]).norm(dim=1), torch.ones(5))
    assert not images.requires_grad
    torch.testing.assert_close(model.encode_images(crops[1:2]), images[1:2], atol=1e-6, rtol=0)
    assert model.encode_images(crops[:0]).shape == model.encode_texts([]).shape == (0, 64)


def test_scale__at_most_a_hundred() -> None:
    model = _model()
    assert model.scale().item() == pytest.approx(10)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    assert model.scale().item() == pytest.approx(100)


def test_fingerprint__follows_the_weights() -> None:
    assert _model().fingerprint() == _model().fingerprint()
    assert _model().fingerprint() != _model(1).fingerprint()


def test_bundle__comes_back_bit_by_bit(tmp_path: Path) -> None:
    model = _model()
    card = save_compact(tmp_path / "model", model, CARD)
    assert card.architecture["kind"] == "compact"
    loaded = load_compact(tmp_path / "model", HashedWords())
    assert loaded.fingerprint() == model.fingerprint()
    assert not any(each.requires_grad for each in loaded.parameters())
    assert set(load(tmp_path / "model").outputs()) == {"images", "texts"}


def test_bundle__of_another_encoder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_compact(tmp_path / "model", _model(), CARD)
    monkeypatch.setattr(HashedWords, "fingerprint", "another")
    with pytest.raises(CheckpointError, match="was trained with 'MiniLM, weights hashed words'"):
        load_compact(tmp_path / "model", HashedWords())


def test_side__not_a_multiple_of_eight() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        CompactModel(HashedWords(), image_size=30)


def test_names__are_read_by_the_frozen_encoder_alone() -> None:
    read = _model(0).read_names(["cat", "dog"])
    assert read is not None and read.shape == (2, 384)
    torch.testing.assert_close(read, _model(1).read_names(["cat", "dog"]))
