import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.bad_inputs import dicoms
from tests.bad_inputs.dicoms import ramp, still
from vision_core.dicom.display import Window
from vision_core.dicom.reader import hashed_number, inspect_dicom, is_dicom, read_dicom_image, read_noted_dicom
from vision_core.errors import InputError

Make = Callable[[Path], Path]

REFUSED: list[tuple[Make, str]] = [
    (dicoms.f01_text, r"note\.dcm' is not a DICOM file: the mark 'DICM'"),
    (dicoms.f01_without_mark, r"bare\.dcm' is not a DICOM file"),
    (dicoms.f01_empty, r"empty\.dcm' is empty \(0 bytes\)"),
    (dicoms.f02_huge, r"huge\.dcm' declares 60000 x 60000 pixels, '3600.0' megapixels; 100 are allowed"),
    (
        dicoms.f02_larger_than_its_data,
        r"declares '1024' bytes of pixels \('1' frames of 32 x 32\); 256 are in the file",
    ),
    (dicoms.f02_many_frames, r"declares '256000000000' bytes of pixels \('1000000000' frames"),
    (dicoms.f02_larger_codestream, r"declares '\(16, 16, 1\)' rows, .* its compressed image '\(2000, 3000, 1\)'"),
    (dicoms.f02_larger_codestream_2000, r"its compressed image '\(2000, 3000, 1\)'"),
    (dicoms.f02_many_compressed_frames, r"declares '1000000000' frames; its compressed pixels have 1 pieces"),
    (dicoms.f04_report, r"report\.dcm': no image in this object \(SR\)"),
    (dicoms.f04_directory, r"DICOMDIR': no image in this object \(Media Storage Directory Storage\)"),
    (dicoms.f04_waveform, r"ecg\.dcm': no image in this object \(ECG\)"),
    (dicoms.f05_truncated, r"cut off: pixel data \(7FE0,0010\) claims '256' bytes, 156 are left"),
    (dicoms.f05_truncated_compressed, r"cut off: an item \(FFFE,E000\) claims '\d+' bytes, \d+ are left"),
    (dicoms.f05_without_pixels, r"has the header of an image but no pixels: it is cut off"),
    (dicoms.f05_truncated_deflated, r"deflated content is cut off"),
    (dicoms.f06_odd_precision, r"lossless\.dcm' has pixels with a damaged JPEG header"),
    (dicoms.f06_no_marker, r"lossless\.dcm' has pixels with a damaged JPEG header"),
    (dicoms.f07_high_throughput, r"'High-Throughput JPEG 2000.*pip install pylibjpeg 'pylibjpeg-openjpeg>=2'\."),
    (dicoms.f07_video, r"transfer syntax 'MPEG-4.*', which is no still image"),
    (dicoms.f09_nested, r"sequence depth >64"),
    (dicoms.f09_nested_with_lengths, r"sequence depth >64"),
    (dicoms.f09_nested_unknown, r"sequence depth >64"),
    (dicoms.f10_no_length, r"element \(0042,0011\) has no length"),
    (dicoms.f10_beyond_the_file, r"element \(0042,0011\) claims '2000000000' bytes, \d+ are left"),
    (dicoms.f11_deflate_bomb, r"deflated content is cut off, or larger than '256' MiB"),
    (dicoms.f12_stored_above_allocated, r"declares '12' stored bits in '8' allocated ones"),
    (dicoms.f12_high_bit, r"has its highest bit at '15' with 12 stored bits; 11 is expected"),
    (dicoms.f24_not_finite, r"nan\.dcm' has pixels that are not finite"),
    (dicoms.f25_no_rows, r"rows\.dcm' declares no Rows"),
    (dicoms.f25_no_syntax, r"declares no known transfer syntax"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_read__refused_without_naming_anyone(
    make: Make, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)
    before = path.read_bytes()
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError, match=message) as caught:
        read_dicom_image(path)
    assert len(caught.value.problems) == 1
    assert path.read_bytes() == before
    told = str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert "Secret" not in told
    assert dicoms.NUMBER not in told


def test_read__absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.dcm' cannot be opened: no such file"):
        read_dicom_image(tmp_path / "absent.dcm")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_read__eight_bits_keep_their_values_in_every_encoding(syntax: str, tmp_path: Path) -> None:
    still(tmp_path / "a.dcm", syntax=syntax)
    np.testing.assert_array_equal(read_dicom_image(tmp_path / "a.dcm"), _grey(ramp()))


@pytest.mark.parametrize(
    "make",
    [dicoms.f12_signed, dicoms.f24_float, dicoms.f24_double, dicoms.f24_thirty_two_bits],
)
def test_read__values_without_a_window_span_the_range(make: Make, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_dicom_image(make(tmp_path)), _grey(ramp()))


def test_read__lossless_jpeg_is_lossless(tmp_path: Path) -> None:
    path = dicoms.f06_lossless_jpeg(tmp_path)
    assert dcmread(path).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    plain = still(tmp_path / "plain.dcm", dicoms._twelve_bits(), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_dicom_image(path), read_dicom_image(plain))


def test_read__lossless_jpeg_without_gdcm_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    path = dicoms.f06_lossless_jpeg(tmp_path)
    monkeypatch.setattr(Decoder, "available_plugins", ("pylibjpeg",))
    with pytest.raises(InputError, match=r"pip install 'domainsight\[medical\]'"):
        read_dicom_image(path)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_expb"]
)
def test_read__real_mr_is_the_same_in_every_compression(name: str) -> None:
    np.testing.assert_array_equal(_real(name), _real("MR_small"))


