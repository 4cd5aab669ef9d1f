"""Configuration: defaults, then a YAML file, then ``key=value`` words; every problem is told at once."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vision_core.errors import ConfigError
from vision_core.settings import Optim, Section, Source, Teacher, Train


class Config(Section):
    """What every task's configuration has; a task adds its own sections and overrides defaults."""

    source: Source = Source()
    train: Train = Train()
    optim: Optim = Optim()
    teacher: Teacher = Teacher()


ConfigT = TypeVar("ConfigT", bound=Config)
Keys = dict[str, Any]
_COMMAND_LINE = "command line"


def load(config_class: type[ConfigT], path: Path | None, words: Sequence[str] = ()) -> ConfigT:
    """One configuration from a file without ``runs``.

    Raises:
        ConfigError: Every unknown key, wrong type and value out of range, each with its origin.
    """
    runs = load_runs(config_class, path, words)
    if list(runs) != [""]:
        raise ConfigError(f"{path} describes {len(runs)} runs ({', '.join(runs)}); this command takes one.")
    return runs[""]


def load_runs(config_class: type[ConfigT], path: Path | None, words: Sequence[str] = ()) -> dict[str, ConfigT]:
    """The configurations that a file describes, by name; a file without ``runs`` gives one, named ``""``.

    ``runs`` maps names to the keys in which that run differs. Words of the command line win over both.

    Raises:
        ConfigError: Every unknown key, wrong type and value out of range, each with its origin.
    """
    shared = read_yaml(path) if path else {}
    runs = shared.pop("runs", None) or {"": {}}
    origin = str(path)
    if not isinstance(runs, dict) or not all(isinstance(keys, dict | None) for keys in runs.values()):
        raise ConfigError(f"runs: should map names to keys  [{origin}]")
    said = _from_words(words)
    return {str(name): _build(config_class, [(origin, shared), (origin, keys or {}), (_COMMAND_LINE, said)])
            for name, keys in runs.items()}  # fmt: skip


def from_mapping(config_class: type[ConfigT], keys: Mapping[str, Any], words: Sequence[str], origin: str) -> ConfigT:
    """A configuration that a bundle or run carries, with words of the command line on top."""
    return _build(config_class, [(origin, dict(keys)), (_COMMAND_LINE, _from_words(words))])


