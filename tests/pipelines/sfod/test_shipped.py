"""The detectors that are shipped with the demo: sound, and from where their cards say."""

import pytest

from benchmarks.repack_demos import CHECKPOINTS
from pipelines.sfod.predict import SfodPredictor
from vision_core.bundles import bundle


@pytest.mark.parametrize("name", ["sfod-source", "sfod-night", "sfod-fog"])
def test_bundle__is_sound_and_says_what_it_is(name: str) -> None:
    folder = CHECKPOINTS / name
    card = bundle.read_card(folder)
    assert (card.storage, card.classes) == ("fp16", ("Tree",))
    is_source = name == "sfod-source"
    assert (card.method, card.parent is None) == ("source" if is_source else "lpld", is_source)
    assert card.trained_on.description.endswith("with its labels" if is_source else "without labels")
    bundle.check_golden(bundle.load(folder), SfodPredictor.from_checkpoint(folder, "cpu").answer)
