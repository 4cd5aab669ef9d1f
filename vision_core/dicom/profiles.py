"""Colour profiles (ICC) of images, which are told and not applied: networks were trained on the numbers as stored."""

from typing import Any

OTHER_PROFILE = "has a colour profile other than sRGB, which is not applied; viewers show other colours"
_SRGB_NAMES = tuple(
    encoded for name in ("sRGB", "IEC61966") for encoded in (name.encode("ascii"), name.encode("utf-16-be"))
)


def is_other_profile(profile: Any) -> bool:  # noqa: ANN401 (bytes, or nothing)
    """Tell whether a profile is there and does not call itself sRGB."""
    return isinstance(profile, bytes) and bool(profile) and not any(name in profile for name in _SRGB_NAMES)
