"""The verb ``features``, and features made on the way of a training."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.wsi.__main__ import main
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.extraction_job import FeatureExtractor
from pipelines.wsi.features.slide_processing import ProcessedSlide, SlideProcessor
from tests.pipelines.wsi.tiny import SIDE_PX, SLIDE_WORDS, make_slides, picture, write_pyramid
from vision_core.backbones.networks import lite0_imagenet
from vision_core.config import loading as config
from vision_core.slides.encoders import networks
from vision_core.slides.encoders.encoder import Encoder, Precision
from vision_core.slides.features.files import read_features
from vision_core.slides.settings import EncoderSettings

ROAD_WORDS = [word for word in SLIDE_WORDS if word.startswith(("tiles.", "encoder."))]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_slides(tmp_path / "data")


def _features(given: Path, out: Path, *words: str) -> int:
    return main(["features", "--input", str(given), "--out", str(out), *ROAD_WORDS, *words])


def _train(out: Path, data: Path, *words: str) -> int:
    return main(["train", "--out", str(out), f"data.root={data}", "method=plain", *SLIDE_WORDS, *words])


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def test_features__one_bad_slide_never_stops_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        write_pyramid(tmp_path / "slides" / f"s{number}.tif", picture(number))
    write_pyramid(tmp_path / "slides" / "glass.tif", np.full((SIDE_PX, SIDE_PX, 3), 243, np.uint8))
    (tmp_path / "slides" / "bad.svs").write_text("nothing")
    assert _features(tmp_path / "slides", tmp_path / "my features") == 4
    told = capsys.readouterr().out
    assert "3 of 4 inputs done" in told
    assert shlex.quote(f"data.features={tmp_path / 'my features'}") in told
    assert "a second)" in told  # where the time went
    made = {path.stem: read_features(path) for path in (tmp_path / "my features" / "outputs").iterdir()}
    assert {name: len(features) > 0 for name, features in made.items()} == {"s0": True, "s1": True, "glass": False}
    assert made["s0"].dim == 1280
    assert made["s0"].attributes["encoder"]["name"] == "lite0"
    with (tmp_path / "my features" / "results.csv").open() as file:
        rows = {Path(row["input"]).stem: row for row in csv.DictReader(file)}
    assert rows["glass"]["tiles"] == "0"
    before = _snapshot(tmp_path / "my features" / "outputs")
    assert _features(tmp_path / "slides", tmp_path / "my features") == 4
    assert _snapshot(tmp_path / "my features" / "outputs") == before
    assert not list((tmp_path / "my features").glob(".unfinished*"))


def test_features__other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pyramid(tmp_path / "slides" / "a.tif", picture(0))
    assert _features(tmp_path / "slides", tmp_path / "out") == 0
    before = _snapshot(tmp_path / "out" / "outputs")
    assert _features(tmp_path / "slides", tmp_path / "out", "tiles.tile_px=32") == 2
    assert "other settings" in capsys.readouterr().err
    assert _snapshot(tmp_path / "out" / "outputs") == before
    assert _features(tmp_path / "slides", tmp_path / "out", "tiles.tile_px=32", "--overwrite") == 0
    assert _snapshot(tmp_path / "out" / "outputs") != before


def test_features__are_what_training_makes_on_the_way(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _features(data / "slides", data / "features") == 0
    before = _snapshot(data / "features" / "outputs")
    capsys.readouterr()
    assert _train(data / "run", data) == 0
    assert "Features of" not in capsys.readouterr().out
    assert _snapshot(data / "features" / "outputs") == before
    assert _train(data / "again", data, "data.format=features") == 0
    weights = [(data / name / "model" / "weights.safetensors").read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]


def test_train__makes_only_the_features_that_are_missing_or_damaged(data: Path) -> None:
    assert _train(data / "run", data) == 0
    outputs = data / "features" / "outputs"
    before = _snapshot(outputs)
    assert len(before) == 8
    (outputs / "s0.h5").unlink()
    content = bytearray((outputs / "s1.h5").read_bytes())
    content[-1] ^= 1
    (outputs / "s1.h5").write_bytes(content)
    assert _train(data / "again", data) == 0
    after = _snapshot(outputs)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    assert {name for name in before if after[name][0] != before[name][0]} == {"s0.h5", "s1.h5"}


@pytest.mark.slow
def test_train__stopped_while_features_are_made_goes_on_with_resume(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row X4 of the faults."""
    process = SlideProcessor.process

    def stopped(self: SlideProcessor, path: Path, file: Path | None = None) -> ProcessedSlide:
        if path.stem == "s3":
            raise KeyboardInterrupt
        return process(self, path, file)

    with monkeypatch.context() as patch:
        patch.setattr(SlideProcessor, "process", stopped)
        assert _train(data / "run", data) == 130
    assert "Resume with: python -m pipelines.wsi train" in capsys.readouterr().err
    before = _snapshot(data / "features" / "outputs")
    assert sorted(before) == ["s0.h5", "s1.h5", "s2.h5"]
    assert main(["train", "--out", str(data / "run"), "--resume"]) == 0
    after = _snapshot(data / "features" / "outputs")
    assert len(after) == 8
    assert all(after[name] == content for name, content in before.items())


