"""Origin of features: one rule for slides and feature files, in training, evaluation and prediction.

A model knows features of one encoder and one scale. Another encoder, or another scale, is refused; what a file does not
say, and small differences of scale or tile, are told.
"""

import math
from collections.abc import Mapping
from typing import Any

MADE_WITH = ("encoder", "mpp", "tile_px")

_NUMBERS = ("mpp", "tile_px")
_IGNORED = frozenset({"precision", "dim"})  # bf16 changes features by less than another encoder does
_REFUSED_MPP = 0.1  # relative difference
_TOLD_MPP = 0.02


def trained_with(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Collect encoder, microns per pixel and side of a tile from a card's ``preprocessing``."""
    tiles = preprocessing.get("tiles")
    is_by_mpp = isinstance(tiles, Mapping) and tiles.get("layout") == "mpp"
    by_settings = {name: tiles.get(name) for name in ("mpp", "tile_px")} if tiles and is_by_mpp else {}
    stated = {name: preprocessing.get(name, by_settings.get(name)) for name in MADE_WITH}
    return {name: value for name, value in stated.items() if value is not None}


def origin_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the same from the attributes of features, as far as they state it; numbers may be text."""
    found = {name: attributes.get(name) for name in MADE_WITH}
    found |= {name: _stated_number(found[name]) for name in _NUMBERS}
    return {name: value for name, value in found.items() if value is not None}


def differences(trained: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Explain why a model cannot take features of an origin; empty if it can, as far as both are known."""
    other_encoder = encoder_differences(trained.get("encoder"), found.get("encoder"))
    told = [f"of another encoder than the model's: {'; '.join(other_encoder)}"] if other_encoder else []
    mpp, other = _number(trained.get("mpp")), _number(found.get("mpp"))
    if mpp and other and not math.isclose(mpp, other, rel_tol=_REFUSED_MPP):
        told.append(f"of tiles of {other:g} microns per pixel, the model was trained on {mpp:g}")
    return told


def cautions(trained: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Tell smaller differences, and what is not known, one sentence each."""
    told = []
    mpp, other = _number(trained.get("mpp")), _number(found.get("mpp"))
    if mpp and other and not math.isclose(mpp, other, rel_tol=_TOLD_MPP):
        told.append(f"Tiles have {other:g} microns per pixel; the model was trained on {mpp:g}.")
    sides = _number(trained.get("tile_px")), _number(found.get("tile_px"))
    if all(sides) and sides[0] != sides[1]:
        told.append(f"Tiles have {sides[1]:g} px a side; the model was trained on {sides[0]:g} px.")
    unknown = [_NAMES[name] for name in MADE_WITH if name in trained and name not in found]
    if unknown:
        told.append(f"The features do not state {' nor '.join(unknown)}: whether they fit the model is not known.")
    return told


def encoder_differences(trained: object, found: object) -> list[str]:
    """Explain how two encoders differ, by all that both are known by."""
    if not (isinstance(trained, Mapping) and isinstance(found, Mapping)):
        trained, found = _as_mapping(trained), _as_mapping(found)
    shared = [name for name in trained if name in found and name not in _IGNORED]
    return [
        f"{name} was '{trained[name]}', here it is '{found[name]}'"
        for name in shared
        if not _is_equal(trained[name], found[name])
    ]


_NAMES = {"encoder": "their encoder", "mpp": "microns per pixel", "tile_px": "the side of their tiles"}


def _as_mapping(encoder: object) -> Mapping[str, Any]:
    if isinstance(encoder, Mapping):
        return encoder
    return {"name": encoder} if isinstance(encoder, str) else {}


def _is_equal(one: Any, other: Any) -> bool:  # noqa: ANN401 (of foreign files)
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold() == other.casefold()
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _stated_number(value: object) -> int | float | None:
    """Read a number that a file states, also as text; None for what is none, or not above 0."""
    try:
        number = value if isinstance(value, int | float) else float(str(value))
    except ValueError:
        return None
    return number if not isinstance(number, bool) and math.isfinite(number) and number > 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
