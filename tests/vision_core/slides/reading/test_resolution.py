import pytest

from vision_core.errors import InputError
from vision_core.slides.reading.resolution import Resolution, find_resolution

OME = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    "<Image><Pixels {}/></Image></OME>"
)
POWER = {"openslide.objective-power": "20"}
MPP = {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}


def find(properties: dict[str, str], mpp: float | None = None, setting: float | None = None) -> Resolution:
    return find_resolution("a.svs", properties, {"the list of slides": mpp, "read.mpp": setting})


@pytest.mark.parametrize(
    ("properties", "mpp", "source"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"}, 0.255, "the file"),
        ({"aperio.MPP": "0.4990"}, 0.499, "'aperio.MPP'"),
        ({"aperio.MPP": "0,4990"}, 0.499, "'aperio.MPP'"),
        ({"tiff.ImageDescription": "Aperio Image|AppMag = 20|MPP = 0.2520|Left = 2"}, 0.252, "'MPP'"),
        ({"tiff.XResolution": "50800", "tiff.YResolution": "50800", "tiff.ResolutionUnit": "inch"}, 0.5, "TIFF"),
        ({"tiff.XResolution": "20000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter"}, 0.5, "TIFF"),
        ({"tiff.ImageDescription": OME.format('PhysicalSizeX="0.25" PhysicalSizeY="0.25"')}, 0.25, "OME"),
        (
            {
                "openslide.comment": OME.format(
                    'PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="2.5e-4" PhysicalSizeYUnit="mm"'
                )
            },
            0.25,
            "OME",
        ),
        ({"philips.DICOM_PIXEL_SPACING": '"0.000226891" "0.000226907"'}, 0.226899, "philips"),
        ({"mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X": "0.2325"}, 0.2325, "mirax"),
    ],
)
def test_find_resolution__of_what_a_file_says(properties: dict[str, str], mpp: float, source: str) -> None:
    found = find(properties)
    assert found.mpp == pytest.approx(mpp) and source in found.source


def test_find_resolution__openslide_before_the_vendor_before_the_tiff() -> None:
    tiff = {"tiff.XResolution": "10000", "tiff.YResolution": "10000", "tiff.ResolutionUnit": "centimeter"}
    assert find({**MPP, "aperio.MPP": "0.4", **tiff}).mpp == 0.5
    assert find({"aperio.MPP": "0.4", **tiff}).mpp == 0.4
    assert find(tiff).mpp == 1.0


def test_find_resolution__the_list_before_the_setting_before_the_file() -> None:
    assert find({}, mpp=0.3, setting=0.4).mpp == 0.3
    assert find({}, mpp=0.3, setting=0.4).source == "the list of slides"
    assert find({}, setting=0.4).source == "read.mpp"
    assert find(MPP, mpp=0.3, setting=0.4).mpp == 0.3
    assert find(MPP, setting=0.4).mpp == 0.4


@pytest.mark.parametrize(("stated", "is_noted"), [(0.5, False), (0.509, False), (0.511, True), (0.2325, True)])
def test_find_resolution__a_stated_value_that_differs_from_the_file_names_both(stated: float, is_noted: bool) -> None:
    found = find({**MPP, **POWER}, mpp=stated)
    assert found.mpp == stated
    told = f"The file gives 0.5 microns per pixel and the list of slides {stated:g}; the latter is used."
    assert [note.startswith(told) for note in found.notes if "gives" in note] == [True] * is_noted


def test_find_resolution__a_description_goes_before_the_tags_of_a_picture_editor() -> None:
    """2400 dots an inch would be a slide of 10.58 microns, and OpenSlide repeats it under a name of its own."""
    tags = {"tiff.XResolution": "2400", "tiff.YResolution": "2400", "tiff.ResolutionUnit": "inch"}
    repeated = {"openslide.mpp-x": "10.583333", "openslide.mpp-y": "10.583333"}
    described = {"tiff.ImageDescription": OME.format('PhysicalSizeX="0.5" PhysicalSizeY="0.5"')}
    for properties in ({**tags, **described}, {**tags, **repeated, **described}):
        found = find({**properties, **POWER})
        assert found.mpp == 0.5 and found.source == "the OME description"
        assert len(found.notes) == 1 and "gives 10.58 microns" in found.notes[0] and "0.5" in found.notes[0]
        assert find({**properties, **POWER}, mpp=0.5).mpp == 0.5
    assert find({**tags, **repeated}).mpp == pytest.approx(10.583, rel=1e-4)


