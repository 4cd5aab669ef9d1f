"""One slide in, its result and files out."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from pipelines.wsi.__main__ import main
from pipelines.wsi.features.slide_processing import SlideProcessor
from pipelines.wsi.predict import WsiPredictor, columns
from pipelines.wsi.weights.bundles import DECISION, SlideModel
from tests.pipelines.wsi.tiny import CLASSES, SIDE_PX, TILE_PX, damage_tile, make_bundle, picture, write_pyramid
from tests.pipelines.wsi.weights.test_bundles import card, network
from vision_core.config import loading as config
from vision_core.errors import InputError
from vision_core.evaluation.calibration import Calibration
from vision_core.evaluation.scope import fit_scope
from vision_core.images.reading import read_image
from vision_core.results import NO_TISSUE, RESEARCH_NOTICE
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.reading.slide import Slide

ENDINGS = (".heatmap.png", ".heatmap.tif", ".jpg", ".json", ".tiles.geojson.gz", ".tissue.geojson", ".top.png")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> WsiPredictor:
    return WsiPredictor.from_checkpoint(bundle)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pyramid(tmp_path_factory.mktemp("slide") / "a.b.tif", picture(3))


def _predict(bundle: Path, given: Path, out: Path, *words: str) -> int:
    return main(["predict", "--checkpoint", str(bundle), "--input", str(given), "--out", str(out), *words])


def test_predict__neutral_names_leave_no_other_in_any_file_of_the_results(
    bundle: Path, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Quill").mkdir()
    shutil.copy(slide, named := tmp_path / "Quill" / "Zaphod.b.tif")
    kept = f"--id-map={tmp_path / 'map.csv'}"
    assert _predict(bundle, named.parent, tmp_path / "out", kept) == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name.split(".")[0] for path in files if path.parent.name == "outputs"} == {"case-0001"}
    assert [path for path in files if b"Quill" in path.read_bytes() or b"Zaphod" in path.read_bytes()] == []
    (tmp_path / "list.csv").write_text(f"slide\n{named}\n")
    capsys.readouterr()
    for given, words, told in (
        (named, (f"tissue.regions={tmp_path}",), "finds files by the names of the inputs"),
        (tmp_path / "list.csv", (), "--id-map takes a file or a folder"),
    ):
        assert _predict(bundle, given, tmp_path / "other", kept, *words) == 2
        assert told in capsys.readouterr().err


def test_call__result_covers_the_tissue(predictor: WsiPredictor, slide: Path) -> None:
    result = predictor(slide)
    assert (result.slide, result.size, result.classes) == ("a.b.tif", (SIDE_PX, SIDE_PX), CLASSES)
    assert result.mpp == pytest.approx(0.5)
    assert result.probabilities.sum() == pytest.approx(1)
    assert result.category == CLASSES[int(result.probabilities[1] >= 0.5)]
    assert result.tile_side == TILE_PX
    assert 20 < len(result) < (SIDE_PX // TILE_PX) ** 2
    assert result.scores.sum() == pytest.approx(1, abs=1e-4)
    assert result.model == predictor.card.identity()
    area = np.pi * (0.36 * SIDE_PX * 0.5e-3) ** 2
    assert result.facts["area_mm2"] == pytest.approx(area, rel=0.1)
    assert set(columns(result)) >= {
        "category",
        "p_normal",
        "p_tumour",
        "tiles",
        "mpp",
        "area_mm2",
        "threshold",
        "verdict",
        "notice",
    }


def test_call__paths_may_be_strings(predictor: WsiPredictor, bundle: Path, slide: Path, tmp_path: Path) -> None:
    named = WsiPredictor.from_checkpoint(str(bundle), device="cpu")
    one, other = named(str(slide)), predictor(slide)
    assert (one.slide, one.category) == (other.slide, other.category)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    written = named.write(one, str(slide), str(tmp_path / "out"))
    assert sorted(path.name for path in written) == [f"a.b{ending}" for ending in ENDINGS]
    with pytest.raises(TypeError, match="the path of a slide"):
        named(np.zeros((8, 8, 3), np.uint8))


def test_write__files_are_named_after_the_slide_and_carry_the_notice(
    predictor: WsiPredictor, slide: Path, tmp_path: Path
) -> None:
    """Row M7 of what an app must do: the notice stands in each artefact."""
    result = predictor(slide)
    written = predictor.write(result, slide, tmp_path)
    assert sorted(path.name for path in written) == [f"a.b{ending}" for ending in ENDINGS]
    texts = {path.name: path.read_bytes() for path in written}
    texts["a.b.tiles.geojson.gz"] = gzip.decompress(texts["a.b.tiles.geojson.gz"])
    assert all(RESEARCH_NOTICE.encode() in text for name, text in texts.items() if not name.endswith((".png", ".jpg")))
    tiles = json.loads(texts["a.b.tiles.geojson.gz"])
    assert len(tiles["features"]) == len(result)
    record = json.loads(texts["a.b.json"])
    assert record["category"] == result.category
    assert record["tiles"] == len(result)
    assert read_image(tmp_path / "a.b.heatmap.png").shape[1] >= SIDE_PX
    with tifffile.TiffFile(tmp_path / "a.b.heatmap.tif") as file:
        assert len(file.pages) > 1 or file.pages[0].shape[0] <= 256
        assert file.pages[0].aspage().is_tiled


def test_write__same_slide_same_bytes(bundle: Path, slide: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        again = WsiPredictor.from_checkpoint(bundle)
        (tmp_path / name).mkdir()
        again.write(again(slide), slide, tmp_path / name)
    assert _contents(tmp_path / "first") == _contents(tmp_path / "second")


def test_call__glass_alone_is_a_result_without_tissue(predictor: WsiPredictor, tmp_path: Path) -> None:
    """Row E10 of the bad inputs."""
    glass = write_pyramid(tmp_path / "glass.tif", np.full((SIDE_PX, SIDE_PX, 3), 243, np.uint8))
    result = predictor(glass)
    assert (result.category, len(result), len(result.probabilities)) == (NO_TISSUE, 0, 0)
    assert result.notes[0] == "No tissue was found on this slide."
    written = predictor.write(result, glass, tmp_path / "out")
    assert [path.name for path in written] == ["glass.json", "glass.heatmap.png", "glass.jpg", "glass.tissue.geojson"]
    assert columns(result)["category"] == NO_TISSUE


def test_predict__features_of_a_slide_give_what_the_slide_gives(bundle: Path, slide: Path, tmp_path: Path) -> None:
    assert _predict(bundle, slide, tmp_path / "slide", "results.features=true", "results.top_tiles=0") == 0
    made = tmp_path / "slide" / "outputs" / "a.b.h5"
    assert not (tmp_path / "slide" / "outputs" / "a.b.top.png").exists()
    assert _predict(bundle, made, tmp_path / "features") == 0
    of_slide, of_features = (
        json.loads((tmp_path / name / "outputs" / "a.b.json").read_text()) for name in ("slide", "features")
    )
    assert of_features["probabilities"] == of_slide["probabilities"]
    assert of_features["tiles"] == of_slide["tiles"]
    assert any("the slide itself was not opened" in note for note in of_features["notes"])
    assert (tmp_path / "features" / "outputs" / "a.b.heatmap.png").exists()
    assert (tmp_path / "features" / "import_into_qupath.groovy").read_text().startswith("/*")


def test_predict__features_without_places_have_no_heatmap(bundle: Path, tmp_path: Path) -> None:
    torch.save(torch.rand(5, 1280), tmp_path / "bag.pt")
    assert _predict(bundle, tmp_path / "bag.pt", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out" / "outputs").iterdir()] == ["bag.json"]


def test_predict__a_mask_edited_by_hand_is_read_back(bundle: Path, slide: Path, tmp_path: Path) -> None:
    regions = tmp_path / "regions"
    regions.mkdir()
    ring = [[128, 128], [384, 128], [384, 384], [128, 384], [128, 128]]
    drawn = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    collection = {"type": "FeatureCollection", "features": [drawn]}
    (regions / "a.b.tissue.geojson").write_text(json.dumps(collection))
    assert _predict(bundle, slide, tmp_path / "out", f"tissue.regions={regions}") == 0
    assert json.loads((tmp_path / "out" / "outputs" / "a.b.json").read_text())["tiles"] == 16
    assert _predict(bundle, slide, tmp_path / "none", f"tissue.regions={tmp_path / 'absent'}") == 2


def test_predict__settings_of_training_are_refused(
    bundle: Path, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _predict(bundle, slide, tmp_path / "out", "tiles.tile_px=32") == 2
    assert "is a setting of training" in capsys.readouterr().err


def test_predict__an_encoder_of_another_width_is_refused_before_any_slide(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row E20 of the bad inputs."""
    other = make_bundle(tmp_path / "model", dim=1024)
    assert _predict(other, slide, tmp_path / "out") == 2
    assert "encoder 'lite0' makes 1280" in capsys.readouterr().err


