"""Classes of a bundle and of the data: names decide, order is mapped."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from pipelines.wsi.config import EmbeddingSettings, ModelSettings
from pipelines.wsi.models.build import build_model
from pipelines.wsi.weights.bundles import architecture
from pipelines.wsi.weights.classes import in_order, match_classes
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import CheckpointError

CLASSES = ("normal", "adenoma", "carcinoma")
TURNED = ("carcinoma", "normal", "adenoma")


@pytest.mark.parametrize("name", ["abmil", "dsmil", "transmil"])
@pytest.mark.parametrize("dim", [3, 4])  # a width that is the number of classes is not taken for it
def test_in_order__the_same_probabilities_under_the_same_names(
    name: Literal["abmil", "dsmil", "transmil"], dim: int
) -> None:
    settings = ModelSettings(name=name, embedding=EmbeddingSettings(dim=16))
    torch.manual_seed(0)
    network, turned = (build_model(settings, dim, 3).eval() for _ in range(2))
    card = Card(
        task="wsi",
        method="plain",
        config={},
        architecture={**architecture(settings), "feature_dim": dim},
        preprocessing={},
        classes=CLASSES,
        trained_on=TrainedOn(description="made", synthetic=True),
    )
    turned.load_state_dict(in_order(card, network.state_dict(), TURNED))
    bag = torch.randn(9, dim)
    found = {each: network(bag).detach()[place] for place, each in enumerate(CLASSES)}
    for place, each in enumerate(TURNED):
        torch.testing.assert_close(turned(bag)[place], found[each])
    assert len({round(float(each), 4) for each in found.values()}) == 3


@pytest.mark.parametrize("wanted", [("normal", "adenoma"), ("normal", "adenoma", "tumour"), (*CLASSES, "other")])
def test_match_classes__other_names_are_refused(wanted: tuple[str, ...]) -> None:
    with pytest.raises(
        CheckpointError, match=r"has the classes normal, adenoma, carcinoma, the data .* in one of them"
    ):
        match_classes(Path("model"), CLASSES, wanted)
    match_classes(Path("model"), CLASSES, TURNED)
