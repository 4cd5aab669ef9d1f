"""Microns per pixel and objective power of slides."""

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import ParseError

import defusedxml
import defusedxml.ElementTree

from vision_core.errors import InputError
from vision_core.slides.settings import MAX_MPP, MIN_MPP

Properties = Mapping[str, str]
_Stated = tuple[str, float, float]  # source, microns per pixel in x and y

_MAGNIFICATION_MPP = 10.0  # objective power times microns per pixel, roughly, without a further lens
_POWERS = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0)
_MIN_POWER, _MAX_POWER = 0.5, 200.0
_MAX_DIFFERENCE = 0.02  # of two sources of one value
_MAX_ASPECT = 1.05
_MAX_DISAGREEMENT = 1.6  # 40x is sold with 0.17 to 0.27 microns
_UM_PER_UNIT = {
    "inch": 25_400.0,
    "centimeter": 10_000.0,
    "m": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "mm": 1e3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "å": 1e-4,
    "in": 25_400.0,
}
_DICOM_PREFIX = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing"
_VENDOR_KEYS = (  # name of the x value, of the y value, microns a unit
    ("aperio.MPP", "aperio.MPP", 1.0),
    ("mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X", "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_Y", 1),
    ("ventana.ScanRes", "ventana.ScanRes", 1.0),
    (f"{_DICOM_PREFIX}[1]", f"{_DICOM_PREFIX}[0]", 1000.0),  # rows first
)
_PHILIPS_KEYS = ("philips.DICOM_PIXEL_SPACING", "philips.PIIM_PIXEL_DATA_REPRESENTATION[0].DICOM_PIXEL_SPACING")
_POWER_KEYS = (
    "openslide.objective-power",
    "aperio.AppMag",
    "hamamatsu.SourceLens",
    "leica.objective",
    "mirax.GENERAL.OBJECTIVE_MAGNIFICATION",
    "ventana.Magnification",
    "sakura.NominalLensMagnification",
)
_DESCRIPTIONS = ("tiff.ImageDescription", "openslide.comment")
_DESCRIBED_MPP = re.compile(r"\bMPP\s*=\s*([^|\s]+)")
_DESCRIBED_POWER = re.compile(r"\bAppMag\s*=\s*([^|\s]+)")
_LOG = logging.getLogger("domainsight")


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Resolution of a slide.

    Attributes:
        mpp: Microns per pixel at level 0, the mean of x and y.
        source: Where ``mpp`` was found.
        objective: Power of the objective, stated or derived from ``mpp``.
        notes: Warnings, one sentence each.
    """

    mpp: float
    source: str
    objective: float | None
    notes: tuple[str, ...] = ()


def find_resolution(name: str, properties: Properties, stated: Mapping[str, float | None]) -> Resolution:
    """Find the resolution: what the user states, else the first plausible value of the file.

    Values that are passed over, because they are implausible or differ by more than 2 %, are noted.

    Args:
        name: Of the slide, for messages.
        properties: Of OpenSlide, or the tags of a TIFF under OpenSlide's names.
        stated: Microns per pixel that the user states, by source, in order of precedence.

    Raises:
        InputError: No resolution is given, or none that is plausible, or the user states one that is not.
    """
    given = next(((source, mpp, mpp) for source, mpp in stated.items() if mpp is not None), None)
    found = _unique(_of_file(properties))
    used = given or next((each for each in found if _is_plausible(each)), None)
    if used is not None and _is_plausible(used):
        return _build_resolution(used, [each for each in found if each is not used], properties)
    told = "; ".join(map(_implausible, [given] if given else found)) or "the file does not give microns per pixel"
    raise InputError(f"'{name}': {told}. Give it in a column 'mpp' of the CSV of slides, or with read.mpp=0.5.")


def _of_file(properties: Properties) -> Iterator[_Stated]:
    """List what a file says, the most trustworthy first.

    OpenSlide takes the resolution of a plain TIFF from the tags that editors of pictures fill with that of a screen;
    what a description says for itself goes before those.
    """
    tags = list(_from_tiff_tags(properties))
    of_openslide = list(_from_keys("the file", properties, "openslide.mpp-x", "openslide.mpp-y", 1.0))
    is_from_tags = bool(tags and of_openslide) and not _differ(tags[0], of_openslide[0])
    if not is_from_tags:
        yield from of_openslide
    for x, y, unit in _VENDOR_KEYS:
        yield from _from_keys(f"the scanner's '{x}'", properties, x, y, unit)
    yield from _from_description(properties)
    yield from _from_ome(properties)
    yield from _from_philips(properties)
    if is_from_tags:
        yield from of_openslide
    yield from tags
    yield from _from_volume(properties)


def _unique(found: Iterable[_Stated]) -> list[_Stated]:
    """Leave out sources that only repeat an earlier one."""
    kept: list[_Stated] = []
    for each in found:
        if all(_differ(each, other) for other in kept):
            kept.append(each)
    return kept


def _differ(one: _Stated, other: _Stated) -> bool:
    return not all(
        math.isclose(a, b, rel_tol=_MAX_DIFFERENCE) or a == b for a, b in zip(one[1:], other[1:], strict=True)
    )


def _from_keys(source: str, properties: Properties, x_key: str, y_key: str, unit: float) -> Iterator[_Stated]:
    x, y = _float(properties.get(x_key)), _float(properties.get(y_key))
    x, y = (y if x is None else x), (x if y is None else y)
    if x is not None and y is not None:
        yield source, x * unit, y * unit


def _from_description(properties: Properties) -> Iterator[_Stated]:
    mpp = _search_description(_DESCRIBED_MPP, properties)
    if mpp is not None:
        yield "the description's 'MPP'", mpp, mpp


def _from_tiff_tags(properties: Properties) -> Iterator[_Stated]:
    unit = _UM_PER_UNIT.get(properties.get("tiff.ResolutionUnit", "inch"))
    x, y = _float(properties.get("tiff.XResolution")), _float(properties.get("tiff.YResolution"))
    x, y = (y if x is None else x), (x if y is None else y)
    if unit and x is not None and y is not None:
        yield "the TIFF's resolution", _divide(unit, x), _divide(unit, y)


def _from_ome(properties: Properties) -> Iterator[_Stated]:
    text = next((text for key in _DESCRIPTIONS if "<OME" in (text := properties.get(key, ""))), "")
    if not text:
        return
    try:
        pixels = next(each for each in defusedxml.ElementTree.fromstring(text).iter() if each.tag.endswith("}Pixels"))
    except (ParseError, defusedxml.DefusedXmlException, StopIteration, ValueError):
        _LOG.debug("OME-XML that cannot be read", exc_info=True)
        return
    sizes = [_float(pixels.get(f"PhysicalSize{axis}")) for axis in "XY"]
    units = [_UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower()) for axis in "XY"]
    if sizes[0] is not None and sizes[1] is not None and units[0] and units[1]:
        yield "the OME description", sizes[0] * units[0], sizes[1] * units[1]


def _from_volume(properties: Properties) -> Iterator[_Stated]:
    """Divide the sides of DICOM's imaged volume, in millimetres, by the pixels along them."""
    sides = [
        (_float(properties.get(f"dicom.ImagedVolume{side}")), _float(properties.get(f"dicom.TotalPixelMatrix{pixels}")))
        for side, pixels in (("Width", "Columns"), ("Height", "Rows"))
    ]
    mpps = [length * 1000 / pixels for length, pixels in sides if length and pixels]
    if len(mpps) == 2:
        yield "the imaged volume", mpps[0], mpps[1]


