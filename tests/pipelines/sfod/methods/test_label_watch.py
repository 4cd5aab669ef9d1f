"""Windows of images without a pseudo label: who is warned, who is stopped, and with what advice."""

import pytest
import torch

from pipelines.sfod.methods.label_watch import LabelWatch, counts_of
from vision_core.errors import TrainingError

NONE, SOME = (0.0, 0.148), (1.0, 0.9)


def run(watch: LabelWatch, steps: int, found: tuple[float, float], first: int = 0, images: int = 1) -> LabelWatch:
    """So many steps with this number of images with a pseudo label, and this highest score."""
    for step in range(first, first + steps):
        watch.count(torch.tensor([[images, *found]]), step)
    return watch


def test_count__nothing_in_the_first_steps_is_an_alarm_with_score_and_threshold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = run(LabelWatch(0.7), 19, NONE)
    assert capsys.readouterr().out == ""
    run(watch, 1, NONE, first=19)
    told = capsys.readouterr().out
    assert "ALARM: pseudo_labels.threshold 0.7 is too high: no detection passed it on the first 20 images" in told
    assert "the highest score was 0.148" in told
    run(watch, 40, NONE, first=20)
    assert capsys.readouterr().out == ""  # said once


@pytest.mark.parametrize(("images", "steps"), [(1, 200), (2, 100), (7, 40)])
def test_count__two_hundred_images_without_any_stop(images: int, steps: int) -> None:
    watch = run(LabelWatch(0.7), steps - 1, NONE, images=images)
    with pytest.raises(TrainingError, match="on_nothing=continue goes on"):
        run(watch, 1, NONE, first=steps - 1, images=images)


@pytest.mark.parametrize("end", ["epoch", "run"])
def test_end__of_a_short_run_without_any_stops_it(end: str) -> None:
    watch = run(LabelWatch(0.7), 40, NONE)
    with pytest.raises(TrainingError, match=r"0\.7 is too high: .* first 40 images, the highest score was 0\.148"):
        watch.end_epoch(1) if end == "epoch" else watch.conclude()


def test_count__on_request_it_goes_on_and_the_end_tells(capsys: pytest.CaptureFixture[str]) -> None:
    watch = LabelWatch(0.7, stops=False)
    run(watch, 40, NONE)
    watch.end_epoch(1)
    assert "first 40 images" in watch.conclude()
    run(watch, 360, NONE, first=40)
    run(watch, 200, SOME, first=400)
    assert watch.conclude().startswith("ALARM: 2 of 3 windows of 200 images had no detection above")
    assert capsys.readouterr().out.count("ALARM") == 1


def test_count__a_later_window_without_any_is_an_alarm_alone(capsys: pytest.CaptureFixture[str]) -> None:
    watch = run(LabelWatch(0.7), 200, SOME)
    assert watch.conclude() == ""
    run(watch, 200, NONE, first=200)
    assert "ALARM: 1 of 2 windows" in capsys.readouterr().out
    assert "ALARM: 1 of 2 windows" in watch.conclude()


def test_count__one_pseudo_label_is_something() -> None:
    watch = run(LabelWatch(0.7), 150, NONE)
    run(watch, 1, SOME, first=150)
    run(watch, 60, NONE, first=151)
    watch.end_epoch(1)
    assert watch.conclude() == ""


@pytest.mark.parametrize("at", [20, 199, 220])
def test_watch__goes_on_from_a_checkpoint(at: int) -> None:
    whole = run(run(LabelWatch(0.7), 200, SOME), 100, NONE, first=200)
    first = run(LabelWatch(0.7), min(at, 200), SOME)
    run(first, max(0, at - 200), NONE, first=200)
    second = LabelWatch(0.7)
    second.load_state_dict(first.state_dict())
    run(second, max(0, 200 - at), SOME, first=at)
    run(second, 300 - max(at, 200), NONE, first=max(at, 200))
    assert all(torch.equal(entry, second.state_dict()[name]) for name, entry in whole.state_dict().items())


@pytest.mark.parametrize(
    ("sure_score", "told"),
    [
        (None, "Set pseudo_labels.threshold below that, or give a source model that fits"),
        (0.1, "Set pseudo_labels.threshold=auto (0.100, from where on the source is right nine times of ten"),
        (0.5, "pseudo_labels.threshold=auto would be 0.500, .* and find nothing either: give a source model"),
        (0.8, "pseudo_labels.threshold=auto would be 0.800"),
    ],
)
def test_advice__follows_the_calibration_of_the_source(sure_score: float | None, told: str) -> None:
    watch = run(LabelWatch(0.7), 10, NONE)
    watch.sure_score = sure_score
    with pytest.raises(TrainingError, match=told.replace("(", r"\(")):
        watch.conclude()


def test_status__tells_boxes_an_image() -> None:
    watch = LabelWatch(0.7)
    watch.see(3, 2)
    watch.see(0, 2)
    assert watch.status == "0.8 pseudo labels an image"


def test_counts_of__images_without_detections() -> None:
    labels = [torch.tensor([1, 0]), torch.tensor([], dtype=torch.int64)]
    scores = [torch.tensor([0.9, 0.8, 0.1]), torch.tensor([])]
    assert counts_of(labels, scores).tolist() == pytest.approx([2, 1, 0.9])
