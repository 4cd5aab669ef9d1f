"""Outputs that are not finite: whose fault it is, and what each verb says of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.wsi.__main__ import main
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.evaluation.finite import require_finite
from pipelines.wsi.pipeline import WsiPipeline
from tests.bad_inputs.bundles import change_tensors
from tests.pipelines.wsi.tiny import DIM, FEATURE_WORDS, make_bundle, make_features
from vision_core.config import loading
from vision_core.errors import InputError, NotFiniteError, TrainingError
from vision_core.runs.folder import RunFolder
from vision_core.slides.features.files import Features, write_features
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime


def test_require_finite__blames_features_beyond_any_encoder_or_else_the_weights() -> None:
    def sound(features: object) -> torch.Tensor:
        return torch.as_tensor(features).mul(1e10).sum()

    large, usual = np.full((2, 3), 3e38, np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match=r"'a': its features reach 3e\+38"):
        require_finite(sound(large), sound, large, "a")
    for features in (large, usual):
        with pytest.raises(NotFiniteError, match="slide 'a'"):
            require_finite(torch.tensor(torch.nan), lambda _: torch.tensor(torch.nan), features, "a")
    assert require_finite(sound(usual), sound, usual, "a") == sound(usual)


def test_training__weights_that_diverged_between_a_sound_loss_and_validation(tmp_path: Path) -> None:
    words = [f"data.root={make_features(tmp_path / 'data')}", *FEATURE_WORDS, "method=plain"]
    config = loading.load(WsiConfig, None, words)
    prepared = WsiPipeline().prepare(config)
    assert prepared.score is not None
    learner, score = prepared.learner, prepared.score

    def evaluate(_: int) -> dict[str, float]:
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.mul_(1e30)
        return dict(score())

    told = r"The output is not finite after step 4 \(slide 's4'\): the weights have diverged\. .*lower optim\.lr"
    with pytest.raises(TrainingError, match=told):
        fit(prepared, config, Runtime(device=torch.device("cpu")), RunFolder(tmp_path), evaluate)


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_verbs__say_whether_the_features_or_the_weights_are_too_large(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_features(tmp_path / "data", ("test",) * 2)
    bundle = make_bundle(tmp_path / "model", DIM, preprocessing={})
    words = {
        "predict": ["predict", f"--input={data}/features", f"--out={tmp_path}/out"],
        "evaluate": ["evaluate", f"data.root={data}", "data.format=features"],
    }[verb]
    large = {"embedding.linear.weight": torch.eye(16, DIM) * 1e30, "classifier.weight": torch.full((2, 16), 1e30)}
    change_tensors(bundle, {f"aggregator.{name}": tensor for name, tensor in large.items()})
    code = main([*words, f"--checkpoint={bundle}"])
    err = capsys.readouterr().err
    assert code == 2, err
    assert "error[CHECKPOINT] The network's output is not finite (on the golden input)" in err, err

    rows = np.full((5, DIM), 3e38, np.float32)
    write_features(data / "features" / "s0.h5", Features(features=rows, coords=None, attributes={}))
    make_bundle(bundle, DIM, preprocessing={})
    code = main([*words, f"--checkpoint={bundle}", *(["--overwrite"] if verb == "predict" else [])])
    found = capsys.readouterr()
    assert code == {"predict": 4, "evaluate": 2}[verb], found.err
    assert "its features reach 3e+38, no encoder's do. Extract them again." in found.out + found.err
