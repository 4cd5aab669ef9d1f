import pytest
import torch
from torch.export import Dim

from pipelines.wsi.config import EmbeddingSettings, MhimV1, MhimV2, ModelSettings, Scores
from pipelines.wsi.mhim.student_teacher import MHIM
from pipelines.wsi.models.abmil import ABMIL
from pipelines.wsi.models.build import build_model
from pipelines.wsi.models.dsmil import DSMIL
from pipelines.wsi.models.transmil import TransMIL

EMBEDDING = EmbeddingSettings(dim=16)
ABMIL_SETTINGS = ModelSettings(embedding=EMBEDDING)
DSMIL_SETTINGS = ModelSettings(name="dsmil", embedding=EMBEDDING)
TRANSMIL_SETTINGS = ModelSettings(name="transmil", embedding=EMBEDDING)
ALL = [ABMIL_SETTINGS, DSMIL_SETTINGS, TRANSMIL_SETTINGS]


@pytest.mark.parametrize(
    ("settings", "kind"), [(ABMIL_SETTINGS, ABMIL), (DSMIL_SETTINGS, DSMIL), (TRANSMIL_SETTINGS, TransMIL)]
)
def test_build_model__by_name(settings: ModelSettings, kind: type) -> None:
    network = build_model(settings, feature_dim=6, num_classes=4).eval()
    found = network(torch.randn(5, 6))
    assert isinstance(network, kind)
    assert found.shape == (4,)
    assert found.softmax(dim=0).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("settings", [ABMIL_SETTINGS, DSMIL_SETTINGS])
def test_export__any_number_of_tiles(settings: ModelSettings) -> None:
    network = build_model(settings, feature_dim=6, num_classes=2).eval()
    exported = torch.export.export(network, (torch.randn(9, 6),), dynamic_shapes=({0: Dim("tiles")},)).module()
    for count in (2, 9, 300):
        bag = torch.randn(count, 6)
        torch.testing.assert_close(exported(bag), network(bag))


def test_export__transmil_at_a_fixed_number() -> None:
    network, bag = build_model(TRANSMIL_SETTINGS, feature_dim=6, num_classes=2).eval(), torch.randn(9, 6)
    torch.testing.assert_close(torch.export.export(network, (bag,)).module()(bag), network(bag))


@pytest.mark.parametrize("settings", ALL)
@pytest.mark.parametrize("scores", [MhimV1().scores, MhimV2().scores])
def test_autocast__scores_and_loss_stay_in_full_precision(settings: ModelSettings, scores: Scores) -> None:
    network, bag = build_model(settings, feature_dim=6, num_classes=2), torch.randn(40, 6)
    exact = MHIM(network).eval().teach(bag, scores)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        taught = MHIM(network).teach(bag, scores)
        loss = network.loss(network.aggregate(network.embedding(bag)), torch.tensor(1))
    loss.backward()
    assert loss.dtype == torch.float32
    assert taught.scores.dtype in {torch.float32, torch.float64}
    torch.testing.assert_close(taught.scores, exact.scores, atol=0.05, rtol=0.05)
    assert all(each.grad is not None for each in network.parameters())


@pytest.mark.parametrize("settings", ALL)
def test_forward__hundred_thousand_tiles(settings: ModelSettings) -> None:
    network = build_model(settings, feature_dim=6, num_classes=2).eval()
    with torch.no_grad():
        assert network(torch.randn(100_000, 6)).isfinite().all()
