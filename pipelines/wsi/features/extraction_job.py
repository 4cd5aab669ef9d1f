"""Extraction of missing or outdated feature files by the batch engine."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pipelines.wsi.cohort.cohort import Cohort, features_folder
from pipelines.wsi.cohort.file_matching import SlideRecord
from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.slide_processing import (
    ProcessedSlide,
    SlideProcessor,
    mpps_of,
    timing_summary,
    unfinished_file,
)
from vision_core.batch.engine import Watcher, run_batch
from vision_core.batch.folder import JOB, OUTPUTS
from vision_core.batch.inspection import Inspected
from vision_core.batch.job import BatchJob, FileProcessor
from vision_core.batch.plan import output_names, plan
from vision_core.console import say
from vision_core.csv_tables import Cell
from vision_core.errors import DataError, Interrupted, UsageError
from vision_core.slides.features.extraction import expected_attributes
from vision_core.slides.features.files import FEATURE_SUFFIXES, reason_not_reusable

SUFFIX = ".h5"
_FORMAT = "features-1"  # in place of the software's version, so that a new release extracts nothing again


class FeatureExtractor(FileProcessor[ProcessedSlide]):
    """Extractor of feature files, as the batch engine's predictor.

    Args:
        processor: Settings and encoder of the features.
    """

    def __init__(self, processor: SlideProcessor) -> None:
        self._processor = processor
        self._folder: Path | None = None

    def resume_in(self, folder: Path) -> None:
        """Set the folder of unfinished files."""
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
        """Announce the next slides."""
        self._processor.expect(paths)

    def write(self, result: ProcessedSlide, path: Path, folder: Path) -> list[Path]:
        """Move the finished file to ``<name>.h5``."""
        file = folder / f"{path.stem}{SUFFIX}"
        self._unfinished(path).replace(file)
        return [file]

    def _unfinished(self, path: Path) -> Path:
        assert self._folder is not None
        return unfinished_file(self._folder, path)


def feature_job(
    processor: SlideProcessor, inputs: Sequence[Path], out: Path, *, strict: bool = False, overwrite: bool = False
) -> BatchJob[ProcessedSlide]:
    """Define the batch job that extracts features.

    The same slides, settings and weights give the same job.

    Args:
        processor: Settings and encoder of the features.
        inputs: Slides.
        out: Folder of the batch; files go to its ``outputs``.
        strict: Stop at the first slide that fails.
        overwrite: Replace features made with other settings.
    """
    return BatchJob(
        inputs=inputs,
        out=out,
        make_predictor=partial(FeatureExtractor, processor),
        fingerprint=processor.fingerprint(),
        follows=processor.follows,
        version=_FORMAT,
        inspect=partial(_inspect, processor),
        columns=columns,
        strict=strict,
        overwrite=overwrite,
    )


def extract_missing_features(
    config: WsiConfig, records: Sequence[SlideRecord], device: torch.device, watcher: Watcher | None = None
) -> tuple[tuple[SlideRecord, ...], tuple[str, ...]]:
    """Extract missing features and return records with the paths of feature files.

    Args:
        config: Its ``data``, and the settings of slide processing.
        records: Records with the paths of slides.
        device: Device of the encoder.
        watcher: Receives progress.

    Returns:
        Records whose slides have features, and notes on the others.

    Raises:
        DataError: Slides failed and ``data.on_missing`` is ``refuse``, or the folder holds other features.
    """
    processor, job = _job(config, records, device)
    failures = _run_job(job, processor, watcher) if plan(job) else {}
    notes = _failure_notes(failures, refuses=config.data.on_missing == "refuse")
    names = output_names(job.inputs)
    return tuple(
        replace(record, path=job.out / OUTPUTS / f"{names[record.path]}{SUFFIX}")
        for record in records
        if str(record.path) not in failures
    ), notes


def count_missing_features(config: WsiConfig, records: Sequence[SlideRecord], device: torch.device) -> tuple[int, int]:
    """Count slides without fitting features; also return the encoder's feature width."""
    processor, job = _job(config, records, device)
    return len(plan(job)), processor.encoder.dim


