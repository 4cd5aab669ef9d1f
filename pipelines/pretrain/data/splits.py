"""Lists of images of a run: which are read, whether they fit its steps, hashes and subsets."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.pretrain.config import Finetune, PretrainConfig
from pipelines.pretrain.data.checks.duplicates import equal_images
from pipelines.pretrain.data.checks.validation import shared_patients
from pipelines.pretrain.data.preprocessing import normalise
from pipelines.pretrain.data.reading import Images, prepare_images
from pipelines.pretrain.data.views import TrainingViews
from pipelines.pretrain.data_settings import StageData
from vision_core.errors import ConfigError, DataError
from vision_core.randomness import key
from vision_core.training import distributed
from vision_core.training.batch_norms import reestimate_norms
from vision_core.training.loaders import EpochBatches, batches
from vision_core.training.runtime import num_workers

_MOST_OPENED, _TAIL_BYTES = 50_000, 4096

Read = Callable[[StageData, str], Images]
_PUBLISHED_BATCH = 256


def training_images(config: PretrainConfig, read: Read = prepare_images) -> Images:
    """Read the training list; for a transfer perhaps a few images of each class.

    Args:
        config: Settings of the run.
        read: Reader of a list; by default its files are checked.
    """
    images = read(config.data, config.data.split)
    if config.method == "transfer" and config.transfer.per_class:
        return few_per_class(images, config.transfer.per_class, config.train.seed)
    return images


def scored_splits(config: PretrainConfig) -> list[str]:
    """Name the lists that are scored during or after training."""
    val = config.data.val_split if config.train.eval_every else None
    return list(dict.fromkeys(split for split in (val, config.data.eval_split) if split))


def scored_images(config: PretrainConfig, classes: tuple[str, ...], split: str, read: Read = prepare_images) -> Images:
    """Read a labelled list in the classes of a model, its files checked as in training."""
    try:
        return read(in_classes(config.data, classes), split)
    except DataError as error:
        key = "val_split" if split == config.data.val_split else "eval_split"
        told = f"'{split}' is the list of data.{key}. Set that to another name, or to null where there is none."
        raise DataError([*error.problems, told]) from error


def in_classes(data: StageData, classes: tuple[str, ...]) -> StageData:
    """Set the classes of ``data`` to those of a model."""
    return data.model_copy(update={"classes": classes, "class_list": None})


def overlaps(lists: Sequence[Images]) -> list[str]:
    """Warn of each two lists that share known patients, and of equal images in and between lists."""
    patients = [
        f"warning: {count} patients are in both {one} and {other}. Scores on one after training on the other are too "
        "good."
        for (one, other), count in shared_patients(lists).items()
    ]
    return [*patients, *equal_images(lists)]


def check_training_list(config: PretrainConfig, images: Images) -> None:
    """Refuse a list of one class, or one that does not fit the steps.

    Raises:
        DataError: There is only one class.
        ConfigError: As ``check_steps``.
    """
    if len(images.classes) < 2 and not images.is_multi_label:
        raise DataError(
            f"'{images.name}' has '1' class, '{images.classes[0]}': there is nothing to tell apart. "
            "Give images of two classes or more."
        )
    check_steps(config, len(images))


def check_steps(config: PretrainConfig, count: int) -> None:
    """Refuse an epoch of ``count`` images whose steps are too small for the norms or the policy.

    Raises:
        ConfigError: There is no step, or the last one leaves a process with too few images for its norms or for a
            reward that compares images.
    """
    train, world = config.train, distributed.world_size()
    if train.drop_last and count < train.batch_size * world:
        raise ConfigError(
            f"{count} images make no step of '{train.batch_size}' with train.drop_last. "
            f"Set train.batch_size to {count // world} or less, or train.drop_last=false."
        )
    rest = count % (train.batch_size * world)
    needed = 2 if config.has_batch_norms or (config.compares_images and world == 1) else 1
    fewest = rest // world if rest and not train.drop_last else train.batch_size
    if fewest < needed:
        raise ConfigError(
            f"The last step of an epoch of {count} images would have '{fewest}' for a process, fewer than {needed}. "
            "Set train.drop_last=true, or another train.batch_size."
        )


def remarks(config: PretrainConfig) -> list[str]:
    """Describe masks and learning rate for the user before training begins."""
    told = _of_masks(config) if config.is_masked else []
    published = (Finetune() if config.method == "finetune" else PretrainConfig()).optim.lr
    batch = config.train.batch_size * config.train.accumulate * distributed.world_size()
    # A rate that differs from the published one was chosen by the user.
    if config.method != "transfer" and config.optim.lr == published and batch != _PUBLISHED_BATCH:
        told.append(
            f"The published optim.lr, {published:g}, is for updates of {_PUBLISHED_BATCH} images; scaled linearly to "
            f"{batch} it would be {published * batch / _PUBLISHED_BATCH:g}."
        )
    return told


def _of_masks(config: PretrainConfig) -> list[str]:
    mask = config.mask
    told = [f"Masks: policy '{config.policy}', {mask.grid} x {mask.grid} cells, blur of {mask.kernel} px."]
    if config.train.accumulate > 1 and config.policy != "unlearned":
        told.append(
            f"warning: train.accumulate is {config.train.accumulate}: costs and baselines are those of one step's "
            f"{config.train.batch_size} images, not of an update's: another method than with one larger step."
        )
    return told


def with_new_statistics(network: torch.nn.Module, config: PretrainConfig) -> str:
    """Re-estimate the statistics of the norms on clean training images; returns a note."""
    images = training_images(config)
    views = TrainingViews(images, config.data, config.train.seed)
    wanted = config.averaging.reestimate_norms
    # Epochs after those of training: other crops, the same in every call.
    order = EpochBatches(
        num_items=len(images),
        batch_size=config.train.batch_size,
        epochs=config.train.epochs + wanted,
        seed=config.train.seed,
        start_step=config.train.epochs * max(1, len(images) // config.train.batch_size),
        drop_last=len(images) >= config.train.batch_size,
    )
    device = next(network.parameters()).device
    workers = num_workers(config.train.workers, device)
    read = zip(range(wanted), batches(views, order, workers=workers), strict=False)
    count = reestimate_norms(network, (normalise(batch.images.to(device)) for _, batch in read))
    size = min(config.train.batch_size, len(images))
    return f"Statistics of the norms were computed anew over {count} batches of {size} images."


def manifest(images: Images) -> str:
    """Hash the names and labels of a list, in their order, wherever its files lie."""
    digest = blake2b(digest_size=16)
    for index in range(len(images)):
        digest.update(images.pixels.name(index).encode(errors="surrogateescape") + b"\0")
    digest.update(images.labels.tobytes())
    return digest.hexdigest()


def content_manifest(images: Images) -> str:
    """Hash the list and the sizes of its files.

    Of not too many files the last bytes count too, where compression sums stand.
    """
    digest = blake2b(manifest(images).encode(), digest_size=16)
    for path in dict.fromkeys(images.pixels.path(index) for index in range(len(images))):
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        if len(images) <= _MOST_OPENED:
            with path.open("rb") as file:
                file.seek(max(0, size - _TAIL_BYTES))
                digest.update(file.read(_TAIL_BYTES))
    return digest.hexdigest()


def few_per_class(images: Images, per_class: int, seed: int) -> Images:
    """Select ``per_class`` random images of every class, or all of a smaller class.

    They follow from the seed and the names of the classes alone and keep the order of the list. A larger subset of the
    same seed contains a smaller one, so that a curve over sizes adds images and exchanges none.

    Raises:
        DataError: Images may have several labels, so that there is no such subset.
    """
    if images.is_multi_label:
        raise DataError(f"'{images.name}' has several labels an image: few images of each class cannot be chosen.")
    chosen = [_of_class(images, label, per_class, seed) for label in range(len(images.classes))]
    kept = np.sort(np.concatenate(chosen))
    scarce = [name for name, indices in zip(images.classes, chosen, strict=True) if len(indices) < per_class]
    notes = [f"classes with fewer than {per_class} images: {len(scarce)} of {len(images.classes)}"] if scarce else []
    return images.keep(kept, *notes)


def _of_class(images: Images, label: int, per_class: int, seed: int) -> NDArray[np.int64]:
    indices = np.flatnonzero(images.labels == label)
    order = np.random.default_rng(key("subset", seed, images.classes[label])).permutation(len(indices))
    return indices[order[:per_class]]
