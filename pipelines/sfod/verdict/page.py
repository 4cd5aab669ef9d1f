"""The page of a comparison: the verdict in words, what changed in pictures, the numbers, and what to do next."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from pipelines.sfod.verdict.by_labels import ANYTHING, Labelled
from pipelines.sfod.verdict.comparing import Compared, Comparison, Read
from pipelines.sfod.verdict.numbers import BASELINES, NUMBERS
from pipelines.sfod.verdict.rule import Verdict
from vision_core.detection.analysis.changes import WORDS, Indices
from vision_core.files import write_atomic
from vision_core.images.drawing import GREEN, GREY, ORANGE, SKY_BLUE, Colour, draw_boxes, side_by_side, write_png
from vision_core.results import RESEARCH_NOTICE, Detections, label_texts
from vision_core.runs.report import embed

_PICTURES = 6
_COLOURS: dict[str, Colour] = {"same": GREY, "lost": ORANGE, "moved": GREEN, "gained": SKY_BLUE}
_WORDS = {
    "stability": ("Steady features", "Boxes stay when a tenth of the features is switched off."),
    "geometry": ("Steady under mirror and scale", "Boxes stay when the image is mirrored, shrunk or enlarged."),
    "flatness": ("Steady weights", "Boxes and classes stay when the weights are disturbed a little."),
    "distance_ratio": ("Classes apart", "Classes lie far from each other, and near those of the source."),
    "consistency": ("Candidates agree", "The candidates behind a box lie on it and are sure."),
    "expected_f1": ("Expected F1", "From how often such boxes were right on the source's own labelled images."),
    "confidence": ("Mean score", "Rises by itself in self-training: no evidence."),
    "entropy": ("Entropy of the classes", "Falls by itself in self-training: no evidence."),
}
HEADLINES = {
    "helped": "It helped, as far as can be said without labels.",
    "unclear": "Unclear: without labels it cannot be said whether it helped.",
    "harmful": "It did harm, as far as can be said without labels.",
}
BY_LABELS = {
    "helped": "It helped, by the labels of these images.",
    "unclear": "Too close to call, by the labels of these images.",
    "harmful": "It did harm, by the labels of these images.",
}
_NEXT = {
    "helped": "Look at the pictures below before you use it.",
    "unclear": "Label more images: with --suggest 10 this verb names those that tell most, and prints what comes then.",
    "harmful": "Keep the detector you had, or adapt with other settings (preset=small for a few dozen images).",
}


def write_page(path: Path, comparison: Comparison, names: Sequence[str], labelled: Labelled | None, read: Read) -> None:
    """Write the page, offline, and beside it the folder ``pictures`` of the images that differ most.

    Args:
        path: The HTML file.
        comparison: What it shows.
        names: Of both detectors.
        labelled: What labels say; None where there are none.
        read: Reads these images again.
    """
    captions = draw_most_different(path.parent / "pictures", comparison.images, read)
    shown = [embed(path.parent / "pictures" / name, caption) for name, caption in captions.items()]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("pipelines.sfod.verdict"), jinja2.PackageLoader("vision_core.runs")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdict = comparison.verdict
    content = environment.get_template("comparison.html.j2").render(
        notice=RESEARCH_NOTICE,
        headline=BY_LABELS[labelled.kind] if labelled else HEADLINES[verdict.kind],
        unlabelled=HEADLINES[verdict.kind] if labelled else None,
        next_step=_NEXT[labelled.kind if labelled else verdict.kind],
        labelled=labelled_words(labelled) if labelled else None,
        changed=changed_words(comparison.images),
        names=names,
        count=len(comparison.images),
        score=comparison.operating_score,
        boxes=verdict.boxes,
        reasons=verdict.reasons,
        notes=comparison.notes,
        failed=[(failed.name, reason) for failed, reason in comparison.failed.items()],
        numbers=number_rows(verdict),
        pictures=[each for each in shown if each],
        colours=legend(),
    )
    write_atomic(path, content)


def draw_most_different(folder: Path, images: Sequence[Compared], read: Read) -> dict[str, str]:
    """Draw the images that differ most into ``folder``, before beside after, in the colours of ``legend``.

    Returns:
        Captions by file name.
    """
    captions = {}
    for place, each in enumerate(sorted(images, key=lambda each: -each.difference)[:_PICTURES]):
        name = f"{place + 1}-{each.path.stem}.png"
        write_png(folder / name, _draw(each, read(each.path)[0]))
        captions[name] = f"{each.path.name}, before and after: {changed_words([each])}"
    return captions


def legend() -> list[tuple[str, str]]:
    """List what the colours of boxes mean: words, and a colour of CSS."""
    return [(words, f"rgb{_COLOURS[name]}") for name, words in WORDS.items()]


def number_rows(verdict: Verdict) -> list[dict[str, str]]:
    """Write the numbers of a verdict as rows of texts: title, meaning, before, after, change."""
    return [_row(name, verdict.before[name], verdict.after[name]) for name in (*NUMBERS, *BASELINES)]


def changed_words(images: Sequence[Compared]) -> str:
    """Count what changed, in words: ``3 found now, 1 no longer found, 2 moved, 9 as before``."""
    counts = {name: sum(len(getattr(each.changes, name)) for each in images) for name in WORDS}
    return ", ".join(f"{counts[name]} {words}" for name, words in WORDS.items() if counts[name]) or "no object"


def labelled_words(labelled: Labelled) -> str:
    """Say what labels say, in a few sentences; points of AP50."""
    before, after, low, high = (100 * each for each in (labelled.before, labelled.after, *labelled.interval))
    told = (
        f"AP50 (VOC 2007) {before:.1f} before, {after:.1f} after: {after - before:+.1f}, 95 % interval {low:+.1f} to "
        f"{high:+.1f} over {labelled.images} images with {labelled.boxes} boxes."
    )
    if labelled.of_images > labelled.images:
        told += f" They stand for {labelled.of_images} images, which hold about {labelled.of_boxes:.0f}."
    if labelled.boxes_needed:
        told += f" About {labelled.boxes_needed} labelled boxes would settle a gain as large."
    elif labelled.kind == "unclear" and labelled.interval == ANYTHING:
        told += " One image says nothing of others: label at least two of each kind."
    elif labelled.kind == "unclear":
        told += " The gain is too small to be settled by labels."
    return told


def _row(name: str, before: float | None, after: float | None) -> dict[str, str]:
    title, meaning = _WORDS[name]
    told = ["not known" if value is None else f"{value:.3f}" for value in (before, after)]
    change = "" if before is None or after is None else f"{after - before:+.3f}"
    return {"title": title, "meaning": meaning, "before": told[0], "after": told[1], "change": change}


def _draw(image: Compared, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw what was found before, at the left, and what is found now."""
    lost = image.changes.lost
    stays = np.setdiff1d(np.arange(len(image.before)), lost)
    before = _boxes(_boxes(picture, image.before, stays, "same"), image.before, lost, "lost")
    after = picture
    for name in ("same", "moved", "gained"):
        after = _boxes(after, image.after, getattr(image.changes, name), name)
    return side_by_side([before, after])


def _boxes(picture: NDArray[np.uint8], found: Detections, places: Indices, name: str) -> NDArray[np.uint8]:
    texts = label_texts(found)
    return draw_boxes(picture, found.boxes[places], [texts[place] for place in places], _COLOURS[name])
