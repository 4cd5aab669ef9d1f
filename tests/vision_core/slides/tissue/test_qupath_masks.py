import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision_core.errors import InputError
from vision_core.slides.tissue.qupath_masks import QuPathMask, read_qupath_mask
from vision_core.slides.tissue.regions import regions_to_mask

SIZE = (100, 200)  # height, width
HOLE = [[20, 20], [30, 20], [30, 30], [20, 30], [20, 20]]


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def polygon(*rings: Any) -> dict[str, Any]:  # noqa: ANN401 (right or wrong)
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation", **properties}}


def collection(*features: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"type": "FeatureCollection", "features": list(features)}


def read(tmp_path: Path, document: Any) -> QuPathMask:  # noqa: ANN401
    path = tmp_path / "a.tissue.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_qupath_mask(path, SIZE)


def area(drawing: QuPathMask) -> int:
    return int(regions_to_mask(drawing.regions, SIZE, (1.0, 1.0)).sum())


MULTI = {"type": "MultiPolygon", "coordinates": [[box(10, 10, 40, 40), HOLE], [box(60, 10, 70, 20)]]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (collection(feature(polygon(box(10, 10, 40, 40), HOLE))), 800),
        (collection(feature(MULTI)), 900),
        ([feature(MULTI)], 900),
        (feature(MULTI), 900),
        (MULTI, 900),
        ([MULTI], 900),
        (collection(feature({"type": "GeometryCollection", "geometries": [MULTI]})), 900),
        (collection(feature(polygon(box(10, 10, 40, 40)[:-1]))), 900),  # not closed
        (collection(feature(polygon([[*point, 0.0] for point in box(10, 10, 40, 40)]))), 900),  # with z
        (collection(feature(polygon(box(10, 10, 40, 40))), feature(polygon(box(20, 10, 50, 40)))), 1200),  # overlap
        (collection(feature(polygon(box(10, 10, 40, 40)), classification={"name": "Tumor", "color": [9, 9, 9]})), 900),
        (
            collection(
                feature(polygon(box(10, 10, 40, 40))), feature(polygon(HOLE), classification={"name": "Ignore*"})
            ),
            800,
        ),
        (collection(), 0),
        ([], 0),
    ],
)
def test_read_qupath_mask__whatever_qupath_exports(tmp_path: Path, document: Any, expected: int) -> None:  # noqa: ANN401
    drawing = read(tmp_path, document)
    assert area(drawing) == expected and drawing.notes == ()


def test_read_qupath_mask__byte_order_mark(tmp_path: Path) -> None:
    assert area(read(tmp_path, "\ufeff" + json.dumps(MULTI))) == 900


@pytest.mark.parametrize(
    ("ring", "expected"),
    [
        (box(-50, -50, 20, 30), 600),
        (box(190, 90, 1e6, 1e6), 100),
        (box(-1e9, -1e9, 1e9, 1e9), 20_000),
        ([[-100, 50], [100, -150], [300, 50], [100, 250]], 20_000),  # a rhombus around the slide
        ([[-50, 0], [50, 50], [-50, 100]], 1250),
    ],
)
def test_read_qupath_mask__cut_at_the_edge_of_the_slide(tmp_path: Path, ring: list[list[float]], expected: int) -> None:
    drawing = read(tmp_path, polygon(ring))
    assert area(drawing) == pytest.approx(expected, abs=30)
    assert all(((region.outline >= 0) & (region.outline <= SIZE[::-1])).all() for region in drawing.regions)
    assert drawing.notes == ("In the edited mask, one object reached beyond the slide and was cut.",)


def test_read_qupath_mask__a_pixel_beyond_is_cut_without_a_word(tmp_path: Path) -> None:
    drawing = read(tmp_path, polygon(box(-0.5, 0, 200.5, 101)))
    assert drawing.notes == () and drawing.regions[0].outline.max(axis=0).tolist() == [200, 100]


def test_read_qupath_mask__all_outside_is_another_slide(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"all 2 areas lie outside the slide of 200 x 100 pixels"):
        read(tmp_path, [polygon(box(500, 500, 600, 600)), polygon(box(-9, -9, -3, -3))])


@pytest.mark.parametrize("kind", ["Point", "MultiPoint", "LineString", "MultiLineString"])
def test_read_qupath_mask__what_has_no_area_is_left_out_and_told(tmp_path: Path, kind: str) -> None:
    drawing = read(tmp_path, collection(feature(MULTI), feature({"type": kind, "coordinates": [1, 2]}), feature(None)))
    assert area(drawing) == 900
    assert drawing.notes == ("In the edited mask, each of 2 objects has no area and was left out.",)


@pytest.mark.parametrize("ring", [[], [[1, 1]], [[1, 1], [5, 5], [1, 1]], [[1, 1]] * 9])
def test_read_qupath_mask__ring_without_area(tmp_path: Path, ring: list[list[float]]) -> None:
    assert len(read(tmp_path, [polygon(ring), MULTI]).regions) == 2


