"""Reading of JSON that names no key twice: of two values, one program takes the first and another the last."""

import json
from collections.abc import Callable
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


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(next(name for place, name in enumerate(names) if name in names[:place]))
    return found
