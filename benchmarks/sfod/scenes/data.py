"""Data of the study "sfod-scenes": composed scenes of clothing, under rendered shifts and in crowds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.ovd.scenes.data import check_packages
from pipelines.sfod.demo.shifts import REPORTED, TUNING, Shift
from vision_core.detection.cut_outs import clothes, divide
from vision_core.detection.scenes import CLOTHES_SCENES, write_scenes
from vision_core.images.drawing import write_png
from vision_core.images.reading import list_images, read_image
from vision_core.randomness import key

PARTS = {
    "source": ("source",),
    "val": ("val",),
    "search": ("search_adapt", "search_test"),
    "adapt": ("adapt",),
    "test": ("test",),
}
_MADE = "made.json"  # stands once a folder is whole
_RENDERED: dict[str, Shift] = {**REPORTED, **TUNING}


def make_scenes(folder: Path, protocol: dict[str, Any]) -> Path:
    """Write all scenes as a COCO folder, unless they are there; returns it.

    A list under a shift is called ``<shift>_<list>``.
    """
    made = folder / "scenes"
    if (made / _MADE).exists():
        return made
    check_packages(protocol["packages"])
    pools = divide(clothes(protocol["per_class"]), tuple(PARTS))
    for part, lists in PARTS.items():
        for name in lists:
            write_scenes(made, name, pools[part], CLOTHES_SCENES, count=protocol["scenes"][name])
    for shift, settings in protocol["shifts"].items():
        for name in ("adapt", "test"):
            if rendered := settings.get("rendered"):
                render(made, name, shift, _RENDERED[rendered])
                continue
            changed: dict[str, Any] = {each: tuple(value) for each, value in settings.items()}
            scenes = replace(CLOTHES_SCENES, **changed)
            write_scenes(made, f"{shift}_{name}", pools[name], scenes, count=protocol["scenes"][name])
    for shift in protocol["search_shifts"]:
        for name in PARTS["search"]:
            render(made, name, shift, _RENDERED[shift])
    (made / _MADE).write_text("{}\n", encoding="utf-8")
    return made


def render(folder: Path, name: str, called: str, shift: Shift) -> None:
    """Write the scenes of a list under a shift, each with a seed of its own, and the same boxes."""
    for path in list_images(folder / name):
        write_png(folder / f"{called}_{name}" / path.name, shift(read_image(path), key("shift", called, path.name)))
    (folder / f"{called}_{name}.json").write_bytes((folder / f"{name}.json").read_bytes())