def test_read_qupath_mask__mask_of_a_slide_of_another_size(tmp_path: Path) -> None:
    document = {**collection(feature(MULTI)), "slide": {"width": 300, "height": 100}}
    with pytest.raises(InputError, match="of a slide of 300 x 100 pixels, but this one has 200 x 100"):
        read(tmp_path, document)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "is no GeoJSON"),
        ('{"type": "FeatureCollection", "features": [', "is no GeoJSON"),
        ("[" * 100_000, "is no GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[NaN, 1], [2, 2], [3, 1]]]}', "found 'NaN'"),
        ('{"type": "Polygon", "coordinates": [[[1e999, 1], [2, 2], [3, 1]]]}', "two finite numbers"),
        ('{"type": "Polygon", "coordinates": [[[1' + "0" * 400 + ", 1], [2, 2], [3, 1]]]}", "object 1 is no area"),
        ('{"type": "Polygon", "coordinates": [], "coordinates": [[[1, 1], [2, 2], [3, 1]]]}', "'coordinates' twice"),
        ("null", "found None"),
        ("7", "found 7"),
        ("{}", "found the type None"),
        ({"type": "FeatureCollection"}, "found None"),
        (collection(3), "object 1 is no area"),
        (collection(feature(MULTI), feature({"type": "Circle"})), "object 2 .*'Circle'"),
        (collection(feature("Polygon")), "expected a geometry"),
        (collection(feature({"type": "Polygon"})), "'coordinates'"),
        (collection(feature({"type": "Polygon", "coordinates": None})), "expected rings"),
        (collection(feature(polygon("ring"))), "expected a ring of points"),
        (collection(feature(polygon([[1, 2], [3], [4, 5]]))), r"expected a point \[x, y\]"),
        (collection(feature(polygon([[1, "2"], [3, 4], [4, 5]]))), "two finite numbers"),
        (collection(feature(polygon([[1, True], [3, 4], [4, 5]]))), "two finite numbers"),
    ],
)
def test_read_qupath_mask__broken_files_are_named(tmp_path: Path, document: Any, told: str) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match=told) as caught:
        read(tmp_path, document)
    assert "a.tissue.geojson'" in str(caught.value) and "\n" not in str(caught.value)


def test_read_qupath_mask__not_text_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="is no GeoJSON"):
        read_qupath_mask(tmp_path / "b", SIZE)
    for missing in (tmp_path / "c", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_qupath_mask(missing, SIZE)


def test_read_qupath_mask__cut_ring_has_the_area_of_the_part_inside(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for _ in range(20):
        ring = draws.uniform(-80, 260, (12, 2))
        ring = ring[np.argsort(np.arctan2(*(ring - ring.mean(axis=0)).T))].tolist()  # a star around its middle
        large = regions_to_mask(read_drawing_of(tmp_path, ring, (400, 400)).regions, (400, 400), (1.0, 1.0))
        small = regions_to_mask(read_drawing_of(tmp_path, ring, SIZE).regions, SIZE, (1.0, 1.0))
        np.testing.assert_array_equal(small, large[:100, :200])


def read_drawing_of(tmp_path: Path, ring: list[list[float]], size: tuple[int, int]) -> QuPathMask:
    path = tmp_path / "star.geojson"
    path.write_text(json.dumps([polygon(ring), polygon(box(0, 0, 1, 1))]))
    return read_qupath_mask(path, size)


IGNORE = {"classification": {"name": "Ignore*"}}


def test_read_qupath_mask__a_hole_of_an_ignored_area_is_kept(tmp_path: Path) -> None:
    whole, ring = box(0, 0, 60, 60), polygon(box(10, 10, 50, 50), box(20, 20, 40, 40))
    assert area(read(tmp_path, collection(feature(polygon(whole)), feature(ring, **IGNORE)))) == 3600 - (1600 - 400)
    second = feature(polygon(box(30, 30, 40, 60)), **IGNORE)  # reaches into that hole
    expected = 3600 - (1600 - 400) - 100 - 100
    assert area(read(tmp_path, collection(feature(polygon(whole)), feature(ring, **IGNORE), second))) == expected


@pytest.mark.parametrize("classification", [{"name": "ignore"}, {"names": ["Ignore*"]}, "Ignore*"])
def test_read_qupath_mask__ignored_in_every_spelling(classification: object, tmp_path: Path) -> None:
    ignored = feature({"type": "MultiPolygon", "coordinates": [[box(0, 0, 5, 5)], [box(5, 5, 9, 9)]]})
    ignored["properties"]["classification"] = classification
    assert area(read(tmp_path, collection(feature(polygon(box(0, 0, 10, 10))), ignored))) == 100 - 25 - 16


def test_read_qupath_mask__packed_and_in_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps(MULTI).encode()))
    assert area(read_qupath_mask(path, SIZE)) == 900
    path.write_bytes(gzip.compress(json.dumps(MULTI).encode())[:-20])
    with pytest.raises(InputError, match="is packed and breaks off or is damaged"):
        read_qupath_mask(path, SIZE)
    path.write_bytes(json.dumps(MULTI).encode("utf-16"))
    assert area(read_qupath_mask(path, SIZE)) == 900


def test_read_qupath_mask__shares_of_the_slide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"within 0 and 1 \(largest 0\.9\), so they look like shares of the slide"):
        read(tmp_path, polygon(box(0.1, 0.1, 0.9, 0.9)))
