"""Loading of configurations: defaults, then a YAML file, then ``key=value`` words; all problems are listed."""

import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vision_core.config.schema import ConfigT
from vision_core.config.strict_yaml import Keys, load_yaml, read_yaml
from vision_core.errors import ConfigError, one_line

_COMMAND_LINE = "command line"
_RUN_NAME = re.compile(r"\w[\w.-]*")
_MESSAGES = {
    "int_from_float": "should be a valid integer",
    "missing": "is missing",
    "model_type": "should be a section of 'key: value' lines",
    "path_type": "should be a path",
    "string_type": "should be text, a number in quotes",
    "tuple_type": "should be a list such as [a, b]",
}


def load(config_class: type[ConfigT], path: Path | None, words: Sequence[str] = ()) -> ConfigT:
    """Load one configuration from a file without ``runs``.

    Raises:
        ConfigError: Every unknown key, wrong type and value out of range, each with its origin.
    """
    runs = load_runs(config_class, path, words)
    if list(runs) != [""]:
        raise ConfigError(f"{path} describes the runs {', '.join(runs)}; this command takes a file without 'runs'.")
    return runs[""]


def load_runs(config_class: type[ConfigT], path: Path | None, words: Sequence[str] = ()) -> dict[str, ConfigT]:
    """Load the configurations of a file by name; without ``runs``, one named ``""``.

    ``runs`` maps names to the keys in which that run differs. Words of the command line win over both.

    Raises:
        ConfigError: Every unknown key, wrong type and value out of range, each with its origin.
    """
    content = read_yaml(path) if path else {}
    origin = str(path)
    differences = _differences(content.pop("runs", None), origin)
    shared, said = _undot(content, origin), _from_words(words)
    runs: dict[str, ConfigT] = {}
    problems: list[str] = []
    for name, keys in differences.items():
        of_run = f"{origin}, run '{name}'" if name else origin
        layers = [(origin, shared), (of_run, _undot(keys, of_run)), (_COMMAND_LINE, said)]
        try:
            runs[name] = _build(config_class, layers)
        except ConfigError as error:
            problems.extend(error.problems)
    if problems := problems or _empty_paths(config_class, words):
        raise ConfigError(list(dict.fromkeys(problems)))
    return runs


def from_mapping(config_class: type[ConfigT], keys: Mapping[str, Any], words: Sequence[str], origin: str) -> ConfigT:
    """Build a configuration from saved keys and words of the command line."""
    config = _build(config_class, [(origin, dict(keys)), (_COMMAND_LINE, _from_words(words))])
    if problems := _empty_paths(config_class, words):
        raise ConfigError(problems)
    return config


def of_bundle(config_class: type[ConfigT], theirs: Mapping[str, Any], words: Sequence[str], origin: str) -> ConfigT:
    """Build a configuration from a bundle's card and words.

    Sections that no longer exist are ignored.
    """
    keys = {name: theirs[name] for name in config_class.model_fields if name in theirs}
    return from_mapping(config_class, keys, words, origin)


