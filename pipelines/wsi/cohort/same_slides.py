"""One slide under several names: copies and links of a file, and features of one slide given as those of two."""

from collections.abc import Iterable, Mapping, Sequence

from pipelines.wsi.cohort.file_matching import NUM_EXAMPLES, SlideRecord
from vision_core.slides.identity import same_files


def same_slides(records: Sequence[SlideRecord]) -> list[tuple[SlideRecord, ...]]:
    """Find records whose files are the same, by their content."""
    of_path = {record.path: record for record in records}
    return [tuple(of_path[path] for path in group) for group in same_files(of_path)]


def judge_same(
    groups: Iterable[Sequence[SlideRecord]], lists: Mapping[str, Sequence[SlideRecord]], classes: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Judge slides that are there under several names.

    Args:
        groups: Records of one content each.
        lists: Records by the name of their list.
        classes: Names of the labels.

    Returns:
        Problems: one slide has two labels or is on two lists, or belongs to two patients that a random division
        would part; and a note on all others.
    """
    list_of = {record.path: name for name, records in lists.items() for record in records}
    problems, harmless = [], []
    for group in groups:
        names = ", ".join(f"'{record.path}'" for record in group[:NUM_EXAMPLES])
        labels = sorted({classes[record.label] for record in group if record.label >= 0})
        places = sorted({list_of[record.path] for record in group if record.path in list_of})
        what = f"the same slide is there under {len(group)} names, {names}"
        if len(labels) > 1:
            problems.append(f"{what}, with the labels {_quoted(labels)}. Keep one file, with the right label.")
        elif len(places) > 1:
            problems.append(f"{what}, on the lists {_quoted(places)}. Keep one of them.")
        else:
            harmless.append(f"{len(group)} times {names}")
    told = "; ".join(harmless[:NUM_EXAMPLES]) + ("; …" if len(harmless) > NUM_EXAMPLES else "")
    notes = [f"THE SAME SLIDE under several names, each counted as one of its own: {told}"] if harmless else []
    return problems, notes


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
