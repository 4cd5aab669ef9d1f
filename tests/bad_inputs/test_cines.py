"""Rows F14, F15 and F17: frames of another kind, missing, doubled or uneven ones, files of more dimensions or hours."""

import csv
import json
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from benchmarks.repack_demos import CHECKPOINTS
from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.files import open_file
from pipelines.ultrasound.phantom.study import Phantom
from pipelines.ultrasound.predict import UltrasoundPredictor
from tests.bad_inputs.dicoms import still
from tests.pipelines.ultrasound.tiny import frame, make_bundle
from tests.vision_core.images.test_video import make_video
from vision_core import console
from vision_core.config.loading import load
from vision_core.errors import InputError
from vision_core.images.drawing import write_png
from vision_core.images.untrusted import UntrustedImages
from vision_core.images.video import VideoFrames
from vision_core.results import AS_BEFORE, OUTSIDE
from vision_core.segmentation.networks import ResidualUNet
from vision_core.segmentation.settings import Segmenter


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> UltrasoundPredictor:
    torch.manual_seed(0)
    path = make_bundle(tmp_path_factory.mktemp("bundle") / "model", ResidualUNet(Segmenter(layers=2, first=4)))
    return UltrasoundPredictor.from_checkpoint(path, "cpu", load(UltrasoundConfig, None, ["results.video=true"]))


