"""Result files of one slide, named after it; the same slide gives the same bytes."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.slide_processing import ProcessedSlide
from vision_core.batch.summary import THUMBNAIL
from vision_core.files import origin_text, to_json, write_atomic
from vision_core.images.captions import add_caption
from vision_core.images.drawing import Picture, write_png, write_thumbnail
from vision_core.results import SlideResult
from vision_core.slides.features.files import write_features
from vision_core.slides.outputs.heatmap import THUMBNAIL_PX, Mask, heatmap_caption, not_glass, overlay_heatmap
from vision_core.slides.outputs.heatmap_tiff import overlay_longest_px, write_overlay
from vision_core.slides.outputs.qupath_tiles import write_tiles
from vision_core.slides.outputs.top_tiles import TileSelection, draw_tile_sheet
from vision_core.slides.reading.slide import Slide
from vision_core.slides.tissue.overview import Gaps, thumbnail
from vision_core.slides.tissue.regions import regions_to_mask
from vision_core.slides.tissue.segmentation import Tissue, write_tissue

RESULT_FILES = {
    ".json": "The result: category, probabilities, notes, model.",
    ".heatmap.png": "Heatmap over the slide, with result and scale below it.",
    ".heatmap.tif": "The same as a pyramid with its scale, for slide viewers.",
    ".tiles.geojson.gz": "Tiles with attention and evidence, for QuPath; import_into_qupath.groovy imports all slides.",
    ".tissue.geojson": "The tissue that was found; edit it in QuPath and give its folder as tissue.regions.",
    ".top.png": "The tiles that the model looked at most.",
    ".jpg": "The small picture in summary.html.",
    ".h5": "Features of the tiles, with results.features=true.",
}
OPACITY = 0.65  # of the hottest tiles


@dataclass(frozen=True)
class SlideFiles:
    """Writer of the result files of one slide.

    Attributes:
        folder: Folder of the files.
        stem: Common beginning of their names.
        written: Files written so far, in order.
    """

    folder: Path
    stem: str
    written: list[Path] = field(default_factory=list)

    def write_record(self, result: SlideResult) -> None:
        """Write the result without its tiles as ``.json``."""
        write_atomic(self._file(".json"), to_json(result.to_record()))

    def write_pictures(self, result: SlideResult, processed: ProcessedSlide, slide: Slide, config: WsiConfig) -> None:
        """Write heatmaps, tissue, tiles and the sheet of top tiles.

        A slide without tiles has a heatmap picture and tissue only.

        Raises:
            TileError: The slide cannot be read.
        """
        allowed = config.read.max_bad_tiles
        self._write_heatmap(thumbnail(slide, THUMBNAIL_PX, Gaps(allowed=allowed)), result, processed.tissue)
        write_tissue(self._file(".tissue.geojson"), processed.tissue, slide, result.digits)
        if not len(result):
            return
        picture = thumbnail(slide, overlay_longest_px(result, config.results.heatmap_mpp), Gaps(allowed=allowed))
        mask = _mask(processed.tissue, picture, result)
        write_overlay(self._file(".heatmap.tif"), picture, result, OPACITY, mask)
        write_tiles(self._file(".tiles.geojson.gz"), result)
        if config.results.top_tiles:
            tile_px = min(processed.tiles.tile_px, result.tile_side)
            selection = TileSelection(highest=config.results.top_tiles, tile_px=tile_px)
            told = origin_text(result.model, result.digits, "tiles of level 0")
            write_png(self._file(".top.png"), draw_tile_sheet(slide, result, selection), told)
        if config.results.features:
            write_features(self._file(".h5"), processed.features)

    def write_without_slide(self, result: SlideResult) -> None:
        """Write a heatmap on white and the tiles, for features without their slide."""
        scale = THUMBNAIL_PX / max(result.size)
        shape = (max(1, round(result.size[0] * scale)), max(1, round(result.size[1] * scale)), 3)
        self._write_heatmap(np.full(shape, 255, np.uint8), result, None)
        write_tiles(self._file(".tiles.geojson.gz"), result)

    def _write_heatmap(self, picture: Picture, result: SlideResult, tissue: Tissue | None) -> None:
        """Write the heatmap with its caption, and small without it for the summary."""
        mask = _mask(tissue, picture, result) if tissue else None
        drawn = overlay_heatmap(picture, result, OPACITY, tissue=mask) if len(result) else picture
        told = origin_text(result.model, result.digits, "whole slide")
        write_png(self._file(".heatmap.png"), add_caption(drawn, heatmap_caption(result, drawn.shape[1])), told)
        write_thumbnail(self._file(THUMBNAIL), drawn, told)

    def _file(self, ending: str) -> Path:
        self.written.append(self.folder / f"{self.stem}{ending}")
        return self.written[-1]


def _mask(tissue: Tissue, picture: Picture, result: SlideResult) -> Mask:
    """Rasterize the tissue to the size of a picture of the whole slide: glass within a tile gets no colour."""
    height, width = picture.shape[:2]
    pixel_size = result.size[1] / width, result.size[0] / height
    return regions_to_mask(tissue.regions, (height, width), pixel_size) & not_glass(picture)
