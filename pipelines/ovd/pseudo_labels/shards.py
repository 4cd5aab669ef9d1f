"""Shards of scored boxes on disk: written whole or not at all, never made twice, refused where they disagree."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision_core.errors import DataError
from vision_core.files import write_atomic

SHARD_IMAGES = 1000
_LISTS = ("img_ids", "boxes", "rpn_scores", "clip_scores", "clip_category_ids")
_STAMPS = "img_stamps"  # shards written before have none


@dataclass(frozen=True, kw_only=True)
class ScoredImage:
    """Scored boxes of an image, as plain numbers.

    Attributes:
        image_id: Id in the list.
        boxes: ``n`` boxes, ``xyxy`` in pixels of the image.
        rpn_scores: Objectness of each in 0 to 1.
        clip_scores: ``topk`` scores of each, highest first.
        classes: ``topk`` names of each, by index.
    """

    image_id: str
    boxes: list[list[float]]
    rpn_scores: list[float]
    clip_scores: list[list[float]]
    classes: list[list[int]]


def write_shards(  # noqa: PLR0913 (where to, what of, and how)
    folder: Path,
    header: Mapping[str, Any],
    image_ids: Sequence[str],
    score: Callable[[int], ScoredImage],
    size: int = SHARD_IMAGES,
    stamps: Sequence[str] = (),
) -> int:
    """Score a list of images into shards; what is there already is not made again.

    Args:
        folder: Where the shards lie.
        header: All that the scores depend on, JSON-ready.
        image_ids: The list.
        score: Scores the image of a number in it.
        size: Images a shard.
        stamps: Of the file of each image, whose id other images have too; empty: not compared.

    Returns:
        The number of images that were scored in this call.

    Raises:
        DataError: A shard in the folder has another header or other images.
    """
    parts = {first: slice(first, first + size) for first in range(0, len(image_ids), size)}
    missing = [
        first
        for first, part in parts.items()
        if not _is_done(_path(folder, first), header, image_ids[part], stamps[part])
    ]
    scored = 0
    for first in missing:
        images = [score(number) for number in range(first, min(first + size, len(image_ids)))]
        content = {"header": dict(header), **_columns(images)} | (
            {_STAMPS: list(stamps[parts[first]])} if stamps else {}
        )
        write_atomic(_path(folder, first), json.dumps(content, sort_keys=True))
        scored += len(images)
    return scored


def read_shards(folder: Path) -> tuple[dict[str, Any], list[ScoredImage]]:
    """Read all shards of a folder: their header, and the images in order.

    Raises:
        DataError: There is none, one is damaged, headers differ, or an image stands in two.
    """
    paths = sorted(folder.glob("scores-*.json"))
    if not paths:
        raise DataError(f"'{folder}' holds no scores (scores-*.json). Run pseudo-label first.")
    contents = [_read(path) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        _check_header(path, content["header"], contents[0]["header"])
    images = [image for content in contents for image in _rows(content)]
    if twice := _repeated(image.image_id for image in images):
        raise DataError(f"'{folder}': image '{twice}' stands in two shards. Score into an empty folder.")
    return contents[0]["header"], images


def _path(folder: Path, first: int) -> Path:
    return folder / f"scores-{first:08d}.json"


def _is_done(path: Path, header: Mapping[str, Any], image_ids: Sequence[str], stamps: Sequence[str]) -> bool:
    if not path.exists():
        return False
    content = _read(path)
    _check_header(path, content["header"], json.loads(json.dumps(dict(header))))
    if content["img_ids"] != list(image_ids):
        raise DataError(f"'{path}' holds the scores of other images. Score into an empty folder.")
    before = content.get(_STAMPS, [])
    if changed := [name for name, one, other in zip(image_ids, before, stamps, strict=False) if one != other]:
        raise DataError(
            f"'{path}' holds the scores of other files, or of files that have changed since: '{len(changed)}' of "
            f"'{len(image_ids)}' images (first '{changed[0]}'). Score into an empty folder."
        )
    return True


def _check_header(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if differing:
        name = differing[0]
        raise DataError(
            f"'{path}' was scored with other settings: {name} is '{_short(found.get(name))}', expected "
            f"'{_short(expected.get(name))}'. Scores of both cannot be joined; use another folder."
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lengths = {len(content[name]) for name in _LISTS}
        is_whole = isinstance(content["header"], dict) and len(lengths) == 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' is no shard of scores, or is damaged. Remove it; it is then made anew.") from error
    if not is_whole:
        raise DataError(f"'{path}': its lists are of different lengths. Remove it; it is then made anew.")
    return content  # type: ignore[no-any-return]


def _columns(images: Sequence[ScoredImage]) -> dict[str, list[Any]]:
    return {
        "img_ids": [each.image_id for each in images],
        "boxes": [each.boxes for each in images],
        "rpn_scores": [each.rpn_scores for each in images],
        "clip_scores": [each.clip_scores for each in images],
        "clip_category_ids": [each.classes for each in images],
    }


def _rows(content: Mapping[str, Any]) -> Iterator[ScoredImage]:
    for image_id, *numbers in zip(*(content[name] for name in _LISTS), strict=True):
        boxes, rpn, clip, classes = numbers
        yield ScoredImage(image_id=image_id, boxes=boxes, rpn_scores=rpn, clip_scores=clip, classes=classes)


def _repeated(ids: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            return each
        seen.add(each)
    return None
