import csv
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from apps.cases import Example
from apps.mask_explorer.app import build
from apps.mask_explorer.explorer import NUM_SAMPLES, Exploration, MaskExplorer
from apps.mask_explorer.handlers import Case, Display, Viewer
from apps.mask_explorer.wording import describe, describe_mask, numbers_table, region_name, result_csv
from pipelines.pretrain.config import PretrainConfig
from pipelines.pretrain.noise_mask.policy import NoisePolicy
from pipelines.pretrain.predict import PolicyPredictor, PretrainPredictor
from pipelines.pretrain.weights.bundles import describe_classifier, save_classifier, save_policy
from tests.apps.stand_in import alt, commands, copied, downloads, pictures, unsaid
from tests.bad_inputs import dicoms
from vision_core.backbones.networks import build_backbone
from vision_core.bundles.card import Card, TrainedOn
from vision_core.dicom.reader import read_dicom_image
from vision_core.errors import CheckpointError, InputError
from vision_core.images.drawing import write_png
from vision_core.images.reading import read_image
from vision_core.images.untrusted import UntrustedImages
from vision_core.results import RESEARCH_NOTICE, ClassScores

PIXELS = 32
CLASSES = ("bright", "<b>dark</b>", "=striped")


def config(**more: Any) -> PretrainConfig:  # noqa: ANN401
    data = {"image_px": PIXELS, "resize_px": PIXELS}
    mask = {"grid": 8, "kernel": 5, "sigma": 2}
    return PretrainConfig.model_validate({"policy": "reinforce", "data": data, "mask": mask, **more})


def card(*, synthetic: bool = False, classes: tuple[str, ...] = CLASSES) -> Card:
    trained_on = TrainedOn(description="textures", synthetic=synthetic)
    return Card(task="pretrain", method="finetune", config={}, architecture={}, preprocessing={}, classes=classes,
                trained_on=trained_on)  # fmt: skip


def write_run(run: Path, *, synthetic: bool = False, settings: PretrainConfig | None = None) -> Path:
    """A classifier and a policy of random weights, as a run leaves them."""
    settings = settings or config()
    torch.manual_seed(0)
    given = card(synthetic=synthetic)
    described = describe_classifier(given, "resnet10t", config().data)
    save_classifier(run / "model", build_backbone("resnet10t", len(CLASSES)), described)
    policy = NoisePolicy(settings.mask.grid, settings.policy_input)
    with torch.no_grad():  # the upper left is hidden most: there alpha is small beside beta
        policy.bases.log_alpha.view(settings.mask.grid, -1)[:3, :3] = -2.0
    save_policy(run / "policy", policy, settings, given)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def explorer(run: Path) -> MaskExplorer:
    return MaskExplorer.from_checkpoints(run / "model", run / "policy")


@pytest.fixture(scope="module")
def reader() -> UntrustedImages:
    return UntrustedImages()  # its child processes take a second to start


