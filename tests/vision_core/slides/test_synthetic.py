from pathlib import Path

import numpy as np

from vision_core.slides.reading.slide import open_slide
from vision_core.slides.synthetic import SyntheticSlide, write_synthetic_slide


def test_write_synthetic_slide__a_pyramid_as_aperio_writes_them(tmp_path: Path) -> None:
    made = SyntheticSlide(width=700, height=500, mpp=0.25, tissue=0.4)
    with open_slide(write_synthetic_slide(tmp_path / "a.svs", made)) as slide:
        assert slide.size == (500, 700) and slide.mpp == 0.25 and slide.objective == 40 and slide.notes == ()
        assert slide.is_fast and [level.width for level in slide.levels] == [700, 350, 175]
        pixels = slide.read(0, 0, 0, 700, 500)
    is_glass = pixels.min(axis=2) > 225
    assert abs((~is_glass).mean() - 0.4) < 0.08
    assert made.has_tissue(350, 250) and not made.has_tissue(10, 10)
    assert is_glass[:20, :20].all() and not is_glass[240:260, 340:360].all()


def test_write_synthetic_slide__same_seed_same_bytes(tmp_path: Path) -> None:
    made = SyntheticSlide(width=300, height=200, is_aperio=False)
    first, second = (write_synthetic_slide(tmp_path / name, made).read_bytes() for name in ("a.tif", "b.tif"))
    assert first == second
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.mpp == 0.5
        assert not np.array_equal(slide.read(0, 100, 50, 40, 40), slide.read(0, 140, 90, 40, 40))
