"""Pascal VOC data sets: ``Annotations/<id>.xml``, ``ImageSets/Main/<split>.txt``, ``JPEGImages/<id>.<suffix>``.

Boxes in the files count pixels from one and include the last: one is subtracted from ``xmin`` and ``ymin`` alone, as
the published detectors do, so that ``xmax - xmin`` is the width.
"""

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, tostring
from xml.sax.saxutils import escape

import defusedxml
import defusedxml.ElementTree

from vision_core.detection.datasets.checks import (
    bare_name,
    check_class_names,
    check_missing,
    check_own_names,
    check_repeated_boxes,
    check_repeated_files,
    check_scale,
    checked_size,
    decoded,
    stated_px,
    without_repeats,
)
from vision_core.detection.datasets.records import (
    ClassList,
    DetectionDataset,
    Extra,
    ImageRecord,
    LabelledBox,
    ReaderReport,
    objects_of,
    size_of,
    unlabelled,
)
from vision_core.detection.settings import DetectionData
from vision_core.errors import DataError
from vision_core.evaluation.class_names import written_name
from vision_core.images.reading import list_images

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Classes of published data sets in this layout, as the papers on adaptation use them.
CLASS_LISTS = {
    "clipart": VOC_CLASSES,
    "watercolor": ("bicycle", "bird", "car", "cat", "dog", "person"),
    "sim10k": ("car",),
}

VOC_FOLDERS = ("JPEGImages", "ImageSets", "Annotations")
_WORDS = {"": False, "false": False, "no": False, "unspecified": False, "true": True, "yes": True}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ONCE = {"bndbox": "boxes", "name": "names", **{f"bndbox/{corner}": f"numbers {corner}" for corner in _CORNERS}}
_READ = {"name", "difficult", "bndbox"}
_OF_IMAGE = {"filename", "size", "object"}  # fields that are made anew
_DEPTH = "3"
_SAYS_NOTHING = {"", "0", "false", "no", "unspecified"}


@dataclass(frozen=True, kw_only=True)
class VocAnnotation:
    """Content of one XML file.

    Attributes:
        size: ``(height, width)`` in pixels, None where the file leaves it out or gives zero.
        objects: All objects, of whatever class.
        image: Name of its image as the file has it; empty where it has none.
        others: Further fields of the image, such as its source, as XML by tag.
    """

    size: tuple[int, int] | None
    objects: tuple[LabelledBox, ...]
    image: str = field(default="", compare=False)
    others: Mapping[str, str] = field(default_factory=dict, compare=False)


def read_voc(
    root: Path, split: str, data: DetectionData, *, keeps_extras: bool = False, known: Collection[str] = ()
) -> DetectionDataset:
    """Read a split with its labels; the default classes are all names, sorted.

    Names that are ``known`` are of other classes, and misspellings of none.

    Raises:
        DataError: Folder, list or annotations have problems; the message has the first five and their number.
    """
    report = ReaderReport(data.on_bad_box, data.on_missing, keeps_extras=keeps_extras)
    images = _listed_images(root, split, report)
    annotations = {image: _annotation_of(root, image, report) for image in images}
    objects = [item for annotation in annotations.values() for item in annotation.objects]
    found = Counter(item.name for item in objects)
    classes = ClassList(names=data.classes or tuple(sorted(found)))
    if data.classes:
        check_class_names(classes.names, found, report, known)
    else:
        check_own_names(classes.names, found, report)
    if found and not found.keys() & set(classes.names):
        report.refuse(
            f"'{root}': no object is of the classes '{', '.join(classes.names)}'; the files name "
            f"'{', '.join(sorted(found))}'. Correct data.classes."
        )
    check_scale(max((max(*item.box[2:]) for item in objects), default=0), len(objects), report)
    _note_others_names(annotations, report)
    records = [_record(path, annotation, classes, report) for path, annotation in annotations.items()]
    check_repeated_boxes(records, report)
    return report.dataset(f"{root.name}:{split}", classes.names, records, has_labels=True)


def _note_others_names(annotations: Mapping[Path, VocAnnotation], report: ReaderReport) -> None:
    """Tell of files that name another image of the list as theirs: they may have been exchanged."""
    stems = {image.stem for image in annotations}
    for image, annotation in annotations.items():
        named = bare_name(annotation.image)
        if named != image.stem and named in stems:
            report.note("FILES THAT NAME ANOTHER IMAGE OF THE LIST, whose labels they may be", f"{image.stem}.xml")


def read_voc_images(root: Path, split: str, data: DetectionData) -> DetectionDataset:
    """Read a split without opening an annotation.

    Raises:
        DataError: As for ``read_voc``.
    """
    report = ReaderReport(data.on_bad_box)
    records = [unlabelled(path.stem, path) for path in _listed_images(root, split, report)]
    return report.dataset(f"{root.name}:{split}", data.classes, records, has_labels=False)