def test_find_resolution__the_volume_of_dicom_is_compared_with_the_spacing() -> None:
    volume = {"dicom.ImagedVolumeWidth": "0.64", "dicom.ImagedVolumeHeight": "0.512"}
    matrix = {"dicom.TotalPixelMatrixColumns": "1280", "dicom.TotalPixelMatrixRows": "1024"}
    assert find({**volume, **matrix}).mpp == pytest.approx(0.5)
    assert find({**MPP, **POWER, **volume, **matrix}).notes == ()
    (note,) = find({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25", **volume, **matrix}).notes[:1]
    assert note.startswith("The imaged volume gives 0.5 microns per pixel and the file 0.25")


def test_find_resolution__nobody_says() -> None:
    with pytest.raises(
        InputError, match=r"'a.svs': the file does not give microns per pixel\. .* column 'mpp' .* read\.mpp=0\.5"
    ):
        find({})


@pytest.mark.parametrize("value", ["0", "1e-9", "25400", "-0.5", "nan", "inf", "0.0499", "20.1"])
def test_find_resolution__absurd_values_are_refused_by_name(value: str) -> None:
    with pytest.raises(InputError, match=r"microns per pixel, outside 0\.05 to 20"):
        find({"openslide.mpp-x": value, "openslide.mpp-y": value})


def test_find_resolution__resolution_of_a_screen_or_of_zero_is_absurd() -> None:
    for resolution in ("72", "0", "1"):
        with pytest.raises(InputError, match="the TIFF's resolution gives '"):
            find({"tiff.XResolution": resolution, "tiff.YResolution": resolution, "tiff.ResolutionUnit": "inch"})


def test_find_resolution__absurd_values_yield_to_the_next_with_a_note() -> None:
    found = find({"openslide.mpp-x": "352.8", "openslide.mpp-y": "352.8", **POWER}, setting=0.5)
    assert found.mpp == 0.5
    assert found.notes == ("The file gives '352.8' microns per pixel, outside 0.05 to 20; read.mpp is used instead.",)


@pytest.mark.parametrize("stated", [0.0, -1.0, float("nan"), float("inf"), 400.0])
def test_find_resolution__stated_values_are_checked_too(stated: float) -> None:
    for properties in ({}, MPP):
        with pytest.raises(InputError, match="the list of slides gives '"):
            find(properties, mpp=stated)


@pytest.mark.parametrize(("y", "is_noted"), [("0.52", False), ("0.53", True), ("0.4", True)])
def test_find_resolution__pixels_that_are_not_square(y: str, is_noted: bool) -> None:
    found = find({"openslide.mpp-x": "0.5", "openslide.mpp-y": y, **POWER})
    assert found.mpp == pytest.approx((0.5 + float(y)) / 2)
    assert any("not square" in note for note in found.notes) == is_noted


@pytest.mark.parametrize(
    ("power", "mpp", "is_noted"),
    [(20, 0.5, False), (40, 0.25, False), (40, 0.17, False), (40, 0.5, True), (5, 0.5, True)],
)
def test_find_resolution__objective_and_pixel_size_disagree(power: float, mpp: float, is_noted: bool) -> None:
    found = find({"openslide.mpp-x": str(mpp), "openslide.mpp-y": str(mpp), "openslide.objective-power": str(power)})
    assert found.objective == power
    assert any("disagree" in note for note in found.notes) == is_noted


@pytest.mark.parametrize(("mpp", "power"), [(0.23, 40), (0.499, 20), (1.0, 10), (0.12, 80), (2.0, 5)])
def test_find_resolution__objective_is_derived_with_a_note(mpp: float, power: float) -> None:
    found = find({}, setting=mpp)
    assert found.objective == power
    assert found.notes == (
        f"The power of the objective is not stated; {power:g}x follows from {mpp:g} microns a pixel.",
    )


def test_find_resolution__objective_from_the_vendor_or_the_description() -> None:
    assert find({**MPP, "hamamatsu.SourceLens": "40"}).objective == 40
    assert find({**MPP, "tiff.ImageDescription": "Aperio|AppMag = 40|x"}).objective == 40
    assert find({**MPP, "openslide.objective-power": "0"}).objective == 20


def test_find_resolution__entities_in_ome_are_not_expanded() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "x">]><OME xmlns="x"><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.5"/></OME>'
    with pytest.raises(InputError, match="does not give microns per pixel"):
        find({"tiff.ImageDescription": bomb})


@pytest.mark.parametrize("text", ["<OME", "<OME></OME>", '<OME xmlns="x"><Pixels/></OME>', "MPP = much", "<OME &"])
def test_find_resolution__descriptions_that_say_nothing(text: str) -> None:
    with pytest.raises(InputError, match="does not give microns per pixel"):
        find({"tiff.ImageDescription": text})
