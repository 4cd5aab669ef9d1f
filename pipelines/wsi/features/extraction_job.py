"""Feature files of slides: made where they are missing or do not fit, slide after slide, by the batch engine."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pipelines.wsi.cohort.cohort import Cohort, features_folder
from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.slide_processing import ProcessedSlide, SlideProcessor, timing_summary, unfinished_file
from vision_core.batch.engine import Watcher, run_batch
from vision_core.batch.folder import JOB, OUTPUTS
from vision_core.batch.inspection import Inspected
from vision_core.batch.job import BatchJob, FileProcessor
from vision_core.batch.plan import output_names, plan
from vision_core.console import say
from vision_core.csv_tables import Cell
from vision_core.errors import DataError, Interrupted, UsageError
from vision_core.slides.features.extraction import wanted_attributes
from vision_core.slides.features.files import FEATURE_SUFFIXES, why_again

SUFFIX = ".h5"
_FORMAT = "features-1"  # instead of the software's version: a new release makes no features anew


class FeatureMaker(FileProcessor[ProcessedSlide]):
    """Maker of feature files; the predictor of a batch of slides.

    Args:
        processor: Its settings and encoder make the features.
    """

    def __init__(self, processor: SlideProcessor) -> None:
        self._processor = processor
        self._folder: Path | None = None

    def resume_in(self, folder: Path) -> None:
        """Where files in the making lie."""
        self._folder = folder

    def __call__(self, item: Path) -> ProcessedSlide:
        """Extract the features of a slide; without tissue the file has no rows.

        Raises:
            InputError: The slide cannot be read.
        """
        processed = self._processor.process(item, self._unfinished(item))
        say(timing_summary(item, processed))
        return processed

    def expect(self, paths: Sequence[Path]) -> None:
        """These slides come next."""
        self._processor.expect(paths)

    def write(self, result: ProcessedSlide, path: Path, folder: Path) -> list[Path]:
        """``<name>.h5``."""
        file = folder / f"{path.stem}{SUFFIX}"
        self._unfinished(path).replace(file)
        return [file]

    def _unfinished(self, path: Path) -> Path:
        assert self._folder is not None
        return unfinished_file(self._folder, path)


def feature_job(
    processor: SlideProcessor, inputs: Sequence[Path], out: Path, *, strict: bool = False, overwrite: bool = False
) -> BatchJob[ProcessedSlide]:
    """The job of making features; the same slides, settings and weights give the same job.

    Args:
        processor: Its settings and encoder make the features.
        inputs: Slides.
        out: Folder of the batch; files are in its ``outputs``.
        strict: Stop at the first bad slide.
        overwrite: Replace features of other settings.
    """
    return BatchJob(
        inputs=inputs,
        out=out,
        make_predictor=partial(FeatureMaker, processor),
        fingerprint=processor.fingerprint(),
        follows=processor.follows,
        version=_FORMAT,
        inspect=partial(_inspect, processor),
        columns=columns,
        strict=strict,
        overwrite=overwrite,
    )


def with_features(
    config: WsiConfig, records: Sequence[SlideRecord], device: torch.device, watcher: Watcher | None = None
) -> tuple[tuple[SlideRecord, ...], tuple[str, ...]]:
    """Records of slides as records of their feature files, which are made where they are missing.

    Args:
        config: Its ``data``, and the settings of slide processing.
        records: With the paths of slides.
        device: Where to encode.
        watcher: Is told how it goes.

    Returns:
        Records whose slides have features, and sentences about the others.

    Raises:
        DataError: Slides failed, and ``data.on_missing`` is ``refuse``; or the folder holds other features.
    """
    processor, job = _job(config, records, device)
    failures = _make(job, processor, watcher) if plan(job) else {}
    notes = _failed(failures, refuses=config.data.on_missing == "refuse")
    names = output_names(job.inputs)
    return tuple(
        replace(record, path=job.out / OUTPUTS / f"{names[record.path]}{SUFFIX}")
        for record in records
        if str(record.path) not in failures
    ), notes


def count_missing(config: WsiConfig, records: Sequence[SlideRecord], device: torch.device) -> tuple[int, int]:
    """How many slides have no features that fit, and how many numbers the features of a tile will be."""
    processor, job = _job(config, records, device)
    return len(plan(job)), processor.encoder.dim


def cohort_with_features(config: WsiConfig, cohort: Cohort, device: torch.device, watcher: Watcher) -> Cohort:
    """``with_features`` of all lists of a training at once."""
    every = (*cohort.train, *cohort.val, *cohort.test)
    records, notes = with_features(config, list(dict.fromkeys(every)), device, watcher)
    by_slide = {record.slide: record for record in records}

    def of(each: Sequence[SlideRecord]) -> tuple[SlideRecord, ...]:
        return tuple(by_slide[record.slide] for record in each if record.slide in by_slide)

    return replace(
        cohort, train=of(cohort.train), val=of(cohort.val), test=of(cohort.test), notes=(*cohort.notes, *notes)
    )


def columns(result: ProcessedSlide) -> Mapping[str, Cell]:
    """What features put into ``results.csv``."""
    flags = {name: round(float(value), 6) for name, value in result.tissue.flags.items()}
    return {"tiles": len(result.features), "mpp": round(result.mpp, 6), **flags, "notes": " ".join(result.notes)}


def _job(
    config: WsiConfig, records: Sequence[SlideRecord], device: torch.device
) -> tuple[SlideProcessor, BatchJob[ProcessedSlide]]:
    mpps = {record.slide: record.mpp for record in records if record.mpp is not None}
    processor = SlideProcessor(config, device, mpps)
    return processor, feature_job(processor, sorted({record.path for record in records}), features_folder(config.data))


def _make(job: BatchJob[ProcessedSlide], processor: SlideProcessor, watcher: Watcher | None) -> Mapping[str, str]:
    if job.out.is_dir() and not (job.out / JOB).exists():
        found = sorted(path.name for path in job.out.rglob("*") if path.suffix.lower() in FEATURE_SUFFIXES)
        if found:
            raise DataError(
                f"'{job.out}' holds feature files that were made elsewhere, such as '{found[0]}'. Train on them with "
                "data.format=features, or give another folder as data.features."
            )
    say(f"Features of {len(job.inputs)} slides are made in '{job.out}', where they are missing.")
    try:
        return run_batch(job, watcher).failures
    except Interrupted as error:
        say(error.problems[0])
        raise KeyboardInterrupt from error  # the run that waits for them has not begun, and is to be resumed
    except UsageError as error:
        raise DataError(_other_features(job, processor) or " ".join(error.problems)) from error


def _other_features(job: BatchJob[ProcessedSlide], processor: SlideProcessor) -> str:
    """Why the features that are there are not those of this run."""
    for path, name in output_names(job.inputs).items():
        file = job.out / OUTPUTS / f"{name}{SUFFIX}"
        wanted = {**processor.tile_attributes(), **wanted_attributes(path, processor.encoder, processor.extraction())}
        reason = why_again(file, wanted) if file.exists() else ""
        if reason:
            return (
                f"'{job.out}' holds other features: of '{path.name}' {reason}. Give another data.features, or replace "
                f"them: {_command(processor.config, path.parent, job.out)}."
            )
    return ""


def _command(config: WsiConfig, slides: Path, out: Path) -> str:
    """What makes the features of a run anew, with the settings that are not the defaults."""
    ours, plain = config.model_dump(mode="json"), WsiConfig().model_dump(mode="json")
    words = [
        f"{section}.{key}={value}"
        for section in ("read", "tissue", "tiles", "encoder")
        for key, value in ours[section].items()
        if value is not None and value != plain[section][key]
    ]
    places = ["--input", str(slides), "--out", str(out), "--overwrite"]
    return shlex.join(["python", "-m", "pipelines.wsi", "features", *places, *words])


def _failed(failures: Mapping[str, str], *, refuses: bool) -> tuple[str, ...]:
    if not failures:
        return ()
    if refuses:
        remedy = "Mend or remove the slide, or set data.on_missing=drop to go on without it."
        raise DataError([f"{reason} {remedy}" for reason in failures.values()])
    return (f"slides without features, left out: {len(failures)} ({next(iter(failures.values()))})",)


def _inspect(processor: SlideProcessor, path: Path) -> Inspected:
    found = processor.inspect(path)
    size = (
        int(found.work.get("tiles", 0))
        * processor.encoder.dim
        * (2 if processor.config.encoder.storage == "fp16" else 4)
    )
    return found.model_copy(update={"output_bytes": size})