def read_annotation(path: Path) -> VocAnnotation:
    """Read one XML file; entities and external references are refused.

    Raises:
        DataError: The file is missing, malformed, or an object has no name or no box of four numbers.
    """
    try:
        tree: Element = defusedxml.ElementTree.fromstring(path.read_bytes(), forbid_dtd=True)
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist. Give every listed image an annotation.") from error
    except defusedxml.DefusedXmlException as error:
        raise DataError(f"'{path}' carries a DOCTYPE, which can do harm, and is refused. Remove it.") from error
    except (ParseError, ValueError, LookupError) as error:  # the last two: an encoding that the parser does not know
        raise DataError(f"'{path}' is not well-formed XML: {error}. Repair it or take it off the list.") from error
    objects = tuple(_object(element, path) for element in tree.iter("object"))
    if not objects and tree.tag != "annotation":
        raise DataError(f"'{path}' is XML of '{tree.tag}', not a VOC annotation. Convert it, or correct data.format.")
    others = _as_xml(each for each in tree if each.tag not in _OF_IMAGE)
    depth = (tree.findtext("size/depth") or _DEPTH).strip()
    return VocAnnotation(
        size=_declared_size(tree),
        objects=objects,
        image=(tree.findtext("filename") or "").strip(),
        others=others | ({} if depth == _DEPTH else {"depth": f"<depth>{escape(depth)}</depth>"}),
    )


def annotation_xml(annotation: VocAnnotation, image_name: str) -> str:
    """Write an annotation as XML, for ``read_annotation``.

    Raises:
        ValueError: The annotation has no size.
    """
    if annotation.size is None:
        raise ValueError("annotation.size: expected (height, width), found None")
    height, width = annotation.size
    objects = "".join(_object_xml(item) for item in annotation.objects)
    others = dict(annotation.others)
    depth = others.pop("depth", f"<depth>{_DEPTH}</depth>")
    return (
        f"<annotation>\n  <filename>{escape(image_name)}</filename>\n"
        + "".join(f"  {text}\n" for text in others.values())
        + f"  <size><width>{width}</width><height>{height}</height>{depth}</size>\n{objects}</annotation>\n"
    )


def write_voc(folder: Path, split: str, dataset: DetectionDataset, names: Sequence[str]) -> None:
    """Write annotations and list of a split, without crowd regions, which the format does not have.

    Args:
        folder: Of the data set, which is being made: nothing is written atomically.
        split: Name of the list.
        dataset: The records.
        names: Their image files in ``JPEGImages``.
    """
    (folder / "Annotations").mkdir(exist_ok=True)
    for record, name in zip(dataset.records, names, strict=True):
        objects = tuple(item for item in objects_of(record, dataset.classes) if not item.is_crowd)
        others = record.about.get("voc", {})
        text = annotation_xml(VocAnnotation(size=size_of(record), objects=objects, others=others), name)
        (folder / "Annotations" / f"{Path(name).stem}.xml").write_text(text, encoding="utf-8")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in names), encoding="utf-8")


def _listed_images(root: Path, split: str, report: ReaderReport) -> list[Path]:
    by_name = _images_by_name(root / "JPEGImages")
    listed, missing = {}, []
    ids = _ids(root, split, report)
    for line in ids:
        image_id = _id_of_line(line, by_name, report)
        paths = by_name.get(image_id) or by_name.get(bare_name(image_id), [])
        if len(paths) > 1:
            report.refuse(f"'{image_id}' is ambiguous: '{paths[0].name}' and '{paths[1].name}'. Remove one.")
        elif paths:
            listed[line] = paths[0]
        else:
            missing.append(image_id)
    check_missing(missing, len(ids), (path.name for paths in by_name.values() for path in paths), report)
    check_repeated_files(listed.items(), report)
    return list(listed.values())


def _id_of_line(line: str, by_name: Mapping[str, Sequence[Path]], report: ReaderReport) -> str:
    """Take the image id of a line; lists of one class have a second column of -1, 0 or 1."""
    columns = line.split()
    if line in by_name or len(columns) != 2 or columns[1] not in {"-1", "0", "1"}:
        return line
    report.note("lines with a second column (1, 0 or -1), which is not used: all images of the list are", columns[0])
    return columns[0]


def _images_by_name(folder: Path) -> dict[str, list[Path]]:
    """Index images by stem and by name, as some published lists need."""
    by_name: dict[str, list[Path]] = {}
    for path in list_images(folder):
        by_name.setdefault(path.stem, []).append(path)
    return {path.name: [path] for paths in by_name.values() for path in paths} | by_name


def _ids(root: Path, split: str, report: ReaderReport) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        raise DataError(_missing_list(path, split))
    lines = [line.strip() for line in decoded(path).splitlines()]
    ids = [line for line in lines if line]
    if not ids:
        raise DataError(f"'{path}' lists no image. Write one image id a line.")
    return without_repeats(ids, f"'{path}'", report)