def test_read__real_ct_is_as_the_standard_says() -> None:
    path = Path(str(get_testdata_file("693_J2KI.dcm")))
    header = dcmread(path)
    values = pixel_array(header) * float(header.RescaleSlope) + float(header.RescaleIntercept)
    centre, width = (float(np.atleast_1d(header[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    shown = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(read_dicom_image(path), _grey(np.rint(shown)))


@pytest.mark.parametrize(
    "name",
    ["rgb_rle", "rgb_rle_16bit", "rgb_jpeg_gdcm", "rgb_gdcm_KY", "ybr_full_422_uncompressed", "rgb_jpeg_dcmtk",
     "rgb_dcmtk_+eb+cr", "rgb_dcmtk_+eb+cy+n1", "rgb_dcmtk_+eb+cy+s2", "rgb_jpeg_lossy_gdcm"],
)  # fmt: skip
def test_read__colours_are_the_same_in_every_encoding(name: str) -> None:
    difference = np.abs(_real(f"SC_{name}").astype(int) - _real("SC_rgb_rle").astype(int))
    assert np.median(difference) <= 2  # bars of pure colours: lossy at their edges


@pytest.mark.parametrize("name", ["GDCMJ2K_TextGBR", "SC_rgb_jpeg"])
def test_read__odd_files_that_others_read(name: str) -> None:
    assert _real(name).std() > 0


def test_read__a_real_segmentation_is_no_picture() -> None:
    with pytest.raises(InputError, match="is a segmentation"):
        _real("liver_1frame")


def test_read__damaged_streams_end_in_an_error_not_in_the_end_of_the_process(tmp_path: Path) -> None:
    content = np.frombuffer(Path(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))).read_bytes(), np.uint8)
    start = content.tobytes().rindex(b"\xe0\x7f\x10\x00") + 8
    outcomes = set()
    for seed in range(60):
        draw, damaged = np.random.default_rng(seed), content.copy()
        damaged[draw.integers(start, start + 700, 5)] = draw.integers(0, 256, 5)
        (tmp_path / "a.dcm").write_bytes(damaged.tobytes())
        try:
            outcomes.add(read_dicom_image(tmp_path / "a.dcm").shape)
        except InputError:
            outcomes.add(())
    assert outcomes == {(), (100, 100, 3)}


def test_read__real_palette_is_looked_up() -> None:
    path = Path(str(get_testdata_file("examples_palette.dcm")))
    header = dcmread(path)
    row, column = 200, 400
    index = pixel_array(header)[row, column]
    red = np.frombuffer(header.RedPaletteColorLookupTableData, "<u2")[index]
    assert read_dicom_image(path)[row, column, 0] == round(red / 257)


def test_read__monochrome1_is_inverted(tmp_path: Path) -> None:
    image = read_dicom_image(still(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(image, _grey(255 - ramp()))


def test_read__window_acts_on_rescaled_values(tmp_path: Path) -> None:
    path = still(tmp_path / "a.dcm", ramp(np.uint16), RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[40, 0],
                 WindowWidth=[80, 1])  # fmt: skip
    values = ramp(np.float64) * 2 - 100
    shown = np.clip((values - 39.5) / 79 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(read_dicom_image(path), _grey(np.rint(shown)))


def test_read__window_of_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "frames.dcm"
    frames = np.stack([ramp(np.uint16), ramp(np.uint16)])
    still(path, frames, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=[_windowed(10), _windowed(200)])
    np.testing.assert_array_equal(read_dicom_image(path, frame=0)[0, :, 0] == 255, ramp()[0] >= 14)
    assert read_dicom_image(path, frame=1)[..., 0].max(axis=1).tolist() == [0] * 12 + [255] * 4


def test_read__display_table(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.LUTData = [0, 65535, 257 * 7, 257 * 9]
    pixels = np.array([[0, 1], [2, 3]], np.uint16)
    found = dicoms.dataset(pixels)
    found.VOILUTSequence = [table]
    found.VOILUTSequence[0]["LUTDescriptor"].VR = "US"
    found.VOILUTSequence[0]["LUTData"].VR = "US"
    found.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom_image(tmp_path / "a.dcm"), _grey(np.array([[0, 255], [7, 9]])))


def test_read__padding_does_not_widen_the_range(tmp_path: Path) -> None:
    pixels = ramp(np.int16)
    pixels[0, 0] = -2000
    path = still(tmp_path / "a.dcm", pixels, PixelPaddingValue=-2000)
    shown = (np.clip(pixels, 1, 255) - 1) / 254 * 255
    np.testing.assert_array_equal(read_dicom_image(path), _grey(np.rint(shown)))


def test_read__first_frame_is_told_and_another_can_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    path = Path(str(get_testdata_file("examples_ybr_color.dcm")))
    with caplog.at_level(logging.WARNING, logger="domainsight"):
        first = read_dicom_image(path)
    assert "holds 30 frames; the first is used" in caplog.text
    np.testing.assert_array_equal(read_dicom_image(path, frame=0), first)
    assert (read_dicom_image(path, frame=29) != first).any()
    with pytest.raises(InputError, match="holds '30' frames, counted from 0; there is no frame '30'"):
        read_dicom_image(path, frame=30)


def test_inspect__tells_what_is_needed_and_no_name(tmp_path: Path) -> None:
    facts = inspect_dicom(still(tmp_path / "a.dcm"))
    assert (facts.height, facts.width, facts.num_frames, facts.modality) == (16, 16, 1, "CT")
    assert facts.patient
    assert dicoms.NUMBER not in repr(facts)
    assert facts.patient == inspect_dicom(still(tmp_path / "b.dcm", ramp(np.uint16))).patient
    assert facts.patient != inspect_dicom(still(tmp_path / "c.dcm", PatientID="another")).patient
    assert inspect_dicom(still(tmp_path / "d.dcm", PatientID="")).patient == ""


def test_inspect__machine_and_number_of_the_file(tmp_path: Path) -> None:
    path = still(
        tmp_path / "a.dcm", Manufacturer="ACME  Ultrasound", ManufacturerModelName="X 1", SOPInstanceUID="1.2.3"
    )
    facts = inspect_dicom(path)
    assert (facts.machine, facts.instance) == ("ACME Ultrasound X 1", hashed_number("1.2.3"))
    assert "1.2.3" not in repr(facts)
    assert inspect_dicom(still(tmp_path / "b.dcm")).machine == ""


@pytest.mark.parametrize("make", [dicoms.f02_huge, dicoms.f05_truncated, dicoms.f07_high_throughput])
def test_inspect__refuses_what_cannot_be_decoded(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        inspect_dicom(make(tmp_path))


def test_is_dicom(tmp_path: Path) -> None:
    assert is_dicom(still(tmp_path / "a.dcm"))
    assert not is_dicom(dicoms.f01_text(tmp_path))


def test_window__kinds_of_the_standard() -> None:
    values = np.array([-1000.0, 0, 10, 1000])
    np.testing.assert_allclose(
        Window(centre=10, width=20, function="SIGMOID")(values), [0, 1 / (1 + np.e**2), 0.5, 1], atol=1e-12
    )
    np.testing.assert_allclose(Window(centre=10, width=20, function="LINEAR_EXACT")(values), [0, 0, 0.5, 1])
    np.testing.assert_allclose(Window(centre=10, width=21)(values), [0, 0.5 - 9.5 / 20, 0.525, 1])


def _windowed(centre: float) -> Dataset:
    values = Dataset()
    values.WindowCenter, values.WindowWidth = centre, 10
    group = Dataset()
    group.FrameVOILUTSequence = [values]
    return group


def _real(name: str) -> NDArray[np.uint8]:
    return read_dicom_image(Path(str(get_testdata_file(f"{name}.dcm"))))


def _grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("name", "is_told"),
    [("a", False), ("Doe_Jane_03", True), ("scan-PID 778", True), ("janitor", False), ("CT-778", False), ("12", False)],
)
def test_read__a_name_that_names_the_patient_is_told_without_it(name: str, is_told: bool, tmp_path: Path) -> None:
    path = dicoms.still(tmp_path / f"{name}.dcm", PatientName="Doe^Jane^A", PatientID="PID-778")
    notes = read_noted_dicom(path)[1]
    told = [note for note in notes if note.startswith("has the patient's name or number in its own name")]
    assert bool(told) is is_told and not any("jane" in note.lower() or "778" in note for note in notes)
    assert inspect_dicom(path).notes == notes
