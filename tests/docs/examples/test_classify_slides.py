"""The example script, run as a person would."""

import json
from pathlib import Path

from tests.forked import run
from tests.pipelines.wsi.tiny import make_bundle, picture, write_pyramid

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "examples" / "classify_slides.py"


def test_classify_slides__one_bad_slide_never_stops_the_rest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "model")
    for number in range(2):
        write_pyramid(tmp_path / "slides" / f"s{number}.tif", picture(number, side_px=256))
    (tmp_path / "slides" / "bad.svs").write_text("no slide")
    out, err = run([str(SCRIPT), str(bundle), str(tmp_path / "slides"), str(tmp_path / "results")])
    assert [line.split("\t")[0] for line in out.splitlines() if "\t" in line] == ["s0.tif", "s1.tif"]
    assert err.startswith("bad.svs\tfailed\t")
    record = json.loads((tmp_path / "results" / "s1.json").read_text())
    assert record["category"] in {"normal", "tumour"}


def test_classify_slides__has_about_fifteen_lines() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 20
