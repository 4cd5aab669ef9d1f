import os
from pathlib import Path

import pytest

from tests.vision_core.slides.dicom_slides import write_instance, write_series
from tests.vision_core.slides.tiffs import tissue
from vision_core.slides.identity import identity, read_instance, slide_name, stands_for


def test_slide_name__suffixes_and_composed_letters() -> None:
    assert slide_name("TCGA-05-4244-01Z-00-DX1.d4ff32cd.svs") == "TCGA-05-4244-01Z-00-DX1.d4ff32cd"
    assert slide_name("Ka\u0308se.NDPI") == "K\u00e4se"
    assert slide_name("v1.2") == "v1.2"
    assert slide_name(".svs") == ".svs"
    assert slide_name("a\\b/x.QPTIFF") == "a/b/x"
    assert slide_name("x.h5") == "x"


@pytest.mark.parametrize(
    ("stated", "expected"), [("x", True), ("a/x", True), ("/d/a/x", True), ("b/x", False), ("X", False), ("", False)]
)
def test_stands_for__the_end_of_a_path(stated: str, *, expected: bool) -> None:
    assert stands_for(stated, Path("/d/a/x.tif")) is expected


def test_identity__path_without_links_or_series(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "b.svs").symlink_to("a.svs")
    assert identity(tmp_path / "a.svs") == identity(tmp_path / "b.svs") == os.path.realpath(tmp_path / "a.svs")
    files = write_series(tmp_path, tissue((256, 256)))
    assert len({identity(path) for path in files}) == 1 and identity(files[0]).startswith("dicom:")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "VOLUME"),
        ({"ImageType": "DERIVED"}, "VOLUME"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "label"]}, "LABEL"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "CT"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.2", "Modality": "SM"}, "VOLUME"),  # as some converters write
    ],
)
def test_read_instance__kind_of_a_file(changes: dict[str, object], kind: str, tmp_path: Path) -> None:
    found = read_instance(write_instance(tmp_path / "a.dcm", tissue((128, 128)), "a", "VOLUME", mpp=0.5, **changes))
    assert found is not None and found.kind == kind


def test_read_instance__nothing_of_a_file_that_is_none(tmp_path: Path) -> None:
    path = write_instance(tmp_path / "a.dcm", tissue((128, 128)), "a", "VOLUME", mpp=0.5)
    for name, content in {"cut": path.read_bytes()[:200], "junk": b"\1" * 400, "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert read_instance(tmp_path / name) is None
    assert identity(tmp_path / "gone.dcm") == os.path.realpath(tmp_path / "gone.dcm")
    assert read_instance(tmp_path) is None
