"""The page of a comparison: the verdict in words, what changed in pictures, the numbers, and what to do next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from pipelines.sfod.verdict.comparing import Compared, Comparison, Labelled, Read
from pipelines.sfod.verdict.numbers import BASELINES, NUMBERS
from vision_core.detection.analysis.changes import WORDS
from vision_core.files import write_atomic
from vision_core.images.drawing import GREEN, GREY, ORANGE, SKY_BLUE, Colour, draw_boxes, write_png
from vision_core.results import RESEARCH_NOTICE, Detections, label_texts
from vision_core.runs.report import embed

_PICTURES = 6
_COLOURS: dict[str, Colour] = {"same": GREY, "lost": ORANGE, "moved": GREEN, "gained": SKY_BLUE}  # drawn in this order
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
    "unclear": "Label more images: compare with --suggest 10 names those that tell most.",
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
    most = sorted(comparison.images, key=lambda each: -each.difference)[:_PICTURES]
    shown = []
    for place, each in enumerate(most):
        picture = path.parent / "pictures" / f"{place + 1}-{each.path.stem}.png"
        write_png(picture, _draw(each, read(each.path)[0]))
        shown.append(embed(picture, f"{each.path.name}: {changed_words([each])}"))
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
        numbers=[_row(name, verdict.before[name], verdict.after[name]) for name in (*NUMBERS, *BASELINES)],
        pictures=[each for each in shown if each],
        colours=[(words, f"rgb{_COLOURS[name]}") for name, words in WORDS.items()],
    )
    write_atomic(path, content)


def changed_words(images: Sequence[Compared]) -> str:
    """Count what changed, in words: ``3 found now, 1 no longer found, 2 moved, 9 as before``."""
    counts = {name: sum(len(getattr(each.changes, name)) for each in images) for name in WORDS}
    return ", ".join(f"{counts[name]} {words}" for name, words in WORDS.items() if counts[name]) or "no object"


def labelled_words(labelled: Labelled) -> str:
    """Say what labels say, in a sentence; points of AP50."""
    before, after, low, high = (100 * each for each in (labelled.before, labelled.after, *labelled.interval))
    return (
        f"AP50 (VOC 2007) {before:.1f} before, {after:.1f} after: {after - before:+.1f}, 95 % interval {low:+.1f} to "
        f"{high:+.1f} over {labelled.images} images."
    )


def _row(name: str, before: float | None, after: float | None) -> dict[str, Any]:
    title, meaning = _WORDS[name]
    told = ["not known" if value is None else f"{value:.3f}" for value in (before, after)]
    change = "" if before is None or after is None else f"{after - before:+.3f}"
    return {"title": title, "meaning": meaning, "before": told[0], "after": told[1], "change": change}


def _draw(image: Compared, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    for name, colour in _COLOURS.items():
        found: Detections = image.before if name == "lost" else image.after
        places = getattr(image.changes, name)
        texts = label_texts(found)
        picture = draw_boxes(picture, found.boxes[places], [texts[place] for place in places], colour)
    return picture
