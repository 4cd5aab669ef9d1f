"""A process that makes pseudo-labels and is killed without a word: another goes on at its shard, to the same file."""

from pathlib import Path

import pytest
import torch

from benchmarks.repack_demos import CHECKPOINTS
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.pseudo_labels.making import LABELS_FILE, make_labels
from tests.forked import Forked
from tests.pipelines.ovd.test_bundles import make_generator
from tests.pipelines.ovd.tiny import CLASSES, NOVEL
from tests.vision_core.detection.synthetic import make_coco
from vision_core.config.loading import load

_KILLED = """
import os, signal, torch
from pathlib import Path
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.pseudo_labels.making import make_labels
from vision_core.config.loading import load

def at_third(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

make_labels(load(OvdConfig, None, {words!r}), Path({out!r}), torch.device("cpu"), at_third, shard_images=2)
"""


@pytest.mark.slow
def test_make__killed_in_the_second_shard_goes_on_there(tmp_path: Path) -> None:
    make_coco(tmp_path / "data", count=4, classes=CLASSES)
    words = [
        f"data.root={tmp_path / 'data'}",
        f"data.classes=[{','.join(CLASSES)}]",
        f"data.novel=[{','.join(NOVEL)}]",
        f"proposals.weights={make_generator(tmp_path / 'generator')}",
        "proposals.count=6",
        "image_text.kind=compact",
        f"image_text.weights={CHECKPOINTS / 'ovd-demo' / 'image-text'}",
    ]
    config, cpu = load(OvdConfig, None, words), torch.device("cpu")
    process = Forked(["-c", _KILLED.format(words=words, out=str(tmp_path / "parts"))])
    _, err = process.communicate(240)
    assert process.returncode == -9, err
    [shard] = (tmp_path / "parts" / "scores").iterdir()
    before = shard.stat().st_mtime_ns
    lines = make_labels(config, tmp_path / "parts", cpu, shard_images=2)
    assert lines[0].startswith("2 of 4 images were scored now")
    assert shard.stat().st_mtime_ns == before
    make_labels(config, tmp_path / "whole", cpu, shard_images=2)
    files = [tmp_path / name / LABELS_FILE for name in ("parts", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