def _from_philips(properties: Properties) -> Iterator[_Stated]:
    """Parse pixel spacing in millimetres, rows first: ``"0.000226891" "0.000226907"``."""
    for key in _PHILIPS_KEYS:
        values = [_float(each) for each in re.findall(r"[^\"\s,\\]+", properties.get(key, ""))]
        if len(values) > 1 and values[0] is not None and values[1] is not None:
            yield f"the scanner's '{key}'", values[1] * 1000, values[0] * 1000


def _build_resolution(used: _Stated, others: Sequence[_Stated], properties: Properties) -> Resolution:
    source, *sides = used
    mpp = sum(sides) / 2
    notes = list(_passed_over(used, others))
    if max(sides) / min(sides) > _MAX_ASPECT:
        notes.append(
            f"Pixels are not square: {sides[0]:.4g} microns wide, {sides[1]:.4g} high; their mean of {mpp:.4g} is used."
        )
    power = _objective_power(properties)
    derived = min(_POWERS, key=lambda each: abs(math.log(each * mpp / _MAGNIFICATION_MPP)))
    if power is None:
        notes.append(f"The power of the objective is not stated; {derived:g}x follows from {mpp:.4g} microns a pixel.")
    elif not 1 / _MAX_DISAGREEMENT < power * mpp / _MAGNIFICATION_MPP < _MAX_DISAGREEMENT:
        notes.append(
            f"An objective of {power:g}x and {mpp:.4g} microns per pixel disagree: {derived:g}x would fit. "
            "Check that the pixel size is right."
        )
    return Resolution(mpp=mpp, source=source, objective=power or derived, notes=tuple(notes))


def _passed_over(used: _Stated, others: Sequence[_Stated]) -> Iterator[str]:
    source, number = used[0], _format_mpp(*used[1:])
    for each in others:
        if not _is_plausible(each):
            yield f"{_capital(_implausible(each))}; {source} is used instead."
        elif _differ(each, used):
            yield (
                f"{_capital(each[0])} gives {_format_mpp(*each[1:])} microns per pixel and {source} {number}; the "
                "latter is used. Check which is right."
            )


def _implausible(stated: _Stated) -> str:
    number = _format_mpp(*stated[1:])
    return f"{stated[0]} gives '{number}' microns per pixel, outside {MIN_MPP:g} to {MAX_MPP:g}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _objective_power(properties: Properties) -> float | None:
    stated = [_float(properties.get(key)) for key in _POWER_KEYS] + [_search_description(_DESCRIBED_POWER, properties)]
    return next((each for each in stated if each is not None and _MIN_POWER <= each <= _MAX_POWER), None)


def _search_description(pattern: re.Pattern[str], properties: Properties) -> float | None:
    found = next((match for key in _DESCRIPTIONS if (match := pattern.search(properties.get(key, "")))), None)
    return _float(found[1]) if found else None


def _float(text: str | None) -> float | None:
    """Parse a number; some scanners write a decimal comma."""
    try:
        return None if text is None else float(text.strip().replace(",", "."))
    except ValueError:
        return None


def _divide(unit: float, resolution: float) -> float:
    return unit / resolution if resolution else math.inf


def _is_plausible(stated: _Stated) -> bool:
    return all(MIN_MPP <= mpp <= MAX_MPP for mpp in stated[1:])


def _format_mpp(x: float, y: float) -> str:
    return f"{x:.4g}" if x == y else f"{x:.4g} x {y:.4g}"
