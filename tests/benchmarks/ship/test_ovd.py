"""The regions of the shipped detector are stored anew, its weights stay."""

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.ship.ovd import DEMO, renew_regions
from pipelines.ovd.bundles import REGION_TENSORS
from pipelines.ovd.demo.demo_data import Amount, make_demo_data
from pipelines.ovd.pipeline import OvdPipeline
from vision_core.bundles import bundle


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_renew__regions_alone_change(tmp_path: Path) -> None:
    make_demo_data(tmp_path / "data", Amount(images=6, crops=48, contrastive_steps=2, generator_steps=1, proposals=5))
    shutil.copytree(DEMO, tmp_path / "demo")
    told = renew_regions(tmp_path / "data", tmp_path / "demo")
    before, after = bundle.load(DEMO / "detector"), bundle.load(tmp_path / "demo" / "detector")
    kept = {name for name in before.tensors if name not in REGION_TENSORS}
    counts = [len(after.tensors[name]) for name in ("background_regions", "object_labels")]
    assert told == f"{counts[0]} background regions, {counts[1]} objects"
    assert all(torch.equal(before.tensors[name], after.tensors[name]) for name in kept)
    assert not torch.equal(before.tensors["background_regions"], after.tensors["background_regions"])
    assert after.card.classes == before.card.classes and after.card.metrics == before.card.metrics
    bundle.check_golden(after, OvdPipeline().answers(tmp_path / "demo" / "detector", torch.device("cpu")))