def extract_cohort_features(config: WsiConfig, cohort: Cohort, device: torch.device, watcher: Watcher) -> Cohort:
    """Extract the missing features of all lists of a training."""
    every = (*cohort.train, *cohort.val, *cohort.test)
    records, notes = extract_missing_features(config, list(dict.fromkeys(every)), device, watcher)
    by_slide = {record.slide: record for record in records}

    def with_features(each: Sequence[SlideRecord]) -> tuple[SlideRecord, ...]:
        return tuple(by_slide[record.slide] for record in each if record.slide in by_slide)

    return replace(
        cohort,
        train=with_features(cohort.train),
        val=with_features(cohort.val),
        test=with_features(cohort.test),
        notes=(*cohort.notes, *notes),
    )


def columns(result: ProcessedSlide) -> Mapping[str, Cell]:
    """Return the columns of a slide in ``results.csv``."""
    flags = {name: round(float(value), 6) for name, value in result.tissue.flags.items()}
    return {"tiles": len(result.features), "mpp": round(result.mpp, 6), **flags, "notes": " ".join(result.notes)}


def _job(
    config: WsiConfig, records: Sequence[SlideRecord], device: torch.device
) -> tuple[SlideProcessor, BatchJob[ProcessedSlide]]:
    processor = SlideProcessor(config, device, mpps_of(records))
    return processor, feature_job(processor, sorted({record.path for record in records}), features_folder(config.data))


def _run_job(job: BatchJob[ProcessedSlide], processor: SlideProcessor, watcher: Watcher | None) -> Mapping[str, str]:
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
        raise KeyboardInterrupt from error  # the training has not begun; the same command resumes it
    except UsageError as error:
        raise DataError(_other_features(job, processor) or " ".join(error.problems)) from error


def _other_features(job: BatchJob[ProcessedSlide], processor: SlideProcessor) -> str:
    """Explain why existing features cannot be reused."""
    for path, name in output_names(job.inputs).items():
        file = job.out / OUTPUTS / f"{name}{SUFFIX}"
        wanted = {**processor.tile_attributes(), **expected_attributes(path, processor.encoder, processor.extraction())}
        reason = reason_not_reusable(file, wanted) if file.exists() else ""
        if reason:
            return (
                f"'{job.out}' holds other features: of '{path.name}' {reason}. Give another data.features, or replace "
                f"them: {_extraction_command(processor.config, path.parent, job.out)}."
            )
    return ""


def _extraction_command(config: WsiConfig, slides: Path, out: Path) -> str:
    """Format the command that extracts the features again."""
    ours, plain = config.model_dump(mode="json"), WsiConfig().model_dump(mode="json")
    words = [
        f"{section}.{key}={value}"
        for section in ("read", "tissue", "tiles", "encoder")
        for key, value in ours[section].items()
        if value is not None and value != plain[section][key]
    ]
    places = ["--input", str(slides), "--out", str(out), "--overwrite"]
    return shlex.join(["python", "-m", "pipelines.wsi", "features", *places, *words])


def _failure_notes(failures: Mapping[str, str], *, refuses: bool) -> tuple[str, ...]:
    if not failures:
        return ()
    if refuses:
        remedy = "Mend or remove the slide, or set data.on_missing=drop to go on without it."
        raise DataError([f"{reason} {remedy}" for reason in failures.values()])
    return (f"slides without features, left out: {len(failures)} ({next(iter(failures.values()))})",)


def _inspect(processor: SlideProcessor, path: Path) -> Inspected:
    inspected = processor.inspect(path)
    tile_bytes = processor.encoder.dim * (2 if processor.config.encoder.storage == "fp16" else 4)
    return inspected.model_copy(update={"output_bytes": int(inspected.work.get("tiles", 0)) * tile_bytes})
