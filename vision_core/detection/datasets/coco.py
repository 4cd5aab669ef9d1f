"""COCO data sets: a JSON index of images, annotations and categories, and a folder of images."""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from vision_core.detection.datasets.checks import (
    check_class_names,
    check_missing,
    check_own_names,
    check_repeated_boxes,
    check_repeated_files,
    check_scale,
    checked_size,
    decoded,
    near_name,
    stated_px,
    without_repeats,
)
from vision_core.detection.datasets.coco_checks import check_annotations, extra_of, read_json
from vision_core.detection.datasets.formats import ROBOFLOW_INDEX, coco_indexes
from vision_core.detection.datasets.records import (
    ClassList,
    DetectionDataset,
    ImageRecord,
    LabelledBox,
    ReaderReport,
    unlabelled,
)
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.evaluation.class_names import written_name
from vision_core.images.reading import IMAGE_SUFFIXES, is_image_name, list_images

Entry = Mapping[str, Any]
_Id = TypeVar("_Id", int | str, str)

_MARKS = {"none": False, "": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def read_coco(
    root: Path, split: str, data: DetectionData, *, keeps_extras: bool = False, known: Collection[str] = ()
) -> DetectionDataset:
    """Read a split with its labels; the default classes are the categories, by number.

    Annotations with ``iscrowd`` or ``ignore`` become crowd regions. Names that are ``known`` are of other classes, and
    misspellings of none.

    Raises:
        DataError: The index cannot be read, or has problems; the message has the first five and their number.
    """
    report = ReaderReport(data.on_bad_box, data.on_missing, keeps_extras=keeps_extras)
    index = _Index.parse(index_path(root, split), report)
    classes = _class_list(index, data.classes, report, known)
    names = {number: str(image["file_name"]) for number, image in index.images.items()}
    paths = _image_paths(root, split, names, report)
    check_repeated_files(((str(number), path) for number, path in paths.items()), report)
    _check_scale(index, report)
    check_annotations([entry for entries in index.annotations.values() for entry in entries], report)
    records = [_record(index, number, path, (classes, report)) for number, path in paths.items()]
    if not records and not report.problems:
        raise DataError(f"'{index.path}': none of its '{len(names)}' images is under '{root}'. Correct data.root.")
    check_repeated_boxes(records, report)
    _note_unlisted([record.path for record in records], report)
    return report.dataset(f"{root.name}:{split}", classes.names, records, has_labels=True)


def read_coco_images(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a split without opening its index, which holds labels.

    The images are those named in ``<split>.txt``, else those in the folder ``<split>``, else all of a folder that has
    no more than one index.

    Raises:
        DataError: Only the index says which images belong to the split, or they are missing.
    """
    report = ReaderReport(data.on_bad_box)
    listing = root / f"{split}.txt"
    paths = _named_images(root, listing, report) if listing.is_file() else _images_of_folder(root, split, report)
    records = [unlabelled(path.name, path) for path in paths]
    return report.dataset(f"{root.name}:{split}", data.classes, records, has_labels=False)


def image_ids(index: Path, images: Sequence[Path]) -> dict[Path, int | str]:
    """Find the ids that an index gives to images: by the end of their path that is its ``file_name``, else by name.

    Raises:
        DataError: The index lacks an image, or has several that it may be.
    """
    by_name: dict[str, dict[int | str, str]] = {}
    for number, entry in _by_number(load_index(index)["images"], "image", "file_name", ReaderReport("refuse")).items():
        name = str(entry["file_name"]).replace("\\", "/")
        by_name.setdefault(PurePosixPath(name).name, {})[number] = name
    found = {}
    for path in images:
        named = by_name.get(path.name, {})
        whole = [number for number, name in named.items() if f"/{path.as_posix()}".endswith(f"/{name}")]
        fitting = whole if len(whole) == 1 else list(named)
        if len(fitting) != 1:
            what = f"lists {len(named)} images that it may be" if named else "does not list it"
            raise DataError(f"'{path}' has no id in '{index}', which {what}. Give the index of these images.")
        found[path] = fitting[0]
    if len(set(found.values())) < len(found):
        raise DataError(f"'{index}' lists fewer images than there are inputs of these names. Give one folder of them.")
    return found


@dataclass(frozen=True, kw_only=True)
class _Index:
    """A checked index: images and names of categories by id, annotations by the id of their image.

    Attributes:
        numbers: Ids of categories by the number that they are.
    """

    path: Path
    images: dict[int | str, Entry]
    names: dict[int | str, str]
    numbers: dict[int, int | str]
    annotations: dict[int | str, list[Entry]]

    @classmethod
    def parse(cls, path: Path, report: ReaderReport) -> "_Index":
        tables = load_index(path)
        images = _by_number(tables["images"], "image", "file_name", report)
        categories = _by_number(tables["categories"], "category", "name", report)
        annotations = _by_number(tables["annotations"], "annotation", "bbox", report)
        grouped = _by_image(annotations, images, report)
        names = {number: written_name(str(categories[number]["name"])) for number in sorted(categories, key=_sort_key)}
        return cls(path=path, images=images, names=names, numbers=_numbers(names), annotations=grouped)

    def category(self, entry: Entry, report: ReaderReport) -> int | str:
        """Find the id of an annotation's category; an unlisted one is returned as it stands."""
        return _matched(entry, "category_id", (self.names, self.numbers), report)

    def objects_by_name(self) -> dict[str, int]:
        """Count the annotations by the name of their category; a category without one has 0."""
        found = dict.fromkeys(self.names.values(), 0)
        unread = ReaderReport("refuse")
        for number in (self.category(entry, unread) for entries in self.annotations.values() for entry in entries):
            if number in self.names:
                found[self.names[number]] += 1
        return found


def _by_image(
    annotations: Mapping[int | str, Entry], images: Mapping[int | str, Entry], report: ReaderReport
) -> dict[int | str, list[Entry]]:
    """Group annotations by the image that they belong to; refuse the index where most belong to none."""
    grouped: dict[int | str, list[Entry]] = {}
    numbers = _numbers(images)
    lost = []
    for number, entry in annotations.items():
        image = _matched(entry, "image_id", (images, numbers), report)
        if image in images:
            grouped.setdefault(image, []).append(entry)
        else:
            lost.append(f"annotation {number} with image_id '{image}'")
            report.leave_out(
                "boxes of unlisted images", "annotations of images that are not listed, left out", str(number)
            )
    if 2 * len(lost) > len(annotations):
        report.refuse(
            f"'{len(lost)}' of '{len(annotations)}' annotations are of no listed image (first {lost[0]}; listed are "
            f"{', '.join(map(repr, list(images)[:3]))}, ...). Correct image_id, or take them out of the index."
        )
    return grouped


def _numbers(known: Iterable[int | str]) -> dict[int, int | str]:
    """Index ids by the number that they are, as a number or as text; ambiguous ones are left out."""
    found: dict[int, list[int | str]] = {}
    for each in known:
        text = str(each).strip()
        if text.isdecimal():
            found.setdefault(int(text), []).append(each)
    return {number: ids[0] for number, ids in found.items() if len(ids) == 1}


def _matched(
    entry: Entry, name: str, known: tuple[Container[int | str], Mapping[int, int | str]], report: ReaderReport
) -> int | str:
    """Find the listed id that an entry names, also where one is text and the other a number."""
    ids, numbers = known
    value = _id_of(entry, name)
    text = str(value).strip()
    if value in ids or not text.isdecimal() or int(text) not in numbers:
        return value
    report.note(f"annotations whose {name} is text and the listed id a number, or the reverse: matched", str(value))
    return numbers[int(text)]


def _id_of(entry: Entry, name: str) -> int | str:
    value = entry.get(name)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else repr(value)


def _sort_key(number: int | str) -> tuple[bool, int | str]:
    return isinstance(number, str), number


def index_path(root: Path, split: str) -> Path:
    """Find the index of a split.

    Raises:
        DataError: There is none; the message names those that there are.
    """
    candidates = [root / f"{split}.json"]
    candidates += [root / "annotations" / f"{name}.json" for name in (split, f"instances_{split}")]
    candidates.append(root / split / ROBOFLOW_INDEX)
    for path in candidates:
        if path.is_file():
            return path
    indexes = coco_indexes(root)
    missing = f"'{candidates[0]}' does not exist, nor '{candidates[1]}'"
    if not indexes:
        raise DataError(f"{missing}; '{root}' holds no COCO index. Correct data.root or data.format.")
    found = ", ".join(sorted(str(path.relative_to(root)) for path in indexes))
    near = near_name(split, [path.parent.name if path.name == ROBOFLOW_INDEX else path.stem for path in indexes])
    hint = f" {near}" if near.startswith("Did") else ""
    raise DataError(f"{missing}; there is '{found}'. Correct data.split.{hint}")


def load_index(path: Path) -> dict[str, list[Entry]]:
    """Read the lists ``images``, ``annotations`` and ``categories`` of an index.

    Raises:
        DataError: It breaks off, is none, names a key twice, or needs more memory than there is.
    """
    content = read_json(path)
    tables = {name: _table(content, name, path) for name in ("images", "annotations", "categories")}
    return {**tables, "images": [_named(image) for image in tables["images"]]}


def with_listed_ids(index: Mapping[str, list[Entry]]) -> dict[str, list[Entry]]:
    """Write the ids that annotations name as images and categories have them, as text or as numbers."""
    told = ReaderReport("refuse")  # by the reader of the list
    annotations = index["annotations"]
    for name, table in (("image_id", "images"), ("category_id", "categories")):
        ids = {_id_of(entry, "id") for entry in index[table]}
        known = ids, _numbers(ids)
        found = [_matched(entry, name, known, told) for entry in annotations]
        annotations = [
            entry if (type(entry.get(name)), entry.get(name)) == (type(number), number) else {**entry, name: number}
            for entry, number in zip(annotations, found, strict=True)
        ]
    return {**index, "annotations": annotations}


def _named(image: Entry) -> Entry:
    """Name an image of LVIS, whose indexes have addresses instead of names: by folder and name of the address."""
    url = image.get("coco_url")
    return {**image, "file_name": "/".join(str(url).split("/")[-2:])} if url and "file_name" not in image else image


def _table(content: object, name: str, path: Path) -> list[Entry]:
    table = content.get(name) if isinstance(content, dict) else None
    if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
        raise DataError(f"'{path}' has no list '{name}'. A COCO index has 'images', 'annotations' and 'categories'.")
    return table


def _by_number(entries: Sequence[Entry], kind: str, needed: str, report: ReaderReport) -> dict[int | str, Entry]:
    """Index the usable entries by id; the others are problems."""
    usable: dict[int | str, Entry] = {}
    for entry in entries:
        number = _id_of(entry, "id")
        if not isinstance(entry.get("id"), int | str | float) or needed not in entry:
            report.refuse(f"{kind} '{number}' lacks 'id' or '{needed}'. Complete the index.")
        elif number in usable:
            report.refuse(f"{kind} id '{number}' occurs more than once. Give each {kind} its own.")
        else:
            usable[number] = entry
    return usable


def _class_list(index: _Index, wanted: tuple[str, ...], report: ReaderReport, known: Collection[str]) -> ClassList:
    names = list(index.names.values())
    repeated = [name for name, count in Counter(names).items() if count > 1]
    for name in repeated:
        report.refuse(f"category '{name}' has two ids. Merge them.")
    classes = wanted or tuple(names)
    if wanted:
        check_class_names(classes, index.objects_by_name(), report, known)
    else:
        check_own_names(classes, index.objects_by_name(), report)
    if not set(classes) & set(names):
        report.refuse(
            f"'{index.path}': no category is of the classes '{', '.join(classes)}'; the index names "
            f"'{', '.join(names)}'. Correct data.classes."
        )
    pairs = [f"{number} is '{name}' ({classes.index(name)})" for number, name in index.names.items() if name in classes]
    report.note(f"category ids and the classes they are read as: {', '.join(pairs)}")
    for name in (name for name in classes if name not in names):
        report.note(f"class '{name}' has no category in the index")
    return ClassList(names=classes)


def _check_scale(index: _Index, report: ReaderReport) -> None:
    boxes = [entry["bbox"] for entries in index.annotations.values() for entry in entries]
    numbers = [value for box in boxes if isinstance(box, list) for value in box if isinstance(value, int | float)]
    check_scale(max(numbers, default=0), len(boxes), report)


def _image_paths(root: Path, split: str, names: Mapping[_Id, str], report: ReaderReport) -> dict[_Id, Path]:
    """Find the listed images by their file names; the others are reported."""
    folders = [folder for folder in (root / split, root / "images" / split, root / "images", root) if folder.is_dir()]
    inside, found, missing = root.resolve(), {}, []
    for number, name in names.items():
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            missing.append(name)
        elif path.resolve().is_relative_to(inside):
            found[number] = path
        else:
            report.leave_out("images outside", "images outside the data set (by a link or '..'), left out", name)
    if missing:
        present = (path.name for folder in folders for path in folder.iterdir() if is_image_name(path.name))
        check_missing(missing, len(names), present, report)
    return found


def _record(index: _Index, number: int | str, path: Path, rules: tuple[ClassList, ReaderReport]) -> ImageRecord:
    classes, report = rules
    image = index.images[number]
    declared = stated_px(image.get("height")), stated_px(image.get("width"))
    size = checked_size(path, declared if all(declared) else None, report)
    objects = []
    for entry in index.annotations.get(number, ()):
        where = f"annotation {entry['id']}"
        for item in classes.keep(_objects(entry, index, report), where, report):
            box = report.check_box(item.box, size, where)
            objects += [replace(item, box=box)] if box is not None else []
    return classes.record(str(number), path, objects, size)


def _objects(entry: Entry, index: _Index, report: ReaderReport) -> list[LabelledBox]:
    """Read the object of an annotation; none where it is a problem."""
    found = index.category(entry, report)
    name = index.names.get(found)
    if name is None:
        known = ", ".join(map(str, index.names))
        report.refuse(f"annotation '{entry['id']}' has category id '{found}'; there are {known}. Correct it.")
        return []
    try:
        left, top, width, height = (float(value) for value in entry["bbox"])
    except (TypeError, ValueError):
        report.refuse(f"annotation '{entry['id']}' has bbox '{entry['bbox']}', not x, y, width, height.")
        return []
    marks = [_MARKS.get(str(entry.get(mark)).strip().lower()) for mark in ("iscrowd", "ignore")]
    if None in marks:
        told = {mark: entry[mark] for mark in ("iscrowd", "ignore") if mark in entry}
        report.refuse(f"annotation '{entry['id']}' has {told}, which should be 0 or 1. Correct it.")
        return []
    extra = extra_of(entry) if report.keeps_extras else {}
    return [LabelledBox(name=name, box=(left, top, left + width, top + height), is_crowd=any(marks), extra=extra)]


def _note_unlisted(paths: Sequence[Path], report: ReaderReport) -> None:
    for folder in sorted({path.parent for path in paths}):
        on_disk = {path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
        for path in sorted(on_disk.difference(paths)):
            report.note("images on disk that the index does not list, not used", path.name)


def _named_images(root: Path, listing: Path, report: ReaderReport) -> list[Path]:
    lines = [line.strip() for line in decoded(listing).splitlines() if line.strip()]
    names = without_repeats(lines, f"'{listing}'", report)
    paths = list(_image_paths(root, listing.stem, {name: name for name in names}, report).values())
    if not paths and not report.problems:
        raise DataError(f"'{listing}': none of its '{len(names)}' images is under '{root}'. Correct data.root.")
    return paths


def _images_of_folder(root: Path, split: str, report: ReaderReport) -> list[Path]:
    for folder in (root / split, root / "images" / split):
        if folder.is_dir():
            return list_images(folder)
    if len(coco_indexes(root)) > 1:
        raise DataError(
            f"'{root}': only a file with labels, which is not opened here, says which images belong to '{split}'. "
            f"Put the images into '{split}/', or their names into '{split}.txt'."
        )
    report.note(f"'{split}' is every image of the folder: the index, which holds labels, was not opened")
    return list_images(root / "images" if (root / "images").is_dir() else root)