def test_predict__other_weights_of_the_same_encoder_are_refused(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_bundle(tmp_path / "model", preprocessing={"encoder": {"name": "lite0", "weights": "0" * 64}})
    assert _predict(other, slide, tmp_path / "out") == 2
    assert "weights was '000" in capsys.readouterr().err


def test_predict__microns_per_pixel_of_a_list_or_of_the_command(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row E5 of the bad inputs."""
    write_pyramid(tmp_path / "slides" / "x.tif", picture(1), mpp=None)
    (tmp_path / "list.csv").write_text("slide,mpp\nslides/x.tif,0.25\n")
    assert _predict(bundle, tmp_path / "slides", tmp_path / "none") == 3
    assert "Give it in a column 'mpp' of the CSV of slides, or with read.mpp" in capsys.readouterr().out
    assert _predict(bundle, tmp_path / "list.csv", tmp_path / "listed") == 0
    assert _predict(bundle, tmp_path / "slides", tmp_path / "said", "read.mpp=0.5") == 0
    found = [json.loads((tmp_path / name / "outputs" / "x.json").read_text())["mpp"] for name in ("listed", "said")]
    assert found == [0.25, 0.5]


def test_predict__an_unreadable_tile_fails_its_slide_unless_allowed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide = write_pyramid(tmp_path / "x.tif", picture(1))
    damage_tile(slide)
    assert _predict(bundle, slide, tmp_path / "strict") == 3
    assert "x.tif': level 0 cannot be read at" in capsys.readouterr().out
    strict = WsiPredictor.from_checkpoint(bundle)
    with pytest.raises(InputError, match="level 0 cannot be read at"):
        strict(slide)
    settings = config.replace(strict.config, {"read.max_bad_tiles": 4})
    lenient = WsiPredictor.from_checkpoint(bundle, config=settings)(slide)
    assert any(note.startswith("4 of ") and note.endswith("are left out.") for note in lenient.notes)


def test_call__doubts_are_told_first(tmp_path: Path) -> None:
    """Row M6 of what an app must do."""
    generator = np.random.default_rng(0)
    scope = fit_scope(generator.normal(size=(40, 6)), generator.normal(size=(40, 6)))
    fitted = Calibration(temperature=1.0, coverage=0.9, threshold=1.0, num_cases=20)
    calibration = {**fitted.to_record(), DECISION: 0.5}
    model = SlideModel(
        network("abmil"), card("abmil", scope=scope.to_record(), calibration=calibration), torch.device("cpu")
    )
    reading = model.predict(torch.full((5, 6), 50.0))
    assert reading.is_outside
    assert reading.possible is not None
    assert reading.possible.all()


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_predict__an_edited_mask_and_a_corrected_scale_are_seen_by_the_same_command(
    bundle: Path, slide: Path, tmp_path: Path
) -> None:
    silent = write_pyramid(tmp_path / "in" / "silent.tif", picture(5), mpp=None)
    shutil.copy(slide, tmp_path / "in" / "said.tif")
    listed, masks = tmp_path / "slides.csv", tmp_path / "masks"
    listed.write_text("slide,mpp\nin/silent.tif,0.5\nin/said.tif,\n")
    words = ["predict", "--checkpoint", str(bundle), "--input", str(listed), "--out", str(tmp_path / "out")]
    masks.mkdir()
    assert main([*words, f"tissue.regions={masks}"]) == 0
    outputs = tmp_path / "out" / "outputs"
    before = {path.name: path.stat().st_mtime_ns for path in outputs.iterdir()}
    (masks / "said.tissue.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert main([*words, f"tissue.regions={masks}"]) == 0
    assert json.loads((outputs / "said.json").read_text())["category"] == "no tissue"
    assert (outputs / "silent.json").stat().st_mtime_ns == before["silent.json"]
    listed.write_text("slide,mpp\nin/silent.tif,0.25\nin/said.tif,\n")
    assert main([*words, f"tissue.regions={masks}"]) == 0
    assert json.loads((outputs / "silent.json").read_text())["mpp"] == 0.25
    assert silent.exists()


def test_predict__a_damaged_bundle_is_told_before_any_slide_is_opened(
    bundle: Path, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = shutil.copytree(bundle, tmp_path / "bundle")
    content = bytearray((damaged / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "weights.safetensors").write_bytes(content)

    def opened(_processor: SlideProcessor, path: Path) -> Slide:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(SlideProcessor, "open", opened)
    assert main(["predict", "--checkpoint", str(damaged), "--input", str(slide), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_predict__stopped_within_a_slide_goes_on_within_it(
    bundle: Path, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row X3 of the faults: a slide can take an hour."""
    encode, batches = Encoder.encode, []

    def stopping(encoder: Encoder, tiles: np.ndarray) -> torch.Tensor:
        batches.append(len(tiles))
        if len(batches) == 4:
            raise KeyboardInterrupt
        return encode(encoder, tiles)

    words = (slide.parent, tmp_path / "out", "encoder.batch_size=4")
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", stopping)
        assert _predict(bundle, *words) == 130
        assert list(tmp_path.glob("out/.unfinished-*/.*"))
        assert _predict(bundle, *words) == 0
    assert not list((tmp_path / "out").glob(".unfinished*"))
    assert _predict(bundle, slide.parent, tmp_path / "whole", "encoder.batch_size=4") == 0
    tiles = json.loads((tmp_path / "whole" / "outputs" / "a.b.json").read_text())["tiles"]
    assert sum(size for size in batches if size > 1) == tiles + 4  # the batch in which it stopped; 1: a probe
    outputs = [{path.name: path.read_bytes() for path in tmp_path.glob(f"{out}/outputs/*")} for out in ("out", "whole")]
    assert outputs[0] == outputs[1]
