"""JSON as the standard has it: no key twice, of which programs keep one or the other, and no NaN or Infinity."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


class RepeatedKeyError(ValueError):
    """Key that an object of a JSON text names more than once."""

    def __init__(self, key: str) -> None:
        super().__init__(f"an object names the key '{key}' twice, and programs differ in which they keep")


def parse_json(text: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:  # noqa: ANN401 (any JSON)
    """Parse JSON; arguments as for ``json.loads``.

    Raises:
        RepeatedKeyError: An object names a key twice.
        ValueError: It is no JSON.
    """
    return json.loads(text, parse_constant=parse_constant, object_pairs_hook=_unrepeated)


def to_json(content: Any, indent: int = 1, default: Callable[[Any], Any] | None = None) -> str:  # noqa: ANN401
    """Write as JSON: NaN and infinity, which it does not have, as null; ``default`` as for ``json.dumps``."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False, default=default)


def _finite(content: Any) -> Any:  # noqa: ANN401
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(next(name for place, name in enumerate(names) if name in names[:place]))
    return found