def replace(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """A copy with dotted keys changed: ``replace(config, {"train.seed": 3})``."""
    keys: Keys = {}
    for dotted, value in changes.items():
        _put(keys, dotted.split("."), value)
    return _build(type(config), [("", config.model_dump(mode="python")), ("", keys)])


def read_yaml(path: Path) -> Keys:
    """The mapping in a YAML file.

    Raises:
        ConfigError: No such file (with the nearest name), a folder, not YAML, a duplicate key, not a mapping.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the YAML file in it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist.{_nearest_file(path)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Keys:
    """The mapping in YAML text; as ``read_yaml``."""
    try:
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a subclass of the safe loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{origin}{place}: {error.problem or 'not YAML'}. Indent with spaces.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{origin}: should hold 'key: value' lines, found a {type(content).__name__}.")
    return _undot(content)


def dump(config: BaseModel) -> str:
    """The whole configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe(config: BaseModel) -> str:
    """The whole configuration as YAML with each key's description behind it."""
    rows = list(_described(config, ""))
    width = min(56, max(len(line) for line, _ in rows))
    return "\n".join(f"{line:<{width}}  # {text}" if text else line for line, text in rows)


def fingerprint(settings: object) -> str:
    """A short hash of settings that are JSON-ready; equal settings give equal hashes."""
    return blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key given twice."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> Keys:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        name = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
        if not isinstance(name, str):
            raise yaml.MarkedYAMLError(problem=f"key {name!r} is not text", problem_mark=key_node.start_mark)
        if name in seen:
            raise yaml.MarkedYAMLError(problem=f"key '{name}' is given twice", problem_mark=key_node.start_mark)
        seen.add(name)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _from_words(words: Sequence[str]) -> Keys:
    keys: Keys = {}
    problems = []
    for word in words:
        dotted, equals, text = word.partition("=")
        if not equals or not dotted:
            problems.append(f"'{word}': expected key=value  [{_COMMAND_LINE}]")
            continue
        try:
            _put(keys, dotted.split("."), yaml.safe_load(text) if text else None)
        except yaml.YAMLError:
            problems.append(f"{dotted}: cannot read the value '{text}'; quote it  [{_COMMAND_LINE}]")
    if problems:
        raise ConfigError(problems)
    return keys


def _undot(content: Keys) -> Keys:
    keys: Keys = {}
    for dotted, value in content.items():
        inner = _undot(value) if isinstance(value, dict) else value
        _merge(keys, _nested(dotted.split("."), inner))
    return keys


def _nested(parts: Sequence[str], value: object) -> Keys:
    keys: Keys = {}
    _put(keys, parts, value)
    return keys


def _put(keys: Keys, parts: Sequence[str], value: object) -> None:
    for part in parts[:-1]:
        inner = keys.setdefault(part, {})
        if not isinstance(inner, dict):
            inner = keys[part] = {}
        keys = inner
    keys[parts[-1]] = value


def _merge(into: Keys, keys: Mapping[str, Any]) -> None:
    for name, value in keys.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value


def _build(config_class: type[ConfigT], layers: Sequence[tuple[str, Keys]]) -> ConfigT:
    merged: Keys = {}
    for _, keys in layers:
        _merge(merged, json_copy(keys))
    try:
        return config_class.model_validate(merged)
    except ValidationError as error:
        problems = [_problem(config_class, item, layers) for item in error.errors()]
        raise ConfigError(list(dict.fromkeys(problems))) from error


def json_copy(keys: Keys) -> Keys:
    """A copy of nested dictionaries; leaves are shared."""
    return {name: json_copy(value) if isinstance(value, dict) else value for name, value in keys.items()}


def _problem(config_class: type[BaseModel], item: Mapping[str, Any], layers: Sequence[tuple[str, Keys]]) -> str:
    place = tuple(item["loc"])
    dotted = ".".join(str(part) for part in place)
    origin = _origin(place, layers)
    where = f"  [{origin}]" if origin else ""
    if item["type"] == "extra_forbidden":
        return f"{dotted}: unknown key{_nearest_key(config_class, place)}{where}"
    message = str(item["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    message = message.partition(", unable to parse")[0]
    if not place:
        return message
    return f"{dotted}: {message}, got {_short(item['input'])}{where}"


def _origin(place: Sequence[Any], layers: Sequence[tuple[str, Keys]]) -> str:
    for origin, keys in reversed(layers):
        inner: object = keys
        for part in place:
            if isinstance(inner, dict) and part in inner:
                inner = inner[part]
            elif not isinstance(inner, dict):
                break
            else:
                inner = _ABSENT
                break
        if inner is not _ABSENT and inner is not keys:
            return origin
    return ""


_ABSENT = object()


def _nearest_key(config_class: type[BaseModel], place: Sequence[Any]) -> str:
    section: type[BaseModel] = config_class
    for part in place[:-1]:
        field = section.model_fields.get(str(part))
        inner = _section_of(field.annotation) if field else None
        if inner is None:
            return ""
        section = inner
    name = str(place[-1])
    near = difflib.get_close_matches(name, section.model_fields, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    elsewhere = [dotted for dotted in _dotted(config_class) if dotted.rpartition(".")[2] == name]
    if elsewhere:
        return f"; did you mean '{elsewhere[0]}'?"
    return f"; known here: {', '.join(section.model_fields)}"


def _section_of(annotation: object) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _dotted(config_class: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in config_class.model_fields.items():
        inner = _section_of(field.annotation)
        if inner is None:
            yield prefix + name
        else:
            yield from _dotted(inner, f"{prefix}{name}.")


def _described(section: BaseModel, indent: str) -> Iterator[tuple[str, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:", ""
            yield from _described(value, indent + "  ")
        else:
            plain = section.model_dump(mode="json", include={name})[name]
            yield f"{indent}{name}: {json.dumps(plain, ensure_ascii=False)}", _choices(field.annotation, field.description)


def _choices(annotation: object, description: str | None) -> str:
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    listed = f" One of: {', '.join(choices)}." if len(choices) > 1 else ""
    return (description or "") + listed


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" Nor does the folder '{path.parent}'."
    names = [found.name for found in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean '{path.parent / near[0]}'?" if near else ""
