"""Names of the training and typed names: rivals, thresholds, and what a person is told."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipelines.ovd.bundles import load_open_detector
from pipelines.ovd.config import OvdConfig
from pipelines.ovd.detector import join_rivals
from pipelines.ovd.image_text.vocabulary import Vocabulary, parse_names
from pipelines.ovd.predict import (
    OvdPredictor,
    Typed,
    WordDetector,
    _meant,
    background_thresholds,
    embed_names,
    far_names,
    type_names,
)
from tests.pipelines.ovd.loops import CLASSES, EMBEDDINGS
from tests.pipelines.ovd.table import TableModel
from tests.pipelines.ovd.test_bundles import make_bundle, without_objects
from vision_core.bundles.bundle import check_golden
from vision_core.bundles.bundle import load as load_bundle
from vision_core.commands.parser import parse
from vision_core.config.loading import load
from vision_core.errors import CheckpointError, ConfigError, UsageError
from vision_core.images.drawing import write_png

CPU = torch.device("cpu")
NOBODY = Vocabulary(names=(), synonyms=())
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


class _Reader(TableModel):
    """Reads plain names in a space of its own, where all but 'lamp' are alike, and a wheel is a ring."""

    def read_names(self, names: Sequence[str]) -> torch.Tensor | None:
        rows = {"lamp": [0.0, 1.0, 0.0], "ring": [0.8, 0.0, 0.6], "wheel": [0.8, 0.0, 0.6]}
        return torch.tensor([rows.get(name, [1.0, 0.0, 0.0]) for name in names])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("ovd") / "model")


def test_rivals__what_they_win_counts_as_background() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0]])
    joined = join_rivals(logits, 2).softmax(dim=1)
    whole = logits.softmax(dim=1)
    torch.testing.assert_close(joined[:, :2], whole[:, :2])
    torch.testing.assert_close(joined[:, 2], whole[:, 2:].sum(dim=1))


def test_predict__names_of_the_training(bundle: Path) -> None:
    found = OvdPredictor.from_checkpoint(bundle, "cpu")(IMAGE)
    assert found.classes == CLASSES
    assert len(found) > 0
    assert found.notes == ()


@pytest.mark.parametrize("is_open", [True, False])
def test_predict__a_subset_of_trained_names_scores_as_before_when_the_others_compete(
    is_open: bool, bundle: Path
) -> None:
    whole = OvdPredictor.from_checkpoint(bundle, "cpu")(IMAGE)
    label = int(np.bincount(whole.labels).argmax())
    others = [number for number in range(4) if number != label]
    typed = Typed(
        names=(CLASSES[label],),
        embeddings=EMBEDDINGS[[label]],
        rivals=EMBEDDINGS[others if is_open else []],
        thresholds=torch.zeros(1),
        notes=("so",),
    )
    found = OvdPredictor(load_open_detector(bundle), CPU, typed=typed)(IMAGE)
    before = whole.scores[whole.labels == label]
    assert found.classes == (CLASSES[label],)
    assert found.notes == ("so",)
    if is_open:
        np.testing.assert_allclose(found.scores, before, atol=1e-5)
    else:
        assert found.scores.max() > before.max()


def test_answer__is_that_of_the_training_whatever_is_looked_for(bundle: Path) -> None:
    """``predict`` and ``evaluate`` compare it with the golden pair before they begin."""
    typed = Typed(
        names=("lamp",), embeddings=EMBEDDINGS[[3]], rivals=EMBEDDINGS[:3], thresholds=torch.full((1,), 0.1), notes=()
    )
    predictor = OvdPredictor(load_open_detector(bundle), CPU, typed=typed)
    before = predictor(IMAGE)
    assert check_golden(load_bundle(bundle, "ovd"), predictor.answer) < 1e-5
    after = predictor(IMAGE)
    assert after.classes == ("lamp",)
    np.testing.assert_array_equal(after.scores, before.scores)


def test_predict__scores_at_or_below_a_names_threshold_are_left_out(bundle: Path) -> None:
    def typed(thresholds: torch.Tensor) -> Typed:
        return Typed(names=CLASSES, embeddings=EMBEDDINGS, rivals=EMBEDDINGS[:0], thresholds=thresholds, notes=())

    whole = OvdPredictor(load_open_detector(bundle), CPU, typed=typed(torch.zeros(4)))(IMAGE)
    label = int(np.bincount(whole.labels).argmax())
    limit = float(np.median(whole.scores[whole.labels == label]))
    thresholds = torch.ones(4)
    thresholds[label] = limit
    found = OvdPredictor(load_open_detector(bundle), CPU, typed=typed(thresholds))(IMAGE)
    assert set(found.labels.tolist()) == {label}
    expected = [score for score in whole.scores[whole.labels == label].tolist() if score > limit]
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


def test_thresholds__quantile_of_the_scores_on_background(bundle: Path) -> None:
    content = load_open_detector(bundle)
    found = background_thresholds(content, EMBEDDINGS[:2], EMBEDDINGS[2:])
    whole = (content.regions.background @ EMBEDDINGS.T).float()
    probabilities = torch.cat([whole, torch.zeros(20, 1)], dim=1).softmax(dim=1)
    expected = np.quantile(probabilities[:, :2].numpy(), 0.995, axis=0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    torch.testing.assert_close(content.detector.classifier.embeddings, EMBEDDINGS)


def test_thresholds__on_objects_of_other_classes_too(bundle: Path, tmp_path: Path) -> None:
    """'Disc' is a class, 'lamp' resembles none, 'wheel' the rings most: their own objects do not count against them."""
    content, model = load_open_detector(bundle), _Reader(embed_dim=8)
    words = parse_names("Disc, lamp, wheel"), NOBODY
    plain, strict = (embed_names(content, model, words, is_open=True, on_objects=each) for each in (False, True))
    regions = content.regions
    matrix = torch.cat([strict.embeddings, strict.rivals, torch.zeros(1, 8)])
    scores = (regions.objects @ matrix.T).softmax(dim=1)[:, :3]
    rows = [regions.labels != 0, regions.labels >= 0, regions.labels != 2]
    for name, kept in enumerate(rows):
        on_objects = np.quantile(scores[kept, name].numpy(), 0.995)
        expected = max(float(on_objects), float(plain.thresholds[name]))
        assert float(strict.thresholds[name]) == pytest.approx(expected, abs=1e-5)
    assert bool((strict.thresholds > plain.thresholds).any())
    older = load_open_detector(without_objects(shutil.copytree(bundle, tmp_path / "older")))
    assert len(embed_names(older, model, words, is_open=True).thresholds) == 3
    with pytest.raises(ConfigError, match=r"predict\.threshold_on: this bundle stores no labelled objects"):
        embed_names(older, model, words, is_open=True, on_objects=True)


def test_meant__brackets_count_where_both_have_some() -> None:
    classes = ("bow_(ribbon)", "bow_(weapon)", "mug", "coffee/tea")
    names = parse_names("Bow, bow (weapon), mug (cup), coffee or tea, lamp")
    expected = [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert _meant(names, classes).int().tolist() == expected


def test_embed__rivals_are_the_trained_names_that_are_not_typed(bundle: Path) -> None:
    content, model = load_open_detector(bundle), TableModel(embed_dim=8)
    words = parse_names("Square, lamp"), parse_names("shadow")
    typed = embed_names(content, model, words, is_open=True)
    assert typed.names == ("Square", "lamp")
    torch.testing.assert_close(typed.rivals[:3], EMBEDDINGS[[0, 2, 3]])
    assert len(typed.rivals) == 4
    assert len(embed_names(content, model, words, is_open=False).rivals) == 1
    assert len(embed_names(content, model, (words[0], NOBODY), is_open=False).rivals) == 0


@pytest.mark.parametrize("names", [1, 500])
def test_predict__any_size_and_nothing_to_see(names: int, bundle: Path) -> None:
    content = load_open_detector(bundle)
    vocabulary = Vocabulary.of_classes([f"thing {number}" for number in range(names)])
    typed = embed_names(content, TableModel(embed_dim=8), (vocabulary, NOBODY), is_open=True)
    predictor = OvdPredictor(content, CPU, typed=typed)
    for height, width in ((1, 1), (3, 200), (150, 40), (131, 97)):
        found = predictor(np.full((height, width, 3), 127, np.uint8))
        assert found.image_size == (height, width) and len(found.classes) == names
        assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
        assert (found.scores > typed.thresholds.numpy()[found.labels] - 1e-6).all()
        assert names == 1 or any(note.startswith("504 names on ") and "GB of memory" in note for note in found.notes)


def test_embed__strange_names_are_told_by_the_space_that_the_model_reads_names_in(bundle: Path) -> None:
    content = load_open_detector(bundle)
    typed = embed_names(content, _Reader(embed_dim=8), (parse_names("box, lamp"), NOBODY), is_open=True)
    assert typed.far == ("lamp",)
    assert any("has not learned words like 'lamp'; what it finds" in note for note in typed.notes)


def test_embed__a_name_is_not_strange_where_a_synonym_is_a_trained_one(bundle: Path) -> None:
    words = Vocabulary(names=("lamp",), synonyms=(("lamp", "Ring"),)), NOBODY
    assert embed_names(load_open_detector(bundle), _Reader(embed_dim=8), words, is_open=True).far == ()


def test_embed__a_trained_name_that_is_not_wanted_competes_once(bundle: Path) -> None:
    content, model = load_open_detector(bundle), TableModel(embed_dim=8)
    typed, unwanted = parse_names("square"), parse_names("Disc, shadow")
    plain = embed_names(content, model, (typed, NOBODY), is_open=True)
    found = embed_names(content, model, (typed, unwanted), is_open=True)
    assert len(found.rivals) == len(plain.rivals) + 1
    torch.testing.assert_close(found.rivals[: len(plain.rivals)], plain.rivals)
    assert len(embed_names(content, model, (typed, unwanted), is_open=False).rivals) == 2


def test_words__one_detector_is_asked_for_others_time_after_time(bundle: Path) -> None:
    content = load_open_detector(bundle)
    card = content.card.model_copy(update={"preprocessing": {**content.card.preprocessing, "image_text": ""}})
    detector = WordDetector(replace(content, card=card), TableModel(embed_dim=8), CPU)
    first = detector(IMAGE, detector.look_for("square, lamp", "shadow"))
    assert first.classes == ("square", "lamp")
    own = detector.look_for(" ")
    assert own.names == CLASSES and not len(own.rivals)
    torch.testing.assert_close(own.embeddings, EMBEDDINGS)  # of the training, whatever was asked for before
    whole = OvdPredictor.from_checkpoint(bundle, "cpu")(IMAGE)
    kept = whole.scores > own.thresholds.numpy()[whole.labels]
    np.testing.assert_allclose(detector(IMAGE, own).scores, whole.scores[kept], atol=1e-6)
    again = detector(IMAGE, detector.look_for("square, lamp", "shadow"))
    np.testing.assert_array_equal(again.scores, first.scores)
    with pytest.raises(ConfigError, match="Name both"):
        detector.look_for("", "shadow")


def test_words__of_another_image_text_model_are_refused(bundle: Path) -> None:
    with pytest.raises(CheckpointError, match="another image–text model"):
        WordDetector(load_open_detector(bundle), TableModel(embed_dim=8), CPU)


def test_far__names_that_resemble_no_trained_one() -> None:
    trained = functional.normalize(torch.tensor([[1.0, 0.2, 0], [1, 0, 0.2], [0.2, 1, 0]]), dim=1)
    typed = functional.normalize(torch.tensor([[1.0, 0.1, 0.1], [0, 0, 1]]), dim=1)
    assert far_names(("near", "far"), typed, trained) == ("far",)
    assert far_names(("near",), typed[:1], trained) == ()
    assert far_names(("far",), typed[1:], trained[:1]) == ()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict.classes=a", "predict.classes_file=b.txt"], "both given"),
        (["predict.negatives=a"], "predict.classes is empty"),
        (['predict.classes=" , "'], "no name to detect"),
        (['predict.classes=""'], "no name to detect"),  # as an unset variable behind --classes gives it
        (['predict.classes=""', "predict.classes_file=b.txt"], "both given"),
        (["predict.classes=a"], "image_text.weights is empty"),
        (['predict.classes="a, Lamp"', "predict.negatives=lamp"], "'lamp' is to be detected, and is among"),
        (["predict.classes_file={folder}/names.txt", "predict.negatives=night_light"], "'night light' is to be"),
    ],
)
def test_type__refused(words: list[str], told: str, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nlamp, Night light\n")
    words = [word.replace("{folder}", str(tmp_path)) for word in words]
    with pytest.raises(ConfigError, match=told):
        type_names(load_open_detector(bundle), load(OvdConfig, None, words))


def test_type__nothing_typed_and_another_model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = load_open_detector(bundle)
    assert type_names(content, OvdConfig()) is None
    monkeypatch.setattr("pipelines.ovd.predict.load_image_text", lambda settings: TableModel(embed_dim=8))
    with pytest.raises(CheckpointError, match="another image–text model"):
        type_names(content, load(OvdConfig, None, ["predict.classes=a"]))


def test_options__stand_for_keys_and_are_text() -> None:
    given = ["predict", "--checkpoint=m", "--input=i", "--classes", "on, folding chair", "predict.vocabulary=closed"]
    arguments = parse(OvdConfig, [*given, "--out=o", "--not", "1"])
    settings = load(OvdConfig, None, arguments.words).predict
    assert (settings.classes, settings.negatives, settings.vocabulary) == ("on, folding chair", "1", "closed")
    with pytest.raises(UsageError, match="does not take '--classes=a'"):
        parse(OvdConfig, ["evaluate", "--checkpoint=m", "--classes=a"])


def test_write__files_of_a_result(bundle: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "image.png", IMAGE)
    predictor = OvdPredictor.from_checkpoint(bundle, "cpu")
    written = predictor.write(predictor(tmp_path / "image.png"), tmp_path / "image.png", tmp_path / "out")
    assert {path.suffix for path in written} == {".json", ".png", ".jpg"}
