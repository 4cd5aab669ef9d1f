import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines.wsi.cohort.cohort import Cohort
from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.features.bags import Bags, TileSampling, training_bags, whole_bags
from pipelines.wsi.features.survey import survey_features
from tests.pipelines.wsi.lists import DIM, config_of, write_tiles
from vision_core.errors import ConfigError, DataError, InputError
from vision_core.training.loaders import EpochBatches, batches

CLASSES = ("x", "y")


def _records(folder: Path, tiles: Sequence[int]) -> tuple[SlideRecord, ...]:
    return tuple(
        SlideRecord(
            slide=f"s{place}",
            patient=f"s{place}",
            label=place % 2,
            path=write_tiles(folder / f"s{place}.h5", count),
            mpp=None,
            place=place,
        )
        for place, count in enumerate(tiles)
    )


def _bags(records: Sequence[SlideRecord], sampling: TileSampling | None = None) -> Bags:
    return Bags(records, CLASSES, survey_features(records), sampling)


def _rows(bags: Bags, epoch: int, index: int) -> list[int]:
    return [int(value) for value in bags[epoch, index].features[:, 0]]


def test_bags__whole_in_the_order_of_the_file(tmp_path: Path) -> None:
    bags = _bags(_records(tmp_path, [3, 5]))
    bag = bags[4, 1]
    assert (bag.name, int(bag.label), bag.label.dtype, bag.label.shape) == ("s1", 1, torch.int64, torch.Size([]))
    assert bag.features.dtype == torch.float32
    assert bag.features.shape == (5, DIM)
    assert _rows(bags, 0, 1) == [0, 1, 2, 3, 4]
    assert (len(bags), bags.feature_dim, bags.classes, bags.names([1, 0])) == (2, DIM, CLASSES, ["s1", "s0"])


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bags__other_files_and_types(suffix: str, dtype: type, tmp_path: Path) -> None:
    rows: NDArray[Any] = np.arange(12, dtype=dtype).reshape(4, 3)
    path = tmp_path / f"s{suffix}"
    if suffix == ".pt":
        torch.save(torch.from_numpy(rows), path)
    else:
        np.save(path, rows)
    record = SlideRecord(slide="s", patient="s", label=0, path=path, mpp=None, place=0)
    bag = _bags([record])[0, 0]
    assert bag.features.dtype == torch.float32
    assert bag.features.tolist() == rows.tolist()
    bag.features.zero_()
    assert _bags([record])[0, 0].features.tolist() == rows.tolist()  # a bag is a copy


def test_draw__most_tiles_anew_each_epoch_and_bag(tmp_path: Path) -> None:
    bags = _bags(_records(tmp_path, [100, 100, 3]), TileSampling(seed=1, max_tiles=10))
    drawn = [_rows(bags, epoch, index) for epoch in (0, 1) for index in (0, 1)]
    assert all(len(set(rows)) == 10 and rows == sorted(rows) for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) == 4
    assert drawn[0] == _rows(_bags(bags.records, TileSampling(seed=1, max_tiles=10)), 0, 0)
    assert drawn[0] != _rows(_bags(bags.records, TileSampling(seed=2, max_tiles=10)), 0, 0)
    assert _rows(bags, 0, 2) == [0, 1, 2]


def test_draw__shuffled(tmp_path: Path) -> None:
    records = _records(tmp_path, [40])
    whole = _rows(_bags(records, TileSampling(seed=1, shuffle=True)), 0, 0)
    assert whole != sorted(whole) == list(range(40))
    some = _rows(_bags(records, TileSampling(seed=1, max_tiles=7, shuffle=True)), 0, 0)
    assert some == whole[:7]


def test_bags__same_batches_with_workers_and_after_a_resume(tmp_path: Path) -> None:
    bags = _bags(_records(tmp_path, [30, 40, 50]), TileSampling(seed=1, max_tiles=10))
    order = EpochBatches(num_items=3, batch_size=1, epochs=2, seed=1)
    alone = list(batches(bags, order))
    rest = list(batches(bags, EpochBatches(num_items=3, batch_size=1, epochs=2, seed=1, start_step=4), workers=2))
    assert [bag.name for bag in alone[4:]] == [bag.name for bag in rest]
    assert all(torch.equal(one.features, other.features) for one, other in zip(alone[4:], rest, strict=True))


def test_bags__slides_without_tissue_are_no_bags_and_named(tmp_path: Path) -> None:
    bags = _bags(_records(tmp_path, [3, 0, 2, 0]))
    assert [record.slide for record in bags.records] == ["s0", "s2"]
    assert bags.without_tissue == ("s1", "s3")
    assert "slides without tissue, passed over: 2 (s1, s3)" in bags.notes
    assert [bag.name for bag in (bags[0, 0], bags[0, 1])] == ["s0", "s2"]