def other_kinds() -> dict[str, NDArray[np.uint8]]:
    """Frames of the phantom put together as other views, and made ones: ``(H, W)``."""
    plain = next(iter(Phantom(7).cine(3))).image
    height, width = plain.shape
    generator, (rows, columns) = np.random.default_rng(0), np.mgrid[:height, :width]
    small = cv2.resize(plain, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    dual, words, spectrum = (np.zeros_like(plain) for _ in range(3))
    dual[height // 4 :][: height // 2] = np.hstack([small, small[:, ::-1]])
    flat = cv2.resize(plain, (width, height // 2), interpolation=cv2.INTER_AREA)
    for line in range(6):
        cv2.putText(words, f"LINE {line} 12.3", (6, 20 + 18 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 230, 1)
    is_flow = (height - 10 - 0.3 * height * (1.2 + np.abs(np.sin(columns / 20))) < rows) & (rows < height - 10)
    spectrum[is_flow] = generator.integers(60, 255, int(is_flow.sum()))
    stripes = (120 + 100 * np.sin(rows / 4 + 3 * np.sin(columns / 12))) * generator.uniform(0.7, 1, plain.shape)
    return {
        "dual-screen": dual,
        "biplane": np.vstack([flat, flat[::-1]]),
        "M-mode": stripes.clip(0, 255).astype(np.uint8),
        "words alone": words,
        "spectrum": spectrum,
    }


def test_f14__frames_of_another_kind_are_told_and_not_segmented() -> None:
    gate = UltrasoundPredictor.from_checkpoint(
        CHECKPOINTS / "ultrasound-demo" / "screen",
        "cpu",
        UltrasoundConfig(segment=CHECKPOINTS / "ultrasound-demo" / "segment"),
    )
    found = {name: gate(np.repeat(image[..., None], 3, axis=2)) for name, image in other_kinds().items()}
    assert {name: each.category for name, each in found.items()} == dict.fromkeys(found, OUTSIDE)
    assert not any(np.asarray(each.masks).any() for each in found.values())


def coloured(kind: str) -> NDArray[np.uint8]:
    """A frame of the phantom with flow, a tint, or words in colours: ``(H, W, 3)``."""
    plain = next(iter(Phantom(7).cine(3))).image
    picture = np.repeat(plain[..., None], 3, axis=2)
    if kind == "flow":
        rows, columns = np.mgrid[: plain.shape[0], : plain.shape[1]]
        away = np.hypot(rows - 64, columns - 64)
        picture[away < 18], picture[away < 9] = (220, 60, 0), (0, 70, 220)
    if kind == "tint":
        picture = (picture * np.array([1, 0.7, 0.35])).astype(np.uint8)
    if kind == "words":
        cv2.putText(picture, "12 cm", (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 160, 0), 1)
    return picture


@pytest.mark.parametrize("kind", ["flow", "tint", "words", "plain"])
def test_f14__flow_over_grey_is_no_b_mode_frame(kind: str, predictor: UltrasoundPredictor, tmp_path: Path) -> None:
    picture = coloured(kind)
    write_png(tmp_path / "a.png", picture)
    rgb = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "NumberOfFrames": 2}
    frames = np.stack([coloured("plain")[:, ::-1], picture])
    path = still(tmp_path / "a.dcm", frames, Rows=picture.shape[0], Columns=picture.shape[1], **rgb)
    single, cine, array = predictor(tmp_path / "a.png"), predictor(path), predictor(picture)
    is_flow = kind == "flow"
    assert [each.category == OUTSIDE for each in (single, array)] == [is_flow, is_flow]
    assert cine.accepted.tolist() == [True, not is_flow]
    told = "1 frames have colours over grey, as Doppler: no B-mode frames, not segmented."
    assert [told in each.notes for each in (single, cine, array)] == [is_flow] * 3
    assert [each.is_accepted for each in predictor.stream(path)] == [True, not is_flow]


def test_f14__real_frames_with_flow_and_without() -> None:
    with UntrustedImages() as reader:
        for name, is_flow in {"rgb_color": True, "jpeg2k": True, "palette": False, "ybr_color": False}.items():
            file = open_file(Path(str(get_testdata_file(f"examples_{name}.dcm"))), reader)
            file.read(0)
            assert (name, file.has_flow(0)) == (name, is_flow)


def test_f15__uneven_frames_keep_their_times_and_the_video_its_length(
    predictor: UltrasoundPredictor, tmp_path: Path
) -> None:
    steps = [0, 20, 60, 20, 0, 100]
    cine = np.stack([frame(0, number)[0] for number in range(6)])
    path = still(tmp_path / "a.dcm", cine, NumberOfFrames=6, FrameTimeVector=steps)
    found = predictor(path)
    assert found.times_ms == (0, 20, 80, 100, 100, 200)
    told = " ".join(found.notes)
    assert "has 2 gaps between frames of more than 1.5 times the usual 20 ms" in told
    assert "has 1 frames that begin no later than the one before" in told
    assert "repeat the one before" not in told
    predictor.write(found, path, tmp_path)
    times = [row.split(",")[1] for row in (tmp_path / "a.frames.csv").read_text().splitlines()[1:]]
    assert [float(each) for each in times] == [0, 20, 80, 100, 100, 200]
    video = VideoFrames(tmp_path / "a.overlay.mp4", max_frames=6)
    assert np.diff(video.times_ms) == pytest.approx([40] * 5, abs=0.1)  # five steps in 200 ms


@pytest.mark.parametrize("ending", ["dcm", "avi"])
def test_f15__frames_that_are_there_twice_have_the_mask_of_the_first(ending: str, tmp_path: Path) -> None:
    """As of a video that was brought to another rate: masks that come and go would be none of the organ's."""
    torch.manual_seed(0)
    network = ResidualUNet(Segmenter(layers=2, first=4))
    torch.nn.init.constant_(network.get_parameter("head.bias"), 0.1)
    predictor = UltrasoundPredictor.from_checkpoint(make_bundle(tmp_path / "model", network), "cpu")
    cine = np.stack([frame(0, (number + 1) // 3)[0] for number in range(24)])  # over the end of a chunk, too
    cine[5:8] = 0
    path = still(tmp_path / "a.dcm", cine, NumberOfFrames=24, FrameTime=40)
    if ending == "avi":
        path = tmp_path / "a.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, cine.shape[:0:-1])  # type: ignore[attr-defined]
        for image in cine:
            writer.write(np.repeat(image[..., None], 3, axis=2))
        writer.release()
    found = predictor(path)
    copied, blank = AS_BEFORE, "a single value"
    assert found.reasons == ("", copied, "", copied, copied, *[blank] * 3, *["", copied, copied] * 5, "")
    assert found.accepted.tolist() == [reason != blank for reason in found.reasons]
    masks = np.asarray(found.masks)
    assert masks[[0, 2, 14, 17]].any(axis=(1, 2)).all()
    for number in np.flatnonzero([reason == copied for reason in found.reasons]):
        assert np.array_equal(masks[number], masks[number - 1])
        assert np.array_equal(found.confidence[number], found.confidence[number - 1], equal_nan=True)
    assert "13 frames repeat the one before (another rate, or stored twice) and have its result." in found.notes
    streamed = list(predictor.stream(path))
    assert [each.is_accepted for each in streamed] == found.accepted.tolist()
    shown = [np.asarray(each.mask) for each in streamed]
    assert all(np.array_equal(shown[each], shown[each - 1]) for each in (1, 4, 15, 16))


def test_f18__frozen_frames_are_turned_away(predictor: UltrasoundPredictor, tmp_path: Path) -> None:
    cine = np.stack([frame(0, max(number, 7))[0] for number in range(40)][::-1])  # frozen from the 33rd on
    cine = np.concatenate([cine, cine[-1:].repeat(20, axis=0)])
    cine[4:6] = 0
    path = still(tmp_path / "a.dcm", cine, NumberOfFrames=60, FrameTime=40)
    found = predictor(path)
    assert "12 frames repeat more than 15 before (a frozen cine): not segmented." in found.notes
    assert "15 frames repeat the one before (another rate, or stored twice) and have its result." in found.notes
    assert "2 frames hold a single value, black or saturated: not segmented." in found.notes
    repeated = "repeats the frame before"
    copied = (AS_BEFORE,) * 15
    assert found.reasons == ("",) * 4 + ("a single value",) * 2 + ("",) * 27 + copied + (repeated,) * 12
    found_away = [reason not in ("", AS_BEFORE) for reason in found.reasons]
    assert not found.accepted[found_away].any()
    assert [each.is_accepted for each in predictor.stream(path)] == found.accepted.tolist()
    predictor.write(found, path, tmp_path)
    table = list(csv.DictReader((tmp_path / "a.frames.csv").open()))
    assert tuple(row["reason"] for row in table) == found.reasons
    assert json.loads((tmp_path / "a.json").read_text())["frames"][-1]["reason"] == repeated


@pytest.mark.parametrize("shape", [(8, 6, 3, 4), (8, 6, 3, 1, 2)])
def test_f17__volumes_in_time_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")  # type: ignore[no-untyped-call]
    with (
        UntrustedImages() as reader,
        pytest.raises(InputError, match=r"has the shape .* expected width x height x fra"),
    ):
        open_file(tmp_path / "a.nii.gz", reader)


def test_f17__hours_of_video_are_refused_by_what_they_declare(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", 6)
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"avih", 24), (b"strh", 40)):  # total frames; length of the stream
        at = content.index(mark) + offset
        assert int.from_bytes(content[at : at + 4], "little") == 6
        content[at : at + 4] = (90_000).to_bytes(4, "little")
    path.write_bytes(content)
    with UntrustedImages() as reader, pytest.raises(InputError, match="declares '90000' frames; 32767 at most"):
        open_file(path, reader)


def test_f17__the_frames_of_a_long_cine_have_a_progress(
    predictor: UltrasoundPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_PLAIN_SECONDS", 0.0)
    cine = np.stack([frame(0, number)[0] for number in range(40)])
    predictor(still(tmp_path / "long.dcm", cine, NumberOfFrames=40))
    told = [line.split(" frame,")[0] for line in capsys.readouterr().err.splitlines() if "long.dcm" in line]
    assert told == ["long.dcm: 16/40", "long.dcm: 32/40", "long.dcm: 40/40"]
