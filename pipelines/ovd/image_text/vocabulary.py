"""Vocabularies: names typed or listed, their synonyms, and their embeddings, kept on disk under a fingerprint."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from pipelines.ovd.image_text.model import TextModel
from pipelines.ovd.image_text.prompts import ensemble_ragged, expand, prompts_hash
from vision_core.errors import ConfigError, DataError, EnvironmentFault
from vision_core.evaluation.class_names import clean_name
from vision_core.files import write_atomic

_BRACKETED = re.compile(r"\s*\([^)]*\)")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")  # and characters that are none
_JOINING = re.compile(r"[;|]")  # in lists of other programs
_KEY = "prompts"  # in the header of a file of embeddings
_NAMES_AT_ONCE = 64  # of 63 prompts each
_SHOWN = 5
MANY_NAMES = 500
_BYTES_A_PAIR = 24  # of a region and a name: logit, probability and box; measured 17 on a CPU
_BYTES_A_NUMBER = 12  # of an embedding, which is there up to three times


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Names to detect.

    Attributes:
        names: Shown names, each once.
        synonyms: Of each name the words that are embedded, itself first.
        notes: What was merged, dropped or is doubtful, a sentence each.
        beside: Other names that they have to stay apart from.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_classes(cls, names: Sequence[str]) -> "Vocabulary":
        """Take the classes of a data set as they are; a note tells which are embedded in other words."""
        taken = cls(names=tuple(names), synonyms=tuple((name,) for name in names))
        said = taken._said()
        other = [f"'{name}' as '{said[name]}'" for name in names if said[name] != _plain(name.replace("_", " "))]
        more = ", ..." if len(other) > _SHOWN else ""
        told = f"{len(other)} names are embedded as one says them: {', '.join(other[:_SHOWN])}{more}."
        return replace(taken, notes=(told,) if other else ())

    def prompts(self) -> list[list[str]]:
        """Write the prompts of each name as one says it, those of its synonyms behind its own.

        What stands in brackets is left out, but for names that would be one without it.
        """
        said = self._said()
        return [[prompt for word in words for prompt in expand(said[word])] for words in self.synonyms]

    def _said(self) -> dict[str, str]:
        own = [word for words in self.synonyms for word in words]
        keys: dict[str, set[str]] = {}
        for word in (*own, *self.beside):
            keys.setdefault(name_key(spoken_name(word)), set()).add(name_key(word))
        bare = {word: spoken_name(word) for word in own}
        return {
            word: said if said and len(keys[name_key(said)]) == 1 else _in_words(word) for word, said in bare.items()
        }

    def fingerprint(self) -> str:
        """Hash all prompts in order, name by name."""
        return prompts_hash([line for prompts in self.prompts() for line in (*prompts, "")])


def parse_names(text: str) -> Vocabulary:
    """Read names typed in one line, separated by commas.

    Raises:
        ConfigError: There is none.
    """
    return _vocabulary([[name] for name in text.split(",")], "the typed names")


def read_names(path: Path) -> Vocabulary:
    """Read a list of names: a line each, synonyms behind the name, separated by commas.

    Raises:
        DataError: It cannot be read as UTF-8 text.
        ConfigError: It holds no name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {(error.strerror or 'no reason given').lower()}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is no UTF-8 text. Save the list of names as UTF-8.") from error
    return _vocabulary([line.split(",") for line in text.splitlines()], f"'{path.name}'")


def spoken_name(name: str) -> str:
    """Write a name of LVIS as one says it: no underscores, ``/`` as or, nothing in brackets."""
    return _plain(_BRACKETED.sub("", _in_words(name)))


def name_key(name: str) -> str:
    """Return what all spellings of a name share.

    What stands in brackets tells one thing from another, and counts.
    """
    return _in_words(name).casefold()