def _missing_list(path: Path, split: str) -> str:
    if not path.parent.is_dir():
        return f"'{path.parents[2]}' is not a VOC folder: it has no 'ImageSets/Main'. Correct data.root or data.format."
    present = sorted(entry.stem for entry in path.parent.glob("*.txt"))
    near = difflib.get_close_matches(split, present, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"There are: '{', '.join(present[:20])}'."
    return f"'{path}' does not exist. {hint}"


def _annotation_of(root: Path, image: Path, report: ReaderReport) -> VocAnnotation:
    try:
        return read_annotation(root / "Annotations" / f"{image.stem}.xml")
    except DataError as error:
        for problem in error.problems:
            report.refuse(problem)
        return VocAnnotation(size=None, objects=())


def _record(path: Path, annotation: VocAnnotation, classes: ClassList, report: ReaderReport) -> ImageRecord:
    size = checked_size(path, annotation.size, report)
    objects = []
    for item in classes.keep(annotation.objects, path.stem, report):
        if min(item.box[:2]) < 0:
            report.note("boxes with xmin or ymin 0 (does the file count from 0? 1 is subtracted)", path.stem)
        box = report.check_box(item.box, size, f"{path.stem}.xml")
        if box is not None:
            objects.append(replace(item, box=box))
    about = {"voc": annotation.others} if report.keeps_extras and annotation.others else {}
    return replace(classes.record(path.stem, path, objects, size), about=about)


def _object(element: Element, path: Path) -> LabelledBox:
    name = written_name(element.findtext("name") or "")
    if not name:
        raise DataError(f"'{path}' has an object without a name. Name its class.")
    if fault := _mark_fault(element):
        raise DataError(f"'{path}': a '{name}' {fault}")
    texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError as error:
        raise DataError(f"'{path}': the box of a '{name}' is '{texts}'; four numbers are needed.") from error
    is_difficult = _is_difficult(element.findtext("difficult") or "", path)
    extra = _extra(element)
    return LabelledBox(name=name, box=(left - 1, top - 1, right, bottom), is_difficult=is_difficult, extra=extra)


def _extra(element: Element) -> Extra:
    """Keep the fields of an object that detectors do not use, as XML by tag, where they say something."""
    kept = _as_xml(each for each in element if each.tag not in _READ)
    return {"voc": kept} if kept else {}


def _as_xml(elements: Iterable[Element]) -> dict[str, str]:
    """Write elements that say something as XML, by tag."""
    kept: dict[str, str] = {}
    for each in elements:
        if len(each) or (each.text or "").strip().lower() not in _SAYS_NOTHING:
            each.tail = None
            kept[each.tag] = kept.get(each.tag, "") + tostring(each, encoding="unicode")
    return kept


def _mark_fault(element: Element) -> str:
    """Find what makes a box another one than its four numbers say: the rest of a sentence, empty for nothing."""
    for tag, words in _ONCE.items():
        if (count := len(element.findall(tag))) > 1:
            return f"has '{count}' {words}. Write each object once."
    if (element.findtext("deleted") or "").strip().lower() in {"1", "true", "yes"}:
        return "is marked as deleted. Take it out of the file."
    for each in element.iter("attribute"):
        turned = (each.findtext("value") or "").strip() if each.findtext("name") == "rotation" else ""
        if turned.strip("+-0."):
            return f"is a rotated box, by '{turned}' degrees, which is not read. Export upright boxes."
    return ""


def _is_difficult(text: str, path: Path) -> bool:
    """Read the mark of a difficult object: a number other than 0, or a word for yes."""
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return float(word) != 0
    except ValueError as error:
        raise DataError(f"'{path}' has difficult '{text}', which is neither 0 nor 1. Correct it.") from error


def _declared_size(tree: Element) -> tuple[int, int] | None:
    size = stated_px(tree.findtext("size/height")), stated_px(tree.findtext("size/width"))
    return size if all(size) else None


def _object_xml(item: LabelledBox) -> str:
    left, top, right, bottom = item.box
    corners = zip(_CORNERS, (left + 1, top + 1, right, bottom), strict=True)
    box = "".join(f"<{name}>{value:g}</{name}>" for name, value in corners)
    # Evaluators of published code stop at objects that lack pose, truncated or difficult.
    plain = {"pose": "<pose>Unspecified</pose>", "truncated": "<truncated>0</truncated>"}
    fields = {**plain, **item.extra.get("voc", {})}
    return (
        f"  <object><name>{escape(item.name)}</name>{''.join(fields.values())}"
        f"<difficult>{int(item.is_difficult)}</difficult><bndbox>{box}</bndbox></object>\n"
    )
