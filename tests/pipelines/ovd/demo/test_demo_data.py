"""Demo data: what is shipped, what training is shown, and that the sheet is what it says."""

import json
from pathlib import Path

import pytest

from pipelines.ovd.demo.demo_data import NOVEL, SHEET, Amount, make_demo_data
from vision_core.detection.cut_outs import CLOTHES, clothes_sheet


def test_sheet__is_small_and_holds_twenty_pieces_of_ten_classes() -> None:
    assert SHEET.stat().st_size < 300_000
    pool = clothes_sheet(SHEET, grounds=[])
    assert pool.classes == CLOTHES
    assert [len(pool.of_label(label)) for label in range(10)] == [20] * 10
    assert len({each.picture.tobytes() for each in pool.cut_outs}) == 200
    assert set(NOVEL) < set(CLOTHES)
    assert "Copyright (c) 2017 Zalando SE" in SHEET.with_name("clothes.LICENSE.txt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo_data__no_novel_box_in_training_and_attribution_is_written(tmp_path: Path) -> None:
    make_demo_data(tmp_path, Amount(images=6, crops=48, contrastive_steps=2, generator_steps=1, proposals=5))
    named = {}
    for split in ("train", "val"):
        index = json.loads((tmp_path / f"{split}.json").read_text())
        names = {each["id"]: each["name"] for each in index["categories"]}
        named[split] = {names[each["category_id"]] for each in index["annotations"]}
    assert not named["train"] & set(NOVEL)
    attribution = (tmp_path / "ATTRIBUTION.txt").read_text()
    assert "copyright 2017 Zalando SE" in attribution
    assert "licence MIT" in attribution
