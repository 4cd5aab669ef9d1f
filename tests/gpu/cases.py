"""Every learner, on tiny data made by code: the cases of the tests on a GPU, and of those on the made device."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.ovd.config import OvdConfig
from pipelines.ovd.pipeline import OvdPipeline
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.pipeline import PretrainPipeline
from pipelines.sfod.config import SfodConfig
from pipelines.sfod.learners.source import SourceLearner
from pipelines.sfod.pipeline import SfodPipeline
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.pipeline import UltrasoundPipeline
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.models.layers import Dropout
from pipelines.wsi.pipeline import WsiPipeline
from tests.pipelines.ovd.tiny import TRAINING as OPEN_WORDS
from tests.pipelines.ovd.tiny import make_data as make_open
from tests.pipelines.pretrain.tiny import SMALL, make_folders
from tests.pipelines.sfod.tiny import CLASSES, DETECTOR
from tests.pipelines.ultrasound.tiny import SMALL as SMALL_FRAMES
from tests.pipelines.ultrasound.tiny import make_h5
from tests.pipelines.wsi.tiny import FEATURE_WORDS, make_features
from tests.vision_core.detection.synthetic import make_voc
from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.detection.model.detector import Detector
from vision_core.pipeline import Pipeline
from vision_core.runs.folder import RunFolder
from vision_core.training.learner import Learner, Prepared
from vision_core.training.loaders import Place
from vision_core.training.loop import fit
from vision_core.training.runtime import Runtime

STEPS = 2
_LOOP = ("train.epochs=2", f"train.max_steps={STEPS}", "train.save_every=1", "train.log_every=1", "train.workers=0")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A learner and its data; for what it waits is in ``waits.py``.

    Attributes:
        name: Task, method and network.
        task: Name of the task.
        words: Settings beside those of the data.
        detector: Settings of the detector in adaptation.
        draws_on_device: Whether masks are drawn on the device, whose numbers are not those of a CPU.
    """

    name: str
    task: str
    words: tuple[str, ...]
    detector: tuple[str, ...] = ()
    draws_on_device: bool = False


_DETECTOR = tuple(f"detector.{name}={value}" for name, value in DETECTOR.items())
# As published, with less to do.
_C4 = ("detector.freeze_at=0", "detector.anchor_sizes=[[32, 64]]", "detector.shortest_edge_px=64",
       "detector.rpn_pre_nms_train=300", "detector.rpn_post_nms_train=20", "detector.rpn_pre_nms_test=300",
       "detector.rpn_post_nms_test=10", "detector.roi_batch=8")  # fmt: skip


def _sfod(method: str, detector: tuple[str, ...] = _DETECTOR, name: str = "") -> Case:
    words = (f"method={method}", "pseudo_labels.threshold=0.05", "lpld.foreground=0.5", "lpld.background=1.0",
             "lpld.iou=1", "train.batch_size=2", "optim.clip_norm=5", "teacher.every=step")  # fmt: skip
    return Case(name=f"sfod-{name or method}", task="sfod", words=words, detector=detector)


def _wsi(method: str, network: str) -> Case:
    words = (f"method={method}", f"model.name={network}", "random_teacher=true", "model.transmil.heads=2")
    name = f"wsi-{method}-{network}"
    return Case(name=name, task="wsi", words=words, draws_on_device=method != "plain")


def _ultrasound(method: str, *words: str) -> Case:
    return Case(name=f"ultrasound-{method}", task="ultrasound", words=(f"method={method}", *words))


def _pretrain(name: str, *words: str) -> Case:
    is_masked = "policy=none" not in words
    return Case(name=f"pretrain-{name}", task="pretrain", words=words, draws_on_device=is_masked)


CASES = (
    _sfod("source"),
    _sfod("bn"),
    _sfod("mt"),
    _sfod("lpld"),
    _sfod("lpld", _C4, "lpld-c4"),
    _sfod("fixed_pl"),
    _sfod("wscol_core"),
    _sfod("wsco_full+lpld"),
    _sfod("wsco_full", _C4, "wsco_full-c4"),
    *(
        _wsi(method, network)
        for method in ("plain", "mhim_v1", "mhim_v2")
        for network in ("abmil", "dsmil", "transmil")
    ),
    _ultrasound("screen"),
    _ultrasound("segment"),
    _ultrasound("segment_frame_aware", "loss.frame_aware.top_share=0.01"),
    Case(name="ovd-marvel", task="ovd", words=("marvel.burn_in_last_iter=0",)),
    Case(name="ovd-vl_plm", task="ovd", words=("method=vl_plm", "candidates.threshold=0.5")),
    Case(name="ovd-proposals", task="ovd", words=("method=proposals",)),
    _pretrain("plain", "policy=none"),
    _pretrain("policy", "policy=reinforce"),
    _pretrain("released", "policy=released"),
    _pretrain("unlearned", "policy=unlearned"),
)

