from pathlib import Path

import numpy as np
from pydicom import dcmread

from pipelines.ultrasound.data.files import open_file
from pipelines.ultrasound.phantom.dicom_cine import write_cine
from pipelines.ultrasound.phantom.study import Phantom
from vision_core.dicom.reader import read_dicom_view
from vision_core.images.untrusted import UntrustedImages


def test_write_cine__is_read_as_the_phantom_with_its_spacing(tmp_path: Path) -> None:
    path = tmp_path / "sweep.dcm"
    write_cine(path, 3, 2)
    phantom = Phantom(3)
    with UntrustedImages() as reader:
        opened = open_file(path, reader)
        frames = [opened.read(number) for number in range(2)]
    assert opened.texts == ("sweep.dcm#0", "sweep.dcm#1")
    assert np.array_equal(frames, [each.image for each in phantom.cine(2)])
    assert opened.spacing_mm == (phantom.raster.spacing_mm, phantom.raster.spacing_mm)
    assert opened.notes == ()
    facts = read_dicom_view(path)[0].facts
    assert not facts.may_name  # it says that no text is burned in
    assert "no patient" in facts.description
    assert dcmread(path).FrameTime == 40
    before = path.read_bytes()
    write_cine(path, 3, 2)
    assert path.read_bytes() == before