def embed_vocabulary(model: TextModel, vocabulary: Vocabulary, folder: Path | None = None) -> Tensor:
    """Embed names by the ensemble of their prompts, or read what was embedded before.

    Args:
        model: Embeds the prompts, a few names at a time.
        vocabulary: The names.
        folder: Where embeddings are kept, under a hash of model and prompts; None: nowhere.

    Returns:
        ``(K, D)`` float32, of length 1.
    """
    path, key = None, ""
    if folder:
        key = prompts_hash([model.fingerprint(), vocabulary.fingerprint()])
        path = folder / f"text-{key[:16]}.safetensors"
        if (known := _known(path, key, (len(vocabulary), model.embed_dim))) is not None:
            return known
    prompts = vocabulary.prompts()
    parts = []
    for first in range(0, len(prompts), _NAMES_AT_ONCE):
        chunk = prompts[first : first + _NAMES_AT_ONCE]
        encoded = model.encode_texts([line for lines in chunk for line in lines])
        parts.append(ensemble_ragged(encoded, [len(lines) for lines in chunk]).cpu())
    embeddings = torch.cat(parts) if parts else torch.zeros(0, model.embed_dim)
    if path:
        write_atomic(path, safetensors.save({"embeddings": embeddings}, {_KEY: key}))
    return embeddings


def check_memory(names: int, regions: int, embed_dim: int) -> tuple[str, ...]:
    """Estimate the memory that many names take; empty for fewer than 500.

    Args:
        names: That compete at once.
        regions: Of an image or of a pass, each compared with every name.
        embed_dim: Width of the embeddings.

    Returns:
        A sentence with the estimate.

    Raises:
        EnvironmentFault: This machine does not have as much.
    """
    if names < MANY_NAMES:
        return ()
    needed = names * (regions * _BYTES_A_PAIR + embed_dim * _BYTES_A_NUMBER)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    told = f"{names} names on {regions} regions take about {needed / 1e9:.1f} GB of memory"
    if needed > memory:
        raise EnvironmentFault(f"{told}, this machine has {memory / 1e9:.0f} GB. Give fewer names at a time.")
    return (f"{told}.",)


def _known(path: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
    """Read kept embeddings; None where there are none, or others."""
    try:
        with safe_open(path, framework="pt") as file:
            is_same = (file.metadata() or {}).get(_KEY) == key
            found: Tensor | None = file.get_tensor("embeddings") if is_same else None
    except (FileNotFoundError, SafetensorError):
        return None
    return found if found is not None and found.shape == shape else None


def _vocabulary(lines: Sequence[Sequence[str]], where: str) -> Vocabulary:
    found: dict[str, tuple[str, ...]] = {}  # by the key of the name: spellings of one would share its score
    merged, owners = [], dict[str, str]()
    for line in lines:
        words = [word for word in map(_plain, line) if word]
        if not words:
            continue
        name = name_key(words[0])
        if name in owners:
            merged.append(words[0])
        owner = owners.get(name, name)
        kept: dict[str, str] = {}
        for word in (*found.get(owner, ()), *words):  # as first written
            kept.setdefault(name_key(word), word)
        found[owner] = tuple(kept.values())
        owners |= {word: owner for word in kept if word not in owners}
    if not found:
        raise ConfigError(f'{where}: no name to detect. Give names, such as "cat, folding chair".')
    notes = [f"{where}: names that stand there more than once, merged: {_shown(merged)}."] if merged else []
    if blank := sum(not any(map(_plain, line)) for line in lines):
        notes.append(f"{where}: {blank} empty entries left out.")
    if joined := [word for words in found.values() for word in words if _JOINING.search(word)]:
        notes.append(f"warning: commas alone set names apart; read as one name each: {_shown(joined)}.")
    if strange := [word for words in found.values() for word in words if not word.isascii()]:
        notes.append(f"warning: the text model was trained on English; it may not know {_shown(strange)}.")
    return Vocabulary(
        names=tuple(words[0] for words in found.values()), synonyms=tuple(found.values()), notes=tuple(notes)
    )


def _in_words(name: str) -> str:
    return _plain(name.replace("_", " ").replace("/", " or "))


def _plain(word: str) -> str:
    return _BLANKS.sub(" ", clean_name(word)).strip()


def _shown(words: Sequence[str]) -> str:
    more = ", ..." if len(words) > _SHOWN else ""
    return ", ".join(f"'{word}'" for word in words[:_SHOWN]) + more