_TASKS: dict[str, tuple[type[Config], type[Pipeline[Any]]]] = {
    "sfod": (SfodConfig, SfodPipeline),
    "wsi": (WsiConfig, WsiPipeline),
    "pretrain": (PretrainConfig, PretrainPipeline),
    "ultrasound": (UltrasoundConfig, UltrasoundPipeline),
    "ovd": (OvdConfig, OvdPipeline),
}


class World:
    """Data of all tasks, made on first use below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pipeline(self, case: Case) -> Pipeline[Any]:
        """The pipeline of a case."""
        return _TASKS[case.task][1]()

    def config(self, case: Case, *words: str) -> Config:
        """The settings of a case."""
        schema = _TASKS[case.task][0]
        return configs.load(schema, None, [*self._data_words(case), *case.words, *_LOOP, *words])

    def prepared(self, case: Case, config: Config) -> Prepared:
        """Learner and items of a case, without dropout, which devices draw in ways of their own."""
        torch.manual_seed(0)
        prepared = self.pipeline(case).prepare(config)
        for module in prepared.learner.modules():
            if isinstance(module, Dropout):
                module.rate = 0.0
        return prepared

    def inputs(self, case: Case) -> Path:
        """An input of ``predict``."""
        found = {"sfod": "JPEGImages/test_000.png", "wsi": "features/s7.h5", "pretrain": "test/dark/0.png",
                 "ultrasound": "frames.h5", "ovd": "test/000.png"}  # fmt: skip
        return self._data(case.task) / found[case.task]

    def _data(self, task: str) -> Path:
        folder = self.folder / task
        if not folder.exists():
            make: Any = {"sfod": make_voc, "wsi": make_features, "pretrain": make_folders,
                         "ultrasound": make_h5, "ovd": make_open}[task]  # fmt: skip
            make(folder)
        return folder

    def _data_words(self, case: Case) -> Sequence[str]:
        root = f"data.root={self._data(case.task)}"
        if case.task == "wsi":
            return (root, *FEATURE_WORDS, "model.embedding.dropout=0", "optim.name=sgd")
        if case.task == "ultrasound":
            return (root, *SMALL_FRAMES, "optim.name=sgd")
        if case.task == "pretrain":
            return (root, *SMALL)
        if case.task == "ovd":
            return (root, *OPEN_WORDS, "strong_view.kind=none")
        is_new = "method=source" in case.words
        start = case.detector if is_new else (f"source.weights={self._source(case.detector)}",)
        return (root, *start, "strong_view.kind=none")

    def _source(self, settings: tuple[str, ...]) -> Path:
        """A detector that nobody trained, sure enough of something to give pseudo labels."""
        bundle = self.folder / ("source" if settings == _DETECTOR else "source-c4")
        if not bundle.exists():
            config = configs.load(SfodConfig, None, [*settings, "method=source", f"data.root={self.folder}"])
            torch.manual_seed(3)
            assert config.detector is not None
            detector = Detector(config.detector, CLASSES)
            with torch.no_grad():
                detector.roi_heads.box_predictor.cls_score.weight.mul_(60)
                for name, buffer in detector.named_buffers():
                    if name.endswith("running_var"):
                        buffer.mul_(1.5)  # as of a trained network: bn has something to adapt
            SfodPipeline().deliver(config, SourceLearner(detector), bundle)
        return bundle


def train(prepared: Prepared, config: Config, runtime: Runtime, out: Path) -> Learner:
    """One call of ``fit`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    fit(prepared, config, runtime, RunFolder(out))
    return prepared.learner


def state(learner: Learner) -> dict[str, torch.Tensor]:
    """All that a learner saves, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in learner.state_dict().items()}


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], rel: float) -> None:
    """Compare with a tolerance relative to the largest entry of each tensor."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        atol = rel * max(1.0, float(tensor.double().nan_to_num().abs().max())) if tensor.numel() else 0.0
        told = f"{name}: {found[name]} {tensor}"
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol, equal_nan=True, msg=told)


def arrays(result: object) -> Iterator[np.ndarray]:
    """The arrays of floats of a result of ``predict``."""
    for field in dataclasses.fields(result):  # type: ignore[arg-type]
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield value


class Watched:
    """Items of a training set; ``on_read`` is called before each step is read.

    Args:
        items: The training set.
        on_read: Called with nothing.
    """

    def __init__(self, items: Any, on_read: Any) -> None:  # noqa: ANN401
        self._items, self._on_read = items, on_read

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Place) -> Any:  # noqa: ANN401
        return self._items[place]

    def collate(self, items: list[Any]) -> Any:  # noqa: ANN401
        self._on_read()
        return self._items.collate(items)

    def names(self, indices: Sequence[int]) -> list[str]:
        found: list[str] = self._items.names(indices)
        return found
