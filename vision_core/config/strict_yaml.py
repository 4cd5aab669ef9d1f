"""Strict YAML for settings: safe loader, text keys given once, no aliases, errors with their place."""

import difflib
from collections.abc import Hashable
from pathlib import Path
from typing import Any, cast

import yaml

from vision_core.errors import ConfigError

Keys = dict[str, Any]
_MAX_BYTES = 2**20


def read_yaml(path: Path) -> Keys:
    """Read the mapping in a YAML file; dotted keys stay as written.

    Raises:
        ConfigError: No such file (with the nearest name), a folder, not YAML, a duplicate key, not a mapping.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)  # bounded: a device or a data file never fills the memory
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; give the YAML file in it.") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist.{_nearest_file(path)}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path} is larger than 1 MiB; settings are a few lines of YAML.")
    try:
        return parse_yaml(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error


def parse_yaml(text: str, origin: str) -> Keys:
    """Parse the mapping in YAML text.

    Raises:
        ConfigError: As for ``read_yaml``.
    """
    try:
        content = load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = error.problem or "not YAML"
        remedy = " Indent with spaces." if "\\t" in problem else ""
        raise ConfigError(f"{origin}{place}: {problem}.{remedy}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not YAML: {' '.join(str(error).split())}.") from error
    except (RecursionError, ValueError) as error:  # of the constructors: depth, dates, numbers with too many digits
        raise ConfigError(f"{origin}: a value cannot be read ({str(error).partition(';')[0]}).") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{origin}: should hold 'key: value' lines, found a {type(content).__name__}.")
    return content


def load_yaml(text: str, *, other_keys: bool = False) -> Any:  # noqa: ANN401 (whatever YAML can hold)
    """Load the value in YAML text.

    Args:
        text: YAML.
        other_keys: Keys may also be numbers and the like, as in files of other programs.

    Raises:
        yaml.YAMLError: Not YAML, a key given twice, an alias.
        ValueError: A date that does not exist, or a number with thousands of digits.
        RecursionError: Nested too deeply.
    """
    return yaml.load(text, Loader=_AnyKeys if other_keys else _Loader)


class _Loader(yaml.SafeLoader):
    """Safe loader that also refuses repeated keys, and aliases: nested ones multiply without bound."""

    takes_text_alone = True

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"alias '*{event.anchor}': write the value out", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Keys:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        name = loader.construct_object(key_node, deep=True)
        if not isinstance(name, str) and (loader.takes_text_alone or not isinstance(name, Hashable)):
            raise yaml.MarkedYAMLError(problem=f"key {name!r} is not text", problem_mark=key_node.start_mark)
        if name in seen:
            raise yaml.MarkedYAMLError(problem=f"key '{name}' is given twice", problem_mark=key_node.start_mark)
        seen.add(name)
    return cast(Keys, loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class _AnyKeys(_Loader):
    takes_text_alone = False


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Nor does the folder '{path.parent}'."
    names = [found.name for found in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean '{path.parent / near[0]}'?" if near else ""
