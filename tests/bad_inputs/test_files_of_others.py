"""Files of others in an output folder, and names that a terminal or a file system does not take."""

from pathlib import Path

import pytest

from pipelines.sfod.predict import SfodPredictor
from tests.bad_inputs import museum
from tests.bad_inputs.seen import Seen, tree
from tests.vision_core.detection.synthetic import make_coco


@pytest.mark.parametrize("option", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["results.csv", "job.json", "ledger/notes.txt", "outputs/a.png", "summary.html"])
def test_predict__a_folder_without_a_batch_is_never_overwritten(
    seen: Seen, tmp_path: Path, bundle: Path, name: str, option: list[str]
) -> None:
    path = tmp_path / "study" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": true}')
    argv = [
        "predict",
        "--checkpoint",
        str(bundle),
        "--input",
        str(museum.two_images(tmp_path / "in")),
        "--out",
        "study",
    ]
    before = tree(tmp_path)
    text = seen.refused([*argv, *option], 2, f"'study' is not empty ('{Path(name).parts[0]}') and holds no batch")
    assert "--overwrite" not in text
    assert tree(tmp_path) == before
    assert path.read_text() == '{"mine": true}'


def test_predict__overwrite_replaces_a_batch_of_ours(seen: Seen, tmp_path: Path, bundle: Path) -> None:
    argv = ["predict", "--checkpoint", str(bundle), "--out", "found", "--input"]
    seen.done([*argv, str(museum.two_images(tmp_path / "one"))])
    seen.refused([*argv, str(museum.two_images(tmp_path / "two"))], 2, "use --overwrite to replace it")
    seen.done([*argv, str(tmp_path / "two"), "--overwrite"])
    assert "two/0.png" in (tmp_path / "found" / "results.csv").read_text()


@pytest.mark.parametrize("option", [[], ["--overwrite"]])
@pytest.mark.parametrize("content", [b"", b"weights of another program"])
def test_export__a_file_of_others_is_not_replaced(
    seen: Seen, tmp_path: Path, bundle: Path, content: bytes, option: list[str]
) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    argv = ["export", "--checkpoint", str(bundle), "--out", "a.onnx", *option]
    assert "--overwrite" not in seen.refused(argv, 2, "'a.onnx' exists and is no export of this package")
    assert (tmp_path / "a.onnx").read_bytes() == content


