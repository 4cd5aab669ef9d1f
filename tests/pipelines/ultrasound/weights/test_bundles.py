from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.ultrasound.config import ScreenNetwork
from pipelines.ultrasound.data.views import zscore
from pipelines.ultrasound.screening.screen import Screen
from pipelines.ultrasound.weights.bundles import (
    Frames,
    ScreenModel,
    SegmentModel,
    load_network,
    raw_outputs,
)
from tests.pipelines.ultrasound.tiny import frame, make_bundle
from vision_core.bundles.bundle import amend, load, read_card
from vision_core.errors import CheckpointError, InputError
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter

SMALL = Segmenter(layers=2, first=4)


def test_segmenter__comes_back_with_its_size_and_its_golden_pair(tmp_path: Path) -> None:
    network = ResidualUNet(SMALL)
    found = load_network(make_bundle(tmp_path / "model", network, "data.size_px=[48,64]"))
    assert isinstance(found.model, SegmentModel)
    assert found.model.size_px == (48, 64)
    content = load(tmp_path / "model")
    assert torch.equal(raw_outputs(found.model, content.inputs())["logits"], content.outputs()["logits"])
    image = frame(0, 1)[0]
    assert found.model(Frames(images=[image, image], white=[255, 255])).shape == (2, *image.shape)


def test_segmenter__probabilities_are_those_of_the_zscored_frame(tmp_path: Path) -> None:
    network = ResidualUNet(SMALL)
    found = load_network(make_bundle(tmp_path / "model", network))
    image = frame(0, 1)[0]
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(zscore(image))[None, None]).sigmoid()[0, 0].numpy()
    assert isinstance(found.model, SegmentModel)
    assert np.allclose(found.model(Frames(images=[image], white=[255]))[0], expected, atol=1e-6)


def test_screen__sees_twelve_of_sixteen_bits_as_it_sees_eight(tmp_path: Path) -> None:
    found = load_network(make_bundle(tmp_path / "model", Screen(ScreenNetwork(network="resnet10t")), "method=screen"))
    assert isinstance(found.model, ScreenModel)
    image = frame(0, 1)[0]
    scores = [
        found.model(Frames(images=[each], white=[white]))[0]
        for each, white in ((image, 255.0), (image.astype(np.uint16) * 257, 65535.0))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_load__small_frames_and_damaged_cards_are_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "model", ResidualUNet(SMALL))
    model = load_network(path).model
    assert isinstance(model, SegmentModel)
    with pytest.raises(InputError, match="The segmenter needs frames of 4 pixels a side, found '3 x 9'"):
        model(Frames(images=[np.zeros((3, 9), np.uint8)], white=[255]))
    amend(path, architecture={**read_card(path).architecture, "layers": 3})
    with pytest.raises(CheckpointError, match="the weights do not fit the architecture"):
        load_network(path)
    amend(path, architecture={"kind": "segmenter", "layers": "many"})
    with pytest.raises(CheckpointError, match="does not describe a network"):
        load_network(path)
    amend(path, architecture={})
    with pytest.raises(CheckpointError, match="holds neither screen nor segmenter"):
        load_network(path)
