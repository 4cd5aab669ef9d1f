from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.ultrasound.segment import ModelMasks, open_masking
from pipelines.ultrasound.weights.bundles import Frames
from tests.pipelines.ultrasound.tiny import frame, make_bundle
from vision_core.errors import InputError, UsageError
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter

CPU = torch.device("cpu")
SEEN = Frames(images=[frame(0, 1)[0], frame(1, 1)[0]], white=[255, 255])


def test_open_masking__a_folder_of_runs_is_an_ensemble_of_mean_probability(tmp_path: Path) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        make_bundle(tmp_path / f"seed-{seed}" / "model", ResidualUNet(Segmenter(layers=2, first=4)))
    ensemble = open_masking(tmp_path, CPU)
    alone = [open_masking(tmp_path / f"seed-{seed}" / "model", CPU)(SEEN, ["a", "b"]) for seed in range(3)]
    found = ensemble(SEEN, ["a", "b"])
    assert isinstance(ensemble, ModelMasks)
    assert ensemble.identity.endswith(" and 2 more")
    mean = np.mean([each.probabilities for each in alone if each.probabilities is not None], axis=0)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)
    assert np.any(found.masks)
    for place, mask in enumerate(found.masks):
        if mask.any():
            assert (mean[place][mask] > 0.5).all()
            assert found.confidence[place] == pytest.approx(mean[place][mask].mean(), abs=1e-5)


def test_open_masking__masks_of_another_tool_are_taken_as_they_are(tmp_path: Path) -> None:
    two = np.zeros(SEEN.images[0].shape, np.uint8)
    two[2:5, 2:5] = two[20:22, 20:22] = 255
    Image.fromarray(two).save(tmp_path / "a.png")
    Image.fromarray(two[:-1]).save(tmp_path / "b.png")
    masking = open_masking(tmp_path, CPU)
    one = Frames(images=SEEN.images[:1], white=SEEN.white[:1])
    assert np.array_equal(masking(one, ["a.dcm"]).masks[0], two > 0)
    with pytest.raises(InputError, match=r"b\.png' has shape '\(31, 36\)', its image \(32, 36\)"):
        masking(one, ["b.dcm"])
    with pytest.raises(InputError, match=r"has no 'c_004\.png', the mask of 'c\.dcm#4'"):
        masking(one, ["c.dcm#4"])


def test_open_masking__a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds neither"):
        open_masking(tmp_path, CPU)
