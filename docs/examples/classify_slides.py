"""Classify a folder of slides, one after the other: python classify_slides.py MODEL SLIDES RESULTS."""

import sys
from pathlib import Path

from pipelines.wsi.predict import WsiPredictor
from vision_core.errors import InputError
from vision_core.slides.reading.listing import list_slides

model, slides, results = map(Path, sys.argv[1:])
predictor = WsiPredictor.from_checkpoint(model)
for slide in list_slides(slides):
    try:
        result = predictor(slide)
        predictor.write(result, slide, results)
        print(slide.name, result.category, *result.probabilities.round(3), sep="\t")
    except InputError as error:  # one bad slide never stops the rest
        print(slide.name, "failed", error, sep="\t", file=sys.stderr)
