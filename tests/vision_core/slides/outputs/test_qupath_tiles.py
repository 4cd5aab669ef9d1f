import gzip
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vision_core.slides.outputs.scored import scored
from vision_core.errors import EnvironmentFault
from vision_core.files import origin_text
from vision_core.images.drawing import blend
from vision_core.results import RESEARCH_NOTICE, SlideResult
from vision_core.slides.outputs.heatmap import colour_legend, heatmap_layer, percentile_ranks, prominence
from vision_core.slides.outputs.qupath_tiles import EVIDENCE, RANK, SCORE, qupath_import_script, write_tiles


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def written(path: Path, result: SlideResult, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    write_tiles(path, result, **options)
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    document: dict[str, Any] = json.loads(content.decode("ascii"), parse_constant=refuse)
    return document


def many(count: int = 2500) -> SlideResult:
    draws = np.random.default_rng(0)
    tiles = draws.integers(0, (40_000, 30_000), (count, 2))
    return scored(tiles.tolist(), draws.lognormal(-9, 3, count).tolist(), size=(30_000, 40_000), tile_side=512)


def test_write_tiles__a_tile_as_qupath_reads_it(tmp_path: Path) -> None:
    spoken = {"evidence": np.array([-3, 20.5, 1], np.float32), "evidence_for": "tumour"}
    document = written(tmp_path / "a.geojson.gz", scored([(0, 0), (10, 0), (20, 10)], [0.1, 0.3, 0.2], **spoken))
    assert document["type"] == "FeatureCollection"
    assert document["features"][1] == {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[10, 0], [20, 0], [20, 10], [10, 10], [10, 0]]]},
        "properties": {
            "objectType": "tile",
            "classification": {"name": "For 'tumour': strong", "color": [230, 159, 0]},
            "measurements": {SCORE: pytest.approx(0.3), RANK: pytest.approx(0.8333, abs=1e-4), EVIDENCE: 20.5},
        },
    }


def test_write_tiles__agree_with_the_heatmap_and_say_its_scale(tmp_path: Path) -> None:
    spoken = {"evidence": np.array([64, 2, -64], np.float32), "evidence_for": "tumour"}
    result = scored([(0, 0), (10, 0), (20, 10)], [0.1, 0.3, 0.2], **spoken)
    document = written(tmp_path / "a.geojson", result)
    layer = heatmap_layer(result, (20, 40))
    white = np.full((20, 40, 3), 255, np.uint8)
    drawn = blend(white, layer, 1.0)[[0, 0, 10], [0, 10, 20]].tolist()
    assert [each["properties"]["classification"]["color"] for each in document["features"]] == drawn
    assert (document["tiles"], document["scale"]) == (prominence(result), colour_legend(result))


def test_write_tiles__notice_result_and_model_but_no_name(tmp_path: Path) -> None:
    result = replace(scored([(0, 0)], [1.0], category='Tumör "x"'), digits="1a2b3c4d")
    document = written(tmp_path / "a.geojson.gz", result)
    stated = {name: document[name] for name in ("notice", "result", "model", "mpp")}
    assert stated == {"notice": RESEARCH_NOTICE, "result": 'Tumör "x"', "model": result.model, "mpp": 0.5}
    assert document["origin"] == origin_text(result.model, "1a2b3c4d", "level 0")
    assert b"patient" not in gzip.decompress((tmp_path / "a.geojson.gz").read_bytes())


def test_write_tiles__all_scores_and_ranks_in_order(tmp_path: Path) -> None:
    result = many()
    features = written(tmp_path / "a.geojson.gz", result)["features"]
    measurements = [each["properties"]["measurements"] for each in features]
    assert len(features) == len(result)
    np.testing.assert_array_equal(np.array([each[SCORE] for each in measurements], np.float32), result.scores)
    np.testing.assert_allclose([each[RANK] for each in measurements], percentile_ranks(result.scores), atol=5.1e-5)


def test_write_tiles__closed_rings_inside_the_slide(tmp_path: Path) -> None:
    tiles = [(-5, -5), (0, 0), (35, 15), (39, 19), (40, 0), (0, 20), (-10, 0)]
    features = written(tmp_path / "a.geojson", scored(tiles, [1, 2, 3, 4, 5, 6, 7]))["features"]
    rings = np.array([each["geometry"]["coordinates"][0] for each in features])
    assert rings.shape == (4, 5, 2)  # three lie wholly outside
    assert (rings[:, 0] == rings[:, -1]).all()
    assert (rings >= 0).all() and (rings <= [40, 20]).all()
    assert rings[0].max(axis=0).tolist() == [5, 5] and rings[2].max(axis=0).tolist() == [40, 20]


