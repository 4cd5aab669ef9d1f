"""Result files of one slide, named after it; the same slide gives the same bytes."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.wsi.config import WsiConfig
from pipelines.wsi.features.slide_processing import ProcessedSlide
from vision_core.files import write_atomic
from vision_core.images.drawing import write_png
from vision_core.results import SlideResult
from vision_core.slides.features.files import write_features
from vision_core.slides.outputs.heatmap import THUMBNAIL_PX, draw_heatmap
from vision_core.slides.outputs.heatmap_tiff import overlay_longest_px, write_overlay
from vision_core.slides.outputs.qupath_tiles import write_tiles
from vision_core.slides.outputs.top_tiles import TileSelection, draw_tile_sheet
from vision_core.slides.reading.slide import Slide
from vision_core.slides.tissue.overview import thumbnail
from vision_core.slides.tissue.segmentation import write_tissue


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
        write_atomic(self._file(".json"), json.dumps(result.to_record(), indent=1, ensure_ascii=False))

    def write_pictures(self, result: SlideResult, processed: ProcessedSlide, slide: Slide, config: WsiConfig) -> None:
        """Write heatmaps, tissue, tiles and the sheet of top tiles.

        A slide without tiles has a heatmap picture and tissue only.

        Raises:
            TileError: The slide cannot be read.
        """
        write_png(self._file(".heatmap.png"), draw_heatmap(thumbnail(slide, THUMBNAIL_PX), result))
        write_tissue(self._file(".tissue.geojson"), processed.tissue, slide)
        if not len(result):
            return
        picture = thumbnail(slide, overlay_longest_px(result, config.results.heatmap_mpp))
        write_overlay(self._file(".heatmap.tif"), picture, result)
        write_tiles(self._file(".tiles.geojson.gz"), result)
        if config.results.top_tiles:
            tile_px = min(processed.tiles.tile_px, result.tile_side)
            selection = TileSelection(highest=config.results.top_tiles, tile_px=tile_px)
            write_png(self._file(".top.png"), draw_tile_sheet(slide, result, selection))
        if config.results.features:
            write_features(self._file(".h5"), processed.features)

    def write_without_slide(self, result: SlideResult) -> None:
        """Write a heatmap on white and the tiles, for features without their slide."""
        scale = THUMBNAIL_PX / max(result.size)
        shape = (max(1, round(result.size[0] * scale)), max(1, round(result.size[1] * scale)), 3)
        write_png(self._file(".heatmap.png"), draw_heatmap(np.full(shape, 255, np.uint8), result))
        write_tiles(self._file(".tiles.geojson.gz"), result)

    def _file(self, ending: str) -> Path:
        self.written.append(self.folder / f"{self.stem}{ending}")
        return self.written[-1]