@pytest.fixture
def viewer(explorer: MaskExplorer, reader: UntrustedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Viewer:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    return Viewer(explorer=explorer, remarks=("same-subject: an illustration",), reader=reader)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """A file as Gradio keeps it: in a folder of its own."""
    path = tmp_path / "session" / "0123" / "a.png"
    write_png(path, pixels())
    return path


def pixels(height: int = 50, width: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def exploration(hidden: float = 0.5, scores: list[list[float]] | None = None) -> Exploration:
    rows = [[0.7, 0.2, 0.1]] * 5 if scores is None else scores
    said = [
        ClassScores(scores=np.array(row, np.float32), classes=CLASSES, image_size=(9, 9), model="pretrain/a/1")
        for row in rows
    ]
    return Exploration(
        view=np.zeros((9, 9, 3), np.uint8),
        masks=np.full((4, 9, 9), 1 - hidden, np.float32),
        masked=np.zeros((4, 9, 9, 3), np.uint8),
        scores=tuple(said),
        seeds=(7, 8, 9),
        image_size=(9, 9),
        model="pretrain/a/1, pretrain/policy/2",
    )


def test_explorer__clean_scores_are_those_of_the_predictor(explorer: MaskExplorer, run: Path) -> None:
    found = explorer(pixels())
    expected = PretrainPredictor.from_checkpoint(run / "model")(pixels())
    np.testing.assert_allclose(found.scores[0].scores, expected.scores, atol=1e-5)
    assert (found.scores[0].image_size, found.scores[0].model) == ((50, 40), expected.model)


def test_explorer__masks_are_those_that_the_policy_draws(explorer: MaskExplorer, run: Path) -> None:
    found, reader = explorer(pixels(), 5), PolicyPredictor.from_checkpoint(run / "policy")
    sheet = reader(pixels(), seed=6)  # view, mean mask, under it, under the sample, 4 pixels apart
    panels = [sheet[:, at : at + PIXELS] for at in range(0, sheet.shape[1], PIXELS + 4)]
    np.testing.assert_array_equal(panels[0], found.view)
    np.testing.assert_array_equal(panels[1][..., 0], np.rint(found.masks[0] * 255))
    np.testing.assert_array_equal(panels[2], found.masked[0])
    np.testing.assert_array_equal(panels[3], found.masked[2])  # the second sample of those from seed 5 on


def test_explorer__masked_scores_are_of_the_masked_image(explorer: MaskExplorer, run: Path) -> None:
    found = explorer(pixels())
    under = PretrainPredictor.from_checkpoint(run / "model")
    for image, scores in zip(found.masked, found.scores[1:], strict=True):
        np.testing.assert_allclose(scores.scores, under(image).scores, atol=0.02)  # the image was rounded to bytes
    assert not np.allclose(found.scores[0].scores, found.scores[1].scores, atol=1e-3)


def test_explorer__seeds_alone_decide_the_samples(explorer: MaskExplorer) -> None:
    first, again, other = explorer(pixels(), 3), explorer(pixels(), 3), explorer(pixels(), 4)
    np.testing.assert_array_equal(first.masks, again.masks)
    np.testing.assert_array_equal(first.masks[0], other.masks[0])
    np.testing.assert_array_equal(first.masks[2:], other.masks[1:3])  # seeds 4 and 5
    assert not np.array_equal(first.masks[1], first.masks[2])
    resampled = explorer.resample(first, 4)
    np.testing.assert_array_equal(resampled.masks, other.masks)
    assert resampled.image_size == (50, 40)


def test_explorer__the_part_seen_is_where_the_view_was_cut_from(explorer: MaskExplorer) -> None:
    image = np.zeros((96, 64, 3), np.uint8)
    left, top, width, height = explorer.seen_part((96, 64))
    image[round(96 * top) : round(96 * (top + height)), round(64 * left) : round(64 * (left + width))] = 255
    assert explorer(image, 0).view[1:-1].min() == 255 and image.mean() == pytest.approx(255 * 64 / 96)
    assert explorer(255 - image, 0).view[1:-1].max() == 0


def test_explorer__networks_that_see_images_differently_are_refused(run: Path, tmp_path: Path) -> None:
    settings = config(data={"image_px": 16, "resize_px": 16})
    other = write_run(tmp_path, settings=settings)
    with pytest.raises(CheckpointError, match=r"resize_px '32' and '16', input_px '32' and '16'\. Give the folders"):
        MaskExplorer.from_checkpoints(run / "model", other / "policy")
    with pytest.raises(CheckpointError, match="no policy"):
        MaskExplorer.from_checkpoints(run / "model", run / "model")


def test_upload__picture_words_table_and_files(viewer: Viewer, upload: Path, tmp_path: Path) -> None:
    case, figure, words, details, files = viewer.upload(str(upload), Display())
    assert words.startswith("Called &#x27;") and "most at the upper left." in words and "a.png." in words
    assert "most at the upper left" in alt(figure) and 'tabindex="0"' in figure
    assert "<b>dark" not in words + details and "&lt;b&gt;dark&lt;/b&gt;" in details
    day = datetime.date.today().isoformat()
    names = [f"masks-{day}-{case.files.digits}{ending}" for ending in (".csv", ".json", ".png")]
    assert [path.name for path in downloads(files)] == names
    assert isinstance(case, Case) and case.files.uploaded == upload
    session = tmp_path / "session"
    assert all(path.is_relative_to(session) for path in (*pictures(figure).values(), *downloads(files)))


def test_upload__every_file_carries_notice_remark_hash_and_models(viewer: Viewer, upload: Path) -> None:
    case, *_, files = viewer.upload(str(upload), Display(first_seed=5))
    by_name = {path.suffix: path for path in downloads(files)}
    record = json.loads(by_name[".json"].read_text())
    assert (record["notice"], record["remarks"]) == (RESEARCH_NOTICE, ["same-subject: an illustration"])
    assert record["input_sha256"] == hashlib.sha256(upload.read_bytes()).hexdigest()[:8]
    assert unsaid(files, case.files.digits, case.found.model) == []
    assert unsaid(files, "a.png") == ["png"]  # a picture names no file
    assert [mask["mask"] for mask in record["masks"]] == ["mean mask", "seed 5", "seed 6", "seed 7"]
    assert set(record["clean"]["scores"]) == set(CLASSES) and record["model"] == case.found.model
    rows = list(csv.DictReader(by_name[".csv"].open(encoding="utf-8")))
    assert [row["under"] for row in rows] == ["clean image", "mean mask", "seed 5", "seed 6", "seed 7"]
    assert {row["notice"] for row in rows} == {RESEARCH_NOTICE}
    assert {(row["image"], row["series"], row["input_sha256"]) for row in rows} == {("a.png", "", case.files.digits)}
    sheet = read_image(by_name[".png"])
    columns = sheet[: 192 * 2 + 28]  # the strip with the notice is below
    assert sheet.shape[0] > columns.shape[0] + 40
    np.testing.assert_array_equal(columns[-192::6, :192:6], case.found.view)


def test_show__the_image_bit_for_bit_under_the_colours_of_the_mask(viewer: Viewer, upload: Path) -> None:
    case = viewer.upload(str(upload), Display())[0]
    mean, sample, sheet = (pictures(viewer.show(case, Display(which=which))[0]) for which in (0, 2, 4))
    np.testing.assert_array_equal(read_image(mean["base"]), read_image(upload))
    order = np.argsort(case.found.hidden(0), axis=None)
    colours = read_image(mean["layer 1"])
    lightness = colours.astype(int).sum(axis=2).ravel()[order]  # viridis grows lighter
    assert lightness[-1] > lightness[0] + 200
    assert not np.array_equal(colours, read_image(sample["layer 1"]))
    assert list(sheet) == ["base"] and read_image(sheet["base"]).shape[1] > 900


def test_resample__other_masks_on_the_same_image(viewer: Viewer, upload: Path) -> None:
    case, figure, *_ = viewer.upload(str(upload), Display())
    other, again, words, _, files = viewer.resample(case, Display(first_seed=30))
    assert other.found.seeds == (30, 31, 32) and other.files == case.files
    np.testing.assert_array_equal(other.found.view, case.found.view)
    assert "seed 31" in downloads(files)[0].read_text() and "Called" in words
    assert pictures(figure)["layer 1"] != pictures(again)["layer 1"]  # a browser keeps what it knows by its name


def test_without_a_case__controls_leave_the_page_blank(viewer: Viewer) -> None:
    assert "Give an image" in viewer.show(None, Display())[0]
    for shown in (viewer.resample(None, Display()), viewer.upload(None, Display())):
        assert shown[0] is None and "Give an image" in shown[1] and shown[-1] == ""


def test_upload__cleared_means_gone(viewer: Viewer, upload: Path, tmp_path: Path) -> None:
    case = viewer.upload(str(upload), Display())[0]
    viewer.upload(None, Display(), case)
    assert not files_of(tmp_path / "session") and not upload.parent.exists()
    assert "Give an image" in viewer.show(case, Display())[0]  # a click that was on its way
    assert viewer.resample(case, Display(first_seed=9))[0] is None
    assert not files_of(tmp_path / "session")


def test_upload__another_image_takes_the_place_of_the_one_before(viewer: Viewer, upload: Path, tmp_path: Path) -> None:
    case = viewer.upload(str(upload), Display())[0]
    example = Example(name="noise", path=tmp_path / "noise.png", origin="made")
    write_png(example.path, pixels(60, 60))
    other = viewer.take(example, Display(), case)[0]
    assert not case.files.folder.exists() and not upload.exists() and other.files.folder.exists()
    viewer.forget(other)
    assert example.path.exists() and not files_of(tmp_path / "session")


def test_upload__two_sessions_do_not_share_files(viewer: Viewer, upload: Path) -> None:
    first, second = (viewer.upload(str(upload), Display())[0] for _ in range(2))
    assert first.files.folder != second.files.folder and len(first.files.folder.name) > 32
    viewer.forget(first)
    assert files_of(second.files.folder)


def test_upload__dicom_without_a_suffix_as_a_viewer_shows_it(viewer: Viewer, upload: Path) -> None:
    ramp = np.tile(np.arange(4096, dtype=np.uint16)[::64], (64, 1))  # twelve bits
    path = dicoms.still(upload.with_name("IM0001"), ramp, BitsStored=12, HighBit=11)
    case = viewer.upload(str(path), Display())[0]
    whole = read_dicom_image(path)
    assert len(np.unique(whole)) == 64  # nothing is saturated
    np.testing.assert_array_equal(case.found.view, viewer.explorer(whole, 0).view)
    assert dicoms.PERSON not in "".join(file.read_text() for file in case.files.folder.rglob("*.json"))


def test_take__the_sheet_of_masks_has_the_scale_of_its_panels(viewer: Viewer, upload: Path) -> None:
    image = np.zeros((96, 64), np.uint8)
    image[40] = 200
    path = dicoms.still(upload.with_name("a.dcm"), image, PixelSpacing=[0.5, 0.5])
    given = Example(name="Slice", path=path, origin="made")
    [figure] = viewer.show(viewer.take(given, Display())[0], Display(which=NUM_SAMPLES + 1))
    # 64 pixels of 0.5 mm are a view of 32 pixels, and 6 times as many on the sheet.
    assert f'data-um="{64 * 500 / (32 * 6):.9g}"' in figure


def test_upload__first_frame_of_many_is_told(viewer: Viewer, upload: Path) -> None:
    frames = np.stack([np.full((32, 32), 40 * number, np.uint8) for number in range(3)])
    path = dicoms.still(upload.with_name("loop.dcm"), frames, NumberOfFrames=3)
    case, _, status, *_ = viewer.upload(str(path), Display())
    assert "The file holds 3 frames; the first is used." in status
    assert case.found.view.max() == 0


@pytest.mark.parametrize(
    "content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 128 + b"DICM", b"\x89PNG"]
)
@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a"])
def test_upload__what_is_no_image_is_told_and_deleted(name: str, content: bytes, viewer: Viewer, upload: Path) -> None:
    path = upload.with_name(name)
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}'"):
        viewer.upload(str(path), Display())
    assert not path.exists()
    assert not [path for path in files_of(upload.parent.parent) if path != upload]


def test_take__a_model_of_made_images_calls_its_examples_and_nothing_else(
    tmp_path: Path, upload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    run = write_run(tmp_path / "run", synthetic=True)
    viewer = Viewer(explorer=MaskExplorer.from_checkpoints(run / "model", run / "policy"))
    own = Example(name="mine", path=upload, origin="made")
    assert viewer.take(own, Display())[0].found.scores
    case, _, words, details, _ = viewer.upload(str(upload), Display())
    assert words.startswith("Nothing is called") and "<table" not in details and "hides" in words
    resampled = viewer.resample(case, Display(first_seed=9))
    for text in (words, details, *resampled[1:4], *(path.read_text() for path in downloads(resampled[-1])[:2])):
        assert not any(name in text for name in CLASSES)


def test_describe__what_changes_under_masks() -> None:
    clean, other = [0.7, 0.2, 0.1], [0.1, 0.2, 0.7]
    assert describe(exploration(scores=[clean, clean, other, clean, other])) == [
        "Called 'bright' as it is.",
        "Under the mean mask still called 'bright'. Under the 3 sampled masks called '=striped' (twice), called "
        "'bright' (once).",
        "The mean mask hides 50 % of the contrast everywhere. The sampled masks hide 50 to 50 %.",
    ]


def test_describe_mask__where_in_words() -> None:
    hidden = np.zeros((9, 9), np.float32)
    for rows, columns, name in (
        ((0, 3), (6, 9), "upper right"),
        ((3, 6), (3, 6), "centre"),
        ((6, 9), (3, 6), "lower middle"),
    ):
        there = hidden.copy()
        there[slice(*rows), slice(*columns)] = 1
        assert region_name(there) == name
    assert describe_mask(exploration(0.25), 2) == "The mask of seed 8 hides 25 % of the contrast everywhere."


def test_result_csv__cells_that_are_formulas_are_quoted() -> None:
    rows = list(csv.reader(result_csv({"image": "=cmd|' /C calc'!A0"}, exploration()).splitlines()))
    assert rows[1][0].startswith("'=cmd") and all(not cell.startswith("=") for row in rows for cell in row)
    assert [row[1] for row in rows[1:]] == ["clean image", "mean mask", "seed 7", "seed 8", "seed 9"]


def test_numbers_table__many_classes_show_the_highest_alone() -> None:
    classes = tuple(f"class {number}" for number in range(40))
    scores = np.zeros(40, np.float32)
    scores[30:] = 0.1
    said = ClassScores(scores=scores, classes=classes, image_size=(9, 9))
    many = exploration()
    many = Exploration(**{**vars(many), "scores": (said,) * 5})
    text = numbers_table(many)
    assert text.count("<tr>") == 1 + 3 and "class 30<" in text and "the files list 37 more classes" in text


def test_build__private_events_and_notices(
    explorer: MaskExplorer, upload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    page = build(explorer, [Example(name="noise", path=upload, origin="made")], ["same-subject: an illustration"])
    assert {event.api_visibility for event in page.fns.values()} == {"private"}
    said = " ".join(str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML))
    assert RESEARCH_NOTICE in said and "same-subject: an illustration" in said and "no guard of its scope" in said
    assert "fine-tuned on clean images" in said and "only seen made images" not in said
    assert page.analytics_enabled is False
    assert copied(page) == []
    assert commands(page) == []