def test_import_weights__a_folder_that_is_no_bundle_is_not_replaced(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("mine")
    argv = ["import-weights", "a.pth", "--out", "thesis", "--overwrite"]
    assert "--overwrite" not in seen.refused(argv, 2, "'thesis' exists and is no bundle, so it is not replaced")
    assert tree(tmp_path) == {"thesis/a.tex"}


def test_import_weights__a_card_of_another_program_is_no_bundle(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "card.json").write_text('{"name": "Ada", "telephone": 1}')
    argv = ["import-weights", "a.pth", "--out", "thesis"]
    for option in ([], ["--overwrite"]):
        text = seen.refused([*argv, *option], 2, "'thesis' exists and is no bundle, so it is not replaced")
        assert "--overwrite" not in text
    assert "Ada" in (tmp_path / "thesis" / "card.json").read_text()


@pytest.mark.parametrize("name", ["report.html", "spread.csv"])
def test_train__a_report_or_table_of_a_person_beside_the_runs_is_not_replaced(
    seen: Seen, tmp_path: Path, name: str
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / name).write_text("<p>mine</p>")
    words = [f"data.root={make_coco(tmp_path / 'in')}", "data.format=coco", "train.max_steps=1"]
    argv = ["train", "--out", "study", "--seeds", "0,1", *words]
    assert "--overwrite" not in seen.refused(argv, 2, f"'study/{name}' is", "is not replaced")
    assert tree(tmp_path / "study") == {name} and (tmp_path / "study" / name).read_text() == "<p>mine</p>"


def test_report__a_page_of_a_person_is_not_replaced(seen: Seen, tmp_path: Path) -> None:
    run = tmp_path / "project"
    run.mkdir()
    (run / "config.yaml").write_text("method: source\n")
    (run / "report.html").write_text("<h1>Annual report</h1>")
    seen.refused(["report", "--run", "project"], 2, "report.html' is no report of this package, so it is not replaced")
    assert (run / "report.html").read_text() == "<h1>Annual report</h1>"
    (run / "report.html").unlink()
    for _ in range(2):  # one of ours is
        seen.done(["report", "--run", "project"])


def test_evaluate__the_readme_of_a_person_stays(seen: Seen, tmp_path: Path, bundle: Path) -> None:
    words = [f"data.root={make_coco(tmp_path / 'in', classes=('Tree', 'Car'))}", "data.format=coco"]
    argv = ["evaluate", "--checkpoint", str(bundle), "data.eval_split=test", *words, "--out"]
    seen.done([*argv, "scores"])
    assert "evaluation.json" in (tmp_path / "scores" / "README.txt").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.txt").write_text("mine")
    seen.done([*argv, "mine"])
    assert (tmp_path / "mine" / "README.txt").read_text() == "mine"


def test_evaluate__scores_of_before_are_replaced_on_request_alone(seen: Seen, tmp_path: Path, bundle: Path) -> None:
    words = [f"data.root={make_coco(tmp_path / 'in', classes=('Tree', 'Car'))}", "data.format=coco"]
    argv = ["evaluate", "--checkpoint", str(bundle), "--out", "scores", "data.eval_split=test", *words]
    seen.done(argv)
    scores = tmp_path / "scores" / "evaluation.json"
    before = scores.stat().st_ino
    seen.refused(argv, 2, "evaluation.json' holds the scores of an earlier evaluation. Give another --out, or --over")
    assert scores.stat().st_ino == before
    seen.done([*argv, "--overwrite"])
    assert scores.stat().st_ino != before


@pytest.mark.parametrize("option", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["evaluation.json", "pictures/cat.png"])
def test_evaluate__files_of_a_person_are_not_replaced(
    seen: Seen, tmp_path: Path, bundle: Path, name: str, option: list[str]
) -> None:
    path = tmp_path / "study" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": true}')
    told = f"'study/{Path(name).parts[0]}' is of no evaluation and is not replaced. Give another --out."
    seen.refused(["evaluate", "--checkpoint", str(bundle), "--out", "study", *option], 2, told)
    assert path.read_text() == '{"mine": true}'


def test_names__control_characters_are_escaped_wherever_they_are_printed(
    seen: Seen, tmp_path: Path, bundle: Path
) -> None:
    folder = museum.two_images(tmp_path / "in\x1b[2J\ndisk")
    (folder / "b\x1b]0;x\x07\n.png").write_bytes(b"no image")
    argv = ["predict", "--checkpoint", str(bundle), "--input", str(folder), "--out", "out\x1b[31m\nred"]
    out, err = seen.ended(argv, 4)
    shown = (out + err).replace("\n", "")
    assert shown.isprintable() and r"b\x1b]0;x\x07\n.png' cannot be decoded" in shown
    assert any(line.endswith(r"results in 'out\x1b[31m\nred'.") for line in out.splitlines())
    err = seen.refused(["train", "--config", "a\x1b[31m\nred.yaml"], 2, r"a\x1b[31m\nred.yaml does not exist")
    assert err.count("\n") == 1


@pytest.mark.parametrize("length", [250, 251])
def test_names__as_long_as_the_file_system_allows(seen: Seen, tmp_path: Path, bundle: Path, length: int) -> None:
    folder = museum.two_images(tmp_path / "in")
    stem = "a" * (length - 4)
    (folder / "0.png").rename(folder / f"{stem}.png")
    seen.done(["predict", "--checkpoint", str(bundle), "--input", str(folder), "--out", "found"])
    assert {f"{stem}.json", f"{stem}.png"} <= {path.name for path in Path("found", "outputs").iterdir()}


def test_names__without_room_for_the_results_fail_in_one_line(seen: Seen, tmp_path: Path, bundle: Path) -> None:
    folder = museum.two_images(tmp_path / "in")
    (folder / "0.png").rename(folder / ("a" * 251 + ".gif"))
    out, _ = seen.ended(["predict", "--checkpoint", str(bundle), "--input", str(folder), "--out", "found"], 4)
    assert "its name of '255' bytes leaves no room for those of its results. Use 200 at most." in out


def test_predict__debug_shows_more_of_an_internal_error_as_the_line_says(
    seen: Seen, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by 0")

    monkeypatch.setattr(SfodPredictor, "__call__", fail)
    argv = [
        "predict",
        "--checkpoint",
        str(bundle),
        "--input",
        str(museum.two_images(tmp_path / "in")),
        "--out",
        "found",
    ]
    out, err = seen.ended(argv, 3)
    assert "--debug shows more" in out and "Traceback" not in err
    _, err = seen.ended([*argv, "--debug"], 3)
    assert "Traceback" in err and "ZeroDivisionError: by 0" in err
