"""The bundles that are shipped with the demo: sound, small, of one another, silent on words that they do not know."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.ovd.scenes.measures import Remembering
from benchmarks.ovd.scenes.tables import STUDY
from benchmarks.ovd.words import is_missed, measure
from benchmarks.repack_demos import CHECKPOINTS
from pipelines.ovd.__main__ import main
from pipelines.ovd.bundles import load_open_detector
from pipelines.ovd.config import ImageText
from pipelines.ovd.demo.demo_data import PARTS, SHEET
from pipelines.ovd.demo.examples import make_examples
from pipelines.ovd.image_text.compact import answer, load_compact
from pipelines.ovd.image_text.minilm import MiniLM
from pipelines.ovd.predict import OvdPredictor, WordDetector
from vision_core.assets import sentence_encoder
from vision_core.bundles import bundle
from vision_core.detection.cut_outs import clothes_sheet, divide
from vision_core.detection.scenes import CLOTHES_SCENES, write_scenes
from vision_core.files import sha256
from vision_core.images.reading import read_image

DEMO = CHECKPOINTS / "ovd-demo"


@pytest.fixture(scope="module")
def detector() -> WordDetector:
    return WordDetector.from_checkpoint(
        DEMO / "detector", ImageText(kind="compact", weights=DEMO / "image-text"), "cpu"
    )


def test_bundles__are_small_and_give_their_golden_answers() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 10_000_000
    card = bundle.read_card(DEMO / "detector")
    assert card.storage == "fp16" and card.trained_on.synthetic
    assert not Path(card.config["data"]["root"]).is_absolute()
    predictor = OvdPredictor.from_checkpoint(DEMO / "detector", "cpu")
    bundle.check_golden(bundle.load(DEMO / "detector"), predictor.answer)
    model = load_compact(DEMO / "image-text", MiniLM.read(sentence_encoder()))
    bundle.check_golden(bundle.load(DEMO / "image-text"), lambda inputs: answer(model, inputs))
    assert card.preprocessing["image_text"] == model.fingerprint()


def test_verify__the_image_text_model_answers_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(DEMO / "image-text", tmp_path / "model")
    assert main(["verify", str(folder)]) == 0
    assert "Golden pair: relative deviation" in capsys.readouterr().out
    weights = folder / "weights.safetensors"
    tensors = load_file(weights)
    tensors["text_projection.bias"] += 1  # as if this machine computed something else
    save_file(tensors, weights)
    hashes = bundle.read_card(folder).hashes
    bundle.amend(folder, hashes={**hashes, weights.name: sha256(weights)})
    assert main(["verify", str(folder)]) == 2
    assert "compute another output for" in capsys.readouterr().err


def test_words__of_the_training_are_near_and_others_far(detector: WordDetector) -> None:
    assert detector.look_for(", ".join(detector.card.classes)).far == ()
    assert detector.look_for("winter coat, giraffe, lung nodule, handbag").far == ("giraffe", "lung nodule")


def test_examples__the_first_finds_what_its_words_name(detector: WordDetector, tmp_path: Path) -> None:
    [first, *_] = make_examples(tmp_path)
    found = detector(read_image(first["path"]), detector.look_for(first["words"])).above(0.4)
    assert sorted(found.classes[label] for label in found.labels) == ["ankle boot", "coat"]


@pytest.mark.slow
def test_typed_names__few_boxes_where_they_are_not_and_scores_that_stay(tmp_path: Path) -> None:
    """At the default thresholds, on scenes of pieces that no model was trained on; with 5 of the 100 names added."""
    pool = divide(clothes_sheet(SHEET), PARTS)["val"]
    scenes = write_scenes(tmp_path, "val", pool, CLOTHES_SCENES, count=20).records
    model = load_compact(DEMO / "image-text", MiniLM.read(sentence_encoder()))
    others = STUDY.protocol()["drift"]["names"][::20]
    facts = measure(load_open_detector(DEMO / "detector"), Remembering(model), scenes, others)
    assert not is_missed(facts)
    assert facts["objects"]["each_class_mean"] < facts["background"]["each_class_mean"] < 0.98  # as it was before