def replace(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """Copy a configuration with dotted keys changed: ``replace(config, {"train.seed": 3})``."""
    keys: Keys = {}
    for dotted, value in changes.items():
        _put(keys, dotted.split("."), value)
    return _build(type(config), [("", config.model_dump(mode="python")), ("", keys)])


def dump(config: BaseModel) -> str:
    """Write the whole configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe(config: BaseModel) -> str:
    """Write the whole configuration as YAML, with each key's description behind it."""
    rows = list(_described(config, ""))
    width = min(56, max(len(line) for line, _ in rows))
    return "\n".join(f"{line:<{width}}  # {text}" if text else line for line, text in rows)


def fingerprint(settings: object) -> str:
    """Hash JSON-ready settings; equal settings give equal hashes."""
    return blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _remedy(before: str, word: str) -> str:
    """Say what a word that is no setting may have been meant as: the end of the one before, or a folder."""
    if not word or "=" in word:
        return ""
    if "=" in before:
        return f"; a value with a space stands in quotes: '{one_line(before)} {one_line(word)}'"
    return f"; a folder of data is given as data.root={shlex.quote(one_line(word))}" if Path(word).exists() else ""


def nearest_key(config_class: type[BaseModel], name: str) -> str:
    """Find the dotted key whose last part resembles ``name``; empty without one."""
    keys: dict[str, str] = {}
    for dotted in _dotted(config_class):
        keys.setdefault(dotted.rpartition(".")[2], dotted)
    near = difflib.get_close_matches(name, keys, n=1)
    return keys[near[0]] if near else ""


def _from_words(words: Sequence[str]) -> Keys:
    keys: Keys = {}
    problems = []
    for before, word in zip(("", *words), words, strict=False):
        dotted, equals, text = word.partition("=")
        parts = dotted.split(".")
        if not equals or not all(parts):
            problems.append(f"{_short(word)}: expected key=value{_remedy(before, word)}  [{_COMMAND_LINE}]")
            continue
        try:
            _put(keys, parts, load_yaml(text))
        except (yaml.YAMLError, RecursionError, ValueError):
            problems.append(f"{dotted}: cannot read the value {_short(text)}; quote it  [{_COMMAND_LINE}]")
    if problems:
        raise ConfigError(problems)
    return keys


def _empty_paths(config_class: type[BaseModel], words: Sequence[str]) -> list[str]:
    """Describe words that name a path and give none, as an unset variable does: no other setting means a file."""
    split = (word.partition("=") for word in words)
    empty = [name for name, equals, text in split if equals and not text.strip() and _is_path(config_class, name)]
    return [f"{name}: got nothing (an unset variable?); give a value, or {name}=null to leave it empty  "
            f"[{_COMMAND_LINE}]" for name in empty]  # fmt: skip


def _is_path(config_class: type[BaseModel], dotted: str) -> bool:
    name, _, rest = dotted.partition(".")
    field = config_class.model_fields.get(name)
    if field is None:
        return False
    section = _section_of(field.annotation)
    if section and rest:
        return _is_path(section, rest)
    return Path in (field.annotation, *get_args(field.annotation))


def _differences(runs: object, origin: str) -> dict[str, Keys]:
    """Read the keys in which each run differs, by its name."""
    if not runs and (runs is None or isinstance(runs, dict)):
        return {"": {}}
    if not isinstance(runs, dict):
        raise ConfigError(f"runs: should map names to keys, got {_short(runs)}  [{origin}]")
    problems = [f"runs: '{name}' cannot name a folder; use letters, digits, '-', '_' and '.'  [{origin}]"
                for name in runs if not _RUN_NAME.fullmatch(name)]  # fmt: skip
    problems += [f"runs.{name}: should be a section of 'key: value' lines, got {_short(keys)}  [{origin}]"
                 for name, keys in runs.items() if not isinstance(keys, dict | None)]  # fmt: skip
    if problems:
        raise ConfigError(problems)
    return {name: keys or {} for name, keys in runs.items()}


def _undot(content: Keys, origin: str) -> Keys:
    """Nest dotted keys: ``{"train.epochs": 2}`` becomes ``{"train": {"epochs": 2}}``."""
    keys: Keys = {}
    for dotted, value in content.items():
        parts = dotted.split(".")
        if not all(parts):
            raise ConfigError(f"'{dotted}' is no key: a name is missing beside a dot  [{origin}]")
        addition: Keys = {}
        _put(addition, parts, _undot(value, origin) if isinstance(value, dict) else value)
        if twice := _shared(keys, addition):
            raise ConfigError(f"{twice}: is given twice  [{origin}]")
        _merge(keys, addition)
    return keys


def _shared(one: Keys, other: Keys) -> str:
    """Find the first dotted key with a value in both; empty without one."""
    for name in one.keys() & other.keys():
        if not (isinstance(one[name], dict) and isinstance(other[name], dict)):
            return name
        if inner := _shared(one[name], other[name]):
            return f"{name}.{inner}"
    return ""


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
        _merge(merged, _copy_nested(keys))
    try:
        return config_class.model_validate(merged)
    except ValidationError as error:
        problems = [_problem(config_class, item, layers) for item in error.errors()]
        raise ConfigError(list(dict.fromkeys(problems))) from error


def _copy_nested(keys: Keys) -> Keys:
    """Copy nested dictionaries; leaves are shared."""
    return {name: _copy_nested(value) if isinstance(value, dict) else value for name, value in keys.items()}


def _problem(config_class: type[BaseModel], item: Mapping[str, Any], layers: Sequence[tuple[str, Keys]]) -> str:
    place = tuple(item["loc"])
    dotted = ".".join(str(part) for part in place)
    origin = _origin(place, layers)
    where = f"  [{origin}]" if origin else ""
    if item["type"] == "extra_forbidden":
        return f"{dotted}: unknown key{_hint(config_class, place)}{where}"
    message = _MESSAGES.get(item["type"]) or str(item["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    message = message.partition(", unable to parse")[0]
    if not place:
        return message
    is_of_section = item["type"] == "value_error" and isinstance(item["input"], Mapping)  # it names its values itself
    got = "" if item["type"] == "missing" or is_of_section else f", got {_short(item['input'])}"
    return f"{dotted}: {message}{got}{where}"


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


def _hint(config_class: type[BaseModel], place: Sequence[Any]) -> str:
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
    if elsewhere := nearest_key(config_class, name):
        return f"; did you mean '{elsewhere}'?"
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
            line = f"{indent}{name}: {json.dumps(plain, ensure_ascii=False)}"
            yield line, _choices(field.annotation, field.description)


def _choices(annotation: object, description: str | None) -> str:
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    listed = f" One of: {', '.join(choices)}." if len(choices) > 1 else ""
    return (description or "") + listed


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