def test_write_tiles__five_classes_with_a_colour_each(tmp_path: Path) -> None:
    spoken = {"evidence": np.array([1, 3, 16, -3, -16], np.float32), "evidence_for": "tumour"}
    features = written(tmp_path / "a.geojson", scored([(place, 0) for place in range(5)], [0.2] * 5, **spoken))[
        "features"
    ]
    classes = [each["properties"]["classification"] for each in features]
    names = [
        "Little evidence",
        "For 'tumour': some",
        "For 'tumour': strong",
        "For 'normal': some",
        "For 'normal': strong",
    ]
    assert [each["name"] for each in classes] == names
    assert len({tuple(each["color"]) for each in classes}) == 5
    assert all(len(each["color"]) == 3 and all(0 <= value <= 255 for value in each["color"]) for each in classes)


def test_write_tiles__attention_alone_has_classes_of_its_own(tmp_path: Path) -> None:
    tiles = [(place, 0) for place in range(39)]
    features = written(tmp_path / "a.geojson", scored(tiles, [0.6, 0.2, *[0.2 / 37] * 37]))["features"]
    names = [each["properties"]["classification"]["name"] for each in features]
    assert names == ["Attention: strong", "Attention: some", *["Little attention"] * 37]


@pytest.mark.parametrize("score", [1e-38, -3.5, 3e38, 0.0, 123456.7])
def test_write_tiles__scores_of_any_size_come_back(tmp_path: Path, score: float) -> None:
    (feature,) = written(tmp_path / "a.geojson.gz", scored([(0, 0)], [score]))["features"]
    assert np.float32(feature["properties"]["measurements"][SCORE]) == np.float32(score)


def test_write_tiles__no_tissue_is_an_empty_collection(tmp_path: Path) -> None:
    assert written(tmp_path / "a.geojson.gz", scored([], []))["features"] == []


def test_write_tiles__detections_on_request(tmp_path: Path) -> None:
    (feature,) = written(tmp_path / "a.geojson.gz", scored([(0, 0)], [1.0]), kind="detection")["features"]
    assert feature["properties"]["objectType"] == "detection"


def test_write_tiles__same_result_same_bytes(tmp_path: Path) -> None:
    for name in ("a.geojson.gz", "b.tiles.geojson.gz"):
        write_tiles(tmp_path / name, many())
    first, second = ((tmp_path / name).read_bytes() for name in ("a.geojson.gz", "b.tiles.geojson.gz"))
    assert first == second
    assert first[4:8] == bytes(4) and not first[3] & 8  # neither time nor name in the header


@pytest.mark.slow
def test_write_tiles__hundred_thousand_tiles_in_flat_memory(tmp_path: Path) -> None:
    columns, rows = np.meshgrid(np.arange(400), np.arange(250))
    tiles = np.column_stack([columns.ravel(), rows.ravel()]) * 256
    scores = np.random.default_rng(0).random(100_000)
    result = scored(tiles.tolist(), scores.tolist(), size=(64_000, 102_400), tile_side=256)
    write_tiles(tmp_path / "a.geojson.gz", scored([(0, 0)], [1.0]))  # imports
    tracemalloc.start()
    write_tiles(tmp_path / "a.geojson.gz", result)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # the text has 30 MB; as objects it would have hundreds
    with gzip.open(tmp_path / "a.geojson.gz", "rt") as file:
        assert sum('"type":"Feature"' in line for line in file) == 100_000


def test_write_tiles__a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault):
        write_tiles(tmp_path / "file" / "a.geojson.gz", many())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_qupath_import_script__knows_the_files_and_measurements_that_are_written() -> None:
    script = qupath_import_script()
    assert f"'{RANK}'" in script and RESEARCH_NOTICE in script
    for needed in ("GZIPInputStream", "readObjectsFromGeoJSON", "getImageList", "saveImageData", ".tissue"):
        assert needed in script
    assert script.isascii() and script.count("{") == script.count("}") and script.count("(") == script.count(")")
