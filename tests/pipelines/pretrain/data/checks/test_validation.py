from pathlib import Path

from pipelines.pretrain.data.checks.readable import check_images
from pipelines.pretrain.data.checks.validation import check_lists, shared_patients
from pipelines.pretrain.data.index import Images
from pipelines.pretrain.data.reading import read_images
from pipelines.pretrain.data_settings import Format, PretrainData
from tests.bad_inputs import labelled_images as museum


def _lists(root: Path, kind: Format = "folders") -> list[Images]:
    data = PretrainData(root=root, format=kind, cache=None)
    return [read_images(data, part) for part in ("train", "val")]


def test_check_lists__counts_by_class_modality_and_list(tmp_path: Path) -> None:
    (first, second), together = check_lists(_lists(museum.folders(tmp_path / "set")))
    assert first.lines() == [
        "set:train: 6 images, 6 read, 0 faults",
        "sizes: 24 x 20 (6)",
        "modalities: CT 2, MR 2, US 2",
        "classes: 3",
        "  CT__abd__normal: 2",
        "  MR__knee__tear: 2",
        "  US__thyroid: 2",
        "patients: no numbers are known, so overlap between lists cannot be seen",
    ]
    assert second.lines()[0] == "set:val: 6 images, 6 read, 0 faults"
    assert together.lines() == ["between images and lists:", "nothing equal, empty or shared was found"]


def test_check_lists__patients_in_two_lists(tmp_path: Path) -> None:
    root = museum.table(tmp_path / "set")
    lines = museum.read_rows(root / "labels.csv")
    museum.rows([{**line, "patient": line["patient"][-1]} for line in lines], root / "labels.csv")
    lists = _lists(root, "csv")
    (first, _), together = check_lists(lists)
    assert "patients: 3 in 3 of 3 images" in first.lines()
    assert shared_patients(lists) == {("set:train", "set:val"): 3}
    assert any(line.startswith("patients in both set:train and set:val: 3.") for line in together.lines())


def test_check_lists__faults_are_told_and_remembered(tmp_path: Path) -> None:
    lists = _lists(museum.g13_corrupt(tmp_path / "set"))
    done: list[tuple[int, int]] = []
    (first, second), together = check_lists(lists, cache=tmp_path / "cache", on_item=lambda *at: done.append(at))
    assert len(first.faults) == 2
    assert "is empty (0 bytes)" in first.faults[0]
    assert second.faults == ()
    told = f"images that cannot be read are remembered; listed in '{tmp_path / 'cache' / 'corrupt.jsonl'}'"
    assert told in together.lines()
    assert done == [(number, 12) for number in range(1, 13)]
    assert (tmp_path / "cache" / "corrupt.jsonl").is_file()
    looked: list[int] = []
    check_images(lists[1], "decode", tmp_path / "cache", on_item=lambda at, _: looked.append(at))
    assert not looked


def test_check_lists__a_sample_is_spread_evenly(tmp_path: Path) -> None:
    (first, second), together = check_lists(_lists(museum.folders(tmp_path / "set")), sample=3)
    assert first.lines()[0] == "set:train: 6 images, 3 read, 0 faults"
    assert (second.num_read, together.num_read) == (3, 6)


def test_check_lists__arrays_and_several_labels(tmp_path: Path) -> None:
    path = museum.medmnist(tmp_path / "chest.npz", labels=14)
    (first, _), _ = check_lists(_lists(path, "medmnist"), cache=tmp_path / "cache")
    assert first.lines()[2].startswith("classes: 14 (an image may have several, or none)")
    assert not (tmp_path / "cache" / "sound-decode.npy").exists()
