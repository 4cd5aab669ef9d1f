"""Modality and patient of DICOM images, from their headers."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from pipelines.pretrain.data.index import UNKNOWN, Images, examples, is_image_name, patient_number
from vision_core.dicom.reader import DicomFacts, inspect_dicom
from vision_core.errors import InputError

_THREADS = 4


def with_header_facts(images: Images) -> Images:
    """The index with what headers tell where no list has told it; files that cannot be read are left as they are."""
    with ThreadPoolExecutor(_THREADS) as threads:
        facts = list(threads.map(lambda index: _facts(images, index), range(len(images))))
    known = [(str(images.modalities[index]), int(images.patients[index])) for index in range(len(images))]
    merged = [
        (modality or fact.modality, patient if patient != UNKNOWN else patient_number(fact.patient)) if fact else before
        for before, fact in zip(known, facts, strict=True)
        for modality, patient in [before]
    ]
    cines = [images.pixels.name(index) for index, fact in enumerate(facts) if fact and fact.num_frames > 1]
    told = [f"files with several frames, of which the first is used: {len(cines)} ({examples(cines)})"] if cines else []
    return replace(
        images,
        notes=(*images.notes, *told),
        modalities=np.array([modality for modality, _ in merged], np.str_),
        patients=np.array([patient for _, patient in merged], np.int64),
    )


def _facts(images: Images, index: int) -> DicomFacts | None:
    path = images.pixels.path(index)
    if is_image_name(path.name):
        return None
    try:
        return inspect_dicom(path, float("inf"))
    except InputError:
        return None  # told by the check of all files, which decides what becomes of it
