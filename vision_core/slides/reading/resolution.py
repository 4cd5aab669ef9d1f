"""How many microns a pixel of a slide covers, and the objective's power, from what the file says or the user states."""

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import ParseError

import defusedxml
import defusedxml.ElementTree

from vision_core.errors import InputError
from vision_core.slides.settings import LARGEST_MPP, LEAST_MPP

Properties = Mapping[str, str]

_MAGNIFICATION_MPP = 10.0  # power times microns per pixel, about, of scanners without a further lens
_POWERS = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0)
_LEAST_POWER, _LARGEST_POWER = 0.5, 200.0
_LARGEST_ASPECT = 1.05
_LARGEST_DISAGREEMENT = 1.6  # 40x is sold with 0.17 to 0.27 microns
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
    """What is known of a slide's scale.

    Attributes:
        mpp: Microns per pixel at level 0, the mean of x and y.
        source: Who says so.
        objective: The power stated, or derived from ``mpp``.
        notes: What to be wary of, as sentences.
    """

    mpp: float
    source: str
    objective: float | None
    notes: tuple[str, ...] = ()


def find_resolution(name: str, properties: Properties, stated: Mapping[str, float | None]) -> Resolution:
    """The first credible of what the file says and then of what the user states.

    Args:
        name: The slide, for messages.
        properties: OpenSlide's, and a TIFF's own under OpenSlide's names.
        stated: Microns per pixel by who states them, first the one that wins.

    Raises:
        InputError: Nobody says, or only what cannot be.
    """
    absurd: dict[str, str] = {}  # by the number, which OpenSlide may repeat from the TIFF
    for source, x, y in _candidates(properties, stated):
        if _is_sane(x) and _is_sane(y):
            return _resolution((x, y), source, properties, list(absurd.values()))
        number = _number(x, y)
        told = f"{source} gives '{number}' microns per pixel, outside {LEAST_MPP:g} to {LARGEST_MPP:g}"
        absurd.setdefault(number, told)
    found = "; ".join(absurd.values()) or "the file does not say how many microns a pixel covers"
    raise InputError(f"'{name}': {found}. Give it in a column 'mpp' of the CSV of slides, or with read.mpp=0.5.")


def _candidates(properties: Properties, stated: Mapping[str, float | None]) -> Iterator[tuple[str, float, float]]:
    yield from _of_keys("the file", properties, "openslide.mpp-x", "openslide.mpp-y", 1.0)
    for x, y, unit in _VENDOR_KEYS:
        yield from _of_keys(f"the scanner's '{x}'", properties, x, y, unit)
    yield from _described(properties)
    yield from _of_tiff(properties)
    yield from _of_ome(properties)
    yield from _of_philips(properties)
    for source, mpp in stated.items():
        if mpp is not None:
            yield source, mpp, mpp


def _of_keys(
    source: str, properties: Properties, x_key: str, y_key: str, unit: float
) -> Iterator[tuple[str, float, float]]:
    x, y = _float(properties.get(x_key)), _float(properties.get(y_key))
    x, y = (y if x is None else x), (x if y is None else y)
    if x is not None and y is not None:
        yield source, x * unit, y * unit


def _described(properties: Properties) -> Iterator[tuple[str, float, float]]:
    mpp = _match(_DESCRIBED_MPP, properties)
    if mpp is not None:
        yield "the description's 'MPP'", mpp, mpp


def _of_tiff(properties: Properties) -> Iterator[tuple[str, float, float]]:
    unit = _UM_PER_UNIT.get(properties.get("tiff.ResolutionUnit", "inch"))
    x, y = _float(properties.get("tiff.XResolution")), _float(properties.get("tiff.YResolution"))
    x, y = (y if x is None else x), (x if y is None else y)
    if unit and x is not None and y is not None:
        yield "the TIFF's resolution", _ratio(unit, x), _ratio(unit, y)


def _of_ome(properties: Properties) -> Iterator[tuple[str, float, float]]:
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


def _of_philips(properties: Properties) -> Iterator[tuple[str, float, float]]:
    """Millimetres, rows first: ``"0.000226891" "0.000226907"``."""
    for key in _PHILIPS_KEYS:
        values = [_float(each) for each in re.findall(r"[^\"\s,\\]+", properties.get(key, ""))]
        if len(values) > 1 and values[0] is not None and values[1] is not None:
            yield f"the scanner's '{key}'", values[1] * 1000, values[0] * 1000


def _resolution(sides: tuple[float, float], source: str, properties: Properties, absurd: list[str]) -> Resolution:
    mpp = sum(sides) / 2
    notes = [f"{each[0].upper()}{each[1:]}; {source} is used instead." for each in absurd]
    if max(sides) / min(sides) > _LARGEST_ASPECT:
        notes.append(
            f"Pixels are not square: {sides[0]:.4g} microns wide, {sides[1]:.4g} high; their mean of {mpp:.4g} is used."
        )
    power = _power(properties)
    derived = min(_POWERS, key=lambda each: abs(math.log(each * mpp / _MAGNIFICATION_MPP)))
    if power is None:
        notes.append(f"The power of the objective is not stated; {derived:g}x follows from {mpp:.4g} microns a pixel.")
    elif not 1 / _LARGEST_DISAGREEMENT < power * mpp / _MAGNIFICATION_MPP < _LARGEST_DISAGREEMENT:
        notes.append(
            f"An objective of {power:g}x and {mpp:.4g} microns per pixel disagree: {derived:g}x would fit. "
            "Check that the pixel size is right."
        )
    return Resolution(mpp=mpp, source=source, objective=power or derived, notes=tuple(notes))


def _power(properties: Properties) -> float | None:
    stated = [_float(properties.get(key)) for key in _POWER_KEYS] + [_match(_DESCRIBED_POWER, properties)]
    return next((each for each in stated if each is not None and _LEAST_POWER <= each <= _LARGEST_POWER), None)


def _match(pattern: re.Pattern[str], properties: Properties) -> float | None:
    found = next((match for key in _DESCRIPTIONS if (match := pattern.search(properties.get(key, "")))), None)
    return _float(found[1]) if found else None


def _float(text: str | None) -> float | None:
    """The number; a decimal comma is one of some scanners' locale."""
    try:
        return None if text is None else float(text.strip().replace(",", "."))
    except ValueError:
        return None


def _ratio(unit: float, resolution: float) -> float:
    return unit / resolution if resolution else math.inf


def _is_sane(mpp: float) -> bool:
    return LEAST_MPP <= mpp <= LARGEST_MPP


def _number(x: float, y: float) -> str:
    return f"{x:.4g}" if x == y else f"{x:.4g} x {y:.4g}"