def test_bags__many_open_one_file_at_a_time(tmp_path: Path) -> None:
    bags = _bags(_records(tmp_path, [2] * 40))
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = [bags[0, index] for index in range(40)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert len(kept) == 40


def test_bags__file_that_went_bad_after_the_survey(tmp_path: Path) -> None:
    records = _records(tmp_path, [3, 4])
    bags = _bags(records)
    rows = np.ones((3, DIM), np.float32)
    rows[1, 2] = np.nan
    replaced = tmp_path / "s0.npy"
    np.save(replaced, rows)
    replaced.replace(records[0].path.with_suffix(".npy"))
    moved = SlideRecord(slide="s0", patient="s0", label=0, path=replaced, mpp=None, place=0)
    late = Bags([moved, records[1]], CLASSES, survey_features(records))
    with pytest.raises(InputError, match=r"s0\.npy': NaN or infinity in 1 of 3 rows, first 1"):
        late[0, 0]
    assert len(bags[0, 1].features) == 4


def test_collate__one_bag_is_the_batch(tmp_path: Path) -> None:
    bags = _bags(_records(tmp_path, [3, 4]))
    bag = bags[0, 0]
    assert bags.collate([bag]) is bag
    with pytest.raises(ConfigError, match=r"train\.batch_size is '2'"):
        bags.collate([bag, bag])


def _cohort(train: Sequence[SlideRecord], val: Sequence[SlideRecord], test: Sequence[SlideRecord] = ()) -> Cohort:
    return Cohort(classes=CLASSES, train=tuple(train), val=tuple(val), test=tuple(test), notes=())


def test_training_bags__sampled_to_learn_whole_to_choose(tmp_path: Path) -> None:
    records = _records(tmp_path, [9, 9, 9, 9])
    config = config_of({"max_tiles": 4}, train={"seed": 3})
    train, val = training_bags(config, _cohort(records[:2], records[2:]))
    assert len(train[0, 0].features) == 4
    assert len(val[0, 0].features) == 9
    assert _rows(train, 1, 1) == _rows(_bags(records[:2], TileSampling(seed=3, max_tiles=4)), 1, 1)


def test_training_bags__test_files_are_looked_at_before_training(tmp_path: Path) -> None:
    records = _records(tmp_path, [2, 2, 2, 2, 2])
    records[4].path.write_bytes(b"")
    with pytest.raises(DataError, match=r"s4\.h5' is empty"):
        training_bags(config_of({}), _cohort(records[:2], records[2:4], records[4:]))


def test_training_bags__a_step_is_one_bag(tmp_path: Path) -> None:
    records = _records(tmp_path, [2, 2])
    with pytest.raises(ConfigError, match=r"train\.batch_size is '3'; .* train\.accumulate=3"):
        training_bags(config_of({}, train={"batch_size": 3}), _cohort(records, records))


def test_training_bags__a_class_lost_with_its_tissue(tmp_path: Path) -> None:
    records = _records(tmp_path, [2, 2, 2, 0])
    with pytest.raises(
        DataError, match=r"No validation slide of class 'y' is left: without tissue or unreadable are s3"
    ):
        training_bags(config_of({}), _cohort(records[:2], records[2:]))


def test_whole_bags__features_of_another_encoder_than_the_models(tmp_path: Path) -> None:
    records = _records(tmp_path, [2])
    with pytest.raises(DataError, match=rf"s0\.h5' has {DIM} features a tile, the model takes 1536 and expects UNI2-h"):
        whole_bags(records, CLASSES, config_of({}), feature_dim=1536)
    assert len(whole_bags(records, CLASSES, config_of({"max_tiles": 1}), feature_dim=DIM)[0, 0].features) == 2


def test_bags__three_hundred_thousand_tiles_in_flat_memory(tmp_path: Path) -> None:
    path = write_tiles(tmp_path / "s0.h5", 300_000, dim=64)
    record = SlideRecord(slide="s0", patient="s0", label=0, path=path, mpp=None, place=0)
    tracemalloc.start()
    bags = _bags([record], TileSampling(seed=0, max_tiles=1000))
    drawn = bags[0, 0].features
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert drawn.shape == (1000, 64)
    assert peak < 30 * 2**20  # the whole bag has 38 MB in fp16


def test_bags__a_whole_bag_is_in_memory_once(tmp_path: Path) -> None:
    bags = _bags([replace(_records(tmp_path, [2])[0], path=write_tiles(tmp_path / "s0.h5", 300_000, dim=64))])
    tracemalloc.start()
    tiles = bags[0, 0].features
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tiles.shape == (300_000, 64)
    assert peak < 1.3 * tiles.numel() * 4  # float32; another copy in fp16 would make it 1.5