def test_train__rehearsed_says_what_would_be_made_and_makes_nothing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(data.rglob("*"))
    assert _train(data / "run", data, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "Features of 8 of 8 slides are made first" in told
    counted = re.search(r"plain, \d+ items, \d+ steps", told)
    assert counted and sorted(data.rglob("*")) == before
    assert _train(data / "run", data) == 0
    assert counted[0] in capsys.readouterr().out
    assert _train(data / "again", data, "--dry-run") == 0
    told = capsys.readouterr().out
    assert counted[0] in told and "are made first" not in told
    assert not (data / "again").exists()


def test_train__features_of_other_tiles_are_refused_with_the_reason(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(data / "run", data) == 0
    assert _train(data / "other", data, "tiles.tile_px=32") == 2
    told = capsys.readouterr().err
    assert "holds other features: of 's0.tif' tile_px was 64, now 32" in told
    assert "--overwrite" in told


def test_train__features_made_elsewhere_are_left_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "features").mkdir()
    np.save(data / "features" / "s0.npy", np.zeros((3, 4), np.float32))
    assert _train(data / "run", data) == 2
    assert "made elsewhere, such as 's0.npy'" in capsys.readouterr().err
    assert [path.name for path in (data / "features").iterdir()] == ["s0.npy"]


@pytest.mark.slow
def test_train__a_bad_slide_is_refused_or_left_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "slides" / "s2.tif").write_text("no slide")
    assert _train(data / "run", data) == 2
    assert "s2.tif" in capsys.readouterr().err
    assert _train(data / "run", data, "data.on_missing=drop") == 0
    assert "left out: 1" in capsys.readouterr().out
    facts = json.loads((data / "run" / "run.json").read_text())
    assert facts["step"] == 2 * 3


@pytest.mark.slow
def test_train__glass_alone_is_no_bag(data: Path) -> None:
    """Row E10 of the bad inputs: no crash downstream."""
    write_pyramid(data / "slides" / "s0.tif", np.full((SIDE_PX, SIDE_PX, 3), 243, np.uint8))
    assert _train(data / "run", data) == 0
    assert json.loads((data / "run" / "run.json").read_text())["step"] == 2 * 3


def test_validate__slides_are_opened(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "slides" / "s2.tif").write_text("no slide")
    assert main(["validate", f"data.root={data}", *SLIDE_WORDS]) == 4
    assert "train: 4 slides, 4 read, 1 faults" in capsys.readouterr().out


def test_maker__goes_on_with_what_a_killed_process_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row X3 of the faults: from the last committed chunk."""
    settings = config.load(WsiConfig, None, [*ROAD_WORDS, "encoder.batch_size=4"])
    slide = write_pyramid(tmp_path / "a.tif", picture(0))
    processor = SlideProcessor(settings, torch.device("cpu"))
    whole = FeatureExtractor(processor)
    whole.resume_in(tmp_path / "whole")
    expected = whole.write(whole(slide), slide, tmp_path)[0].read_bytes()
    encode, calls = processor.encoder.encode, []

    def dying(tiles: np.ndarray) -> torch.Tensor:
        calls.append(len(tiles))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(tiles)

    monkeypatch.setattr(processor.encoder, "encode", dying)
    maker = FeatureExtractor(processor)
    maker.resume_in(tmp_path / "unfinished")
    with pytest.raises(KeyboardInterrupt):
        maker(slide)
    again = FeatureExtractor(processor)
    again.resume_in(tmp_path / "unfinished")
    processed = again(slide)
    assert processed.features.facts["taken_over"] == 12
    assert not any("taken over" in note for note in processed.notes)
    (tmp_path / "out").mkdir()
    assert again.write(processed, slide, tmp_path / "out")[0].read_bytes() == expected


def test_fingerprint__follows_what_features_follow(tmp_path: Path) -> None:
    regions = tmp_path / "regions"
    regions.mkdir()

    def of(*words: str) -> str:
        return SlideProcessor(config.load(WsiConfig, None, [*ROAD_WORDS, *words]), torch.device("cpu")).fingerprint()

    same = of()
    assert of("encoder.batch_size=3", "read.threads=4", "train.epochs=7") == same
    assert len({same, of("tiles.mpp=1"), of("tissue.preset=tcga"), of("encoder.input_px=96"), of("read.mpp=0.3")}) == 5
    empty = of(f"tissue.regions={regions}")
    (regions / "a.tissue.geojson").write_text("{}")
    assert of(f"tissue.regions={regions}") != empty


def test_fingerprint__an_encoder_is_built_once_a_process_until_its_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, tensors = tmp_path / "lite0.pth", lite0_imagenet()
    torch.save(tensors, weights)
    build, built = networks.build_encoder, []

    def counted(settings: EncoderSettings, device: torch.device, precision: Precision) -> Encoder:
        built.append(settings)
        return build(settings, device, precision)

    monkeypatch.setattr(networks, "build_encoder", counted)
    settings = config.load(WsiConfig, None, [*ROAD_WORDS, f"encoder.weights={weights}"])
    found = {SlideProcessor(settings, torch.device("cpu")).fingerprint() for _ in range(2)}
    assert (len(built), len(found)) == (1, 1)
    torch.save({name: 2 * tensor for name, tensor in tensors.items()}, weights)
    assert SlideProcessor(settings, torch.device("cpu")).fingerprint() not in found
    assert len(built) == 2
