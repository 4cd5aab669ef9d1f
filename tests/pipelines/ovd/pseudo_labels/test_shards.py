"""Shards: killed and continued, and refused where they do not belong together."""

import json
from pathlib import Path

import pytest

from pipelines.ovd.pseudo_labels.shards import ScoredImage, read_shards, write_shards
from vision_core.errors import DataError

HEADER = {"vlm_fingerprint": "abc", "class_names": ["cat", "dog"], "scales": [1.0, 1.5]}
IDS = [f"image {number}" for number in range(7)]


def _score(number: int) -> ScoredImage:
    box = [float(number), 1.0, 20.25, 30.0]
    return ScoredImage(
        image_id=IDS[number], boxes=[box] * (number % 3), rpn_scores=[0.1] * (number % 3),
        clip_scores=[[0.7, 0.3]] * (number % 3), classes=[[1, 0]] * (number % 3),
    )  # fmt: skip


def test_write__then_read_gives_the_same_in_order(tmp_path: Path) -> None:
    assert write_shards(tmp_path, HEADER, IDS, _score, size=3) == 7
    header, images = read_shards(tmp_path)
    assert header == HEADER
    assert images == [_score(number) for number in range(7)]
    assert len(list(tmp_path.iterdir())) == 3


def test_write__killed_in_the_second_shard_goes_on_there(tmp_path: Path) -> None:
    def killed(number: int) -> ScoredImage:
        if number == 4:
            raise KeyboardInterrupt
        return _score(number)

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, HEADER, IDS, killed, size=3)
    [first] = tmp_path.iterdir()
    before = first.stat().st_mtime_ns
    assert write_shards(tmp_path, HEADER, IDS, _score, size=3) == 4
    assert first.stat().st_mtime_ns == before
    undisturbed = tmp_path / "undisturbed"
    write_shards(undisturbed, HEADER, IDS, _score, size=3)
    ours = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert ours == {path.name: path.read_bytes() for path in undisturbed.iterdir()}
    assert write_shards(tmp_path, HEADER, IDS, _score, size=3) == 0


@pytest.mark.parametrize("key", ["vlm_fingerprint", "class_names", "new"])
def test_write__with_other_settings_is_refused(key: str, tmp_path: Path) -> None:
    write_shards(tmp_path, HEADER, IDS, _score, size=3)
    with pytest.raises(DataError, match=f"scored with other settings: {key} is"):
        write_shards(tmp_path, HEADER | {key: "other"}, IDS, _score, size=3)


def test_write__of_other_images_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, HEADER, IDS, _score, size=3)
    with pytest.raises(DataError, match="scores of other images"):
        write_shards(tmp_path, HEADER, IDS[::-1], _score, size=3)


def test_write__of_other_files_of_the_same_ids_is_refused(tmp_path: Path) -> None:
    stamps = [f"{name}.png 9 ab" for name in IDS]
    assert write_shards(tmp_path, HEADER, IDS, _score, size=3, stamps=stamps) == 7
    assert write_shards(tmp_path, HEADER, IDS, _score, size=3, stamps=stamps) == 0
    assert read_shards(tmp_path)[1] == [_score(number) for number in range(7)]
    stamps[4] = "image 4.png 8 ab"
    with pytest.raises(DataError, match=r"00000003.json' holds the scores of other files.*'1' of '3' images .*image 4"):
        write_shards(tmp_path, HEADER, IDS, _score, size=3, stamps=stamps)
    write_shards(tmp_path / "before", HEADER, IDS, _score, size=3)
    assert write_shards(tmp_path / "before", HEADER, IDS, _score, size=3, stamps=stamps) == 0


def test_read__headers_that_differ(tmp_path: Path) -> None:
    write_shards(tmp_path, HEADER, IDS, _score, size=3)
    path = tmp_path / "scores-00000003.json"
    content = json.loads(path.read_text())
    content["header"]["scales"] = [1.0]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"scales is '\[1.0\]', expected '\[1.0, 1.5\]'"):
        read_shards(tmp_path)


def test_read__an_image_twice_damage_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no scores"):
        read_shards(tmp_path)
    write_shards(tmp_path, HEADER, IDS, _score, size=7)
    first = tmp_path / "scores-00000000.json"
    (tmp_path / "scores-00000007.json").write_bytes(first.read_bytes())
    with pytest.raises(DataError, match="'image 0' stands in two shards"):
        read_shards(tmp_path)
    first.write_text(first.read_text()[:-20])
    with pytest.raises(DataError, match="is damaged"):
        read_shards(tmp_path)
