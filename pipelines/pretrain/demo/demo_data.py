"""Demo data: the small set of real images, reduced so that the demo takes minutes, offline."""

from pathlib import Path

from pipelines.pretrain.demo.small_real import HELD_OUT, NOTICE, make_small_real

SIZE_PX = 96


def make_demo_data(folder: Path, size_px: int = SIZE_PX) -> str:
    """Write the demo's images as ``<part>/<class>/<number>.png``; returns a description.

    Args:
        folder: Output folder; held-out classes lie below its ``held_out/``.
        size_px: Longer side of an image at most.
    """
    counts = make_small_real(folder, size_px)
    return (
        f"Demo data: {sum(counts.values())} slices and blocks of real CT, MR, ultrasound, histology and retina files, "
        f"{len(counts)} classes of which {len(HELD_OUT)} are held out ({NOTICE}); sources in ATTRIBUTION.txt."
    )
