"""The files of one slide's result, named after the slide; without times: the same slide gives the same bytes."""

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
from vision_core.slides.outputs.heatmap_tiff import overlay_px, write_overlay
from vision_core.slides.outputs.qupath_tiles import write_tiles
from vision_core.slides.outputs.top_tiles import Choice, draw_sheet
from vision_core.slides.reading.slide import Slide
from vision_core.slides.tissue.segmentation import thumbnail, write_tissue


@dataclass(frozen=True)
class SlideFiles:
    """Where the files go.

    Attributes:
        folder: Of all of them.
        stem: What each begins with.
        written: In their order.
    """

    folder: Path
    stem: str
    written: list[Path] = field(default_factory=list)

    def write_record(self, result: SlideResult) -> None:
        """``.json``: the result without its tiles."""
        write_atomic(self._file(".json"), json.dumps(result.to_record(), indent=1, ensure_ascii=False))

    def write_pictures(self, result: SlideResult, processed: ProcessedSlide, slide: Slide, config: WsiConfig) -> None:
        """Heatmaps, tissue, tiles, and the sheet of those looked at most; without tiles, two of them.

        Raises:
            TileError: The slide cannot be read.
        """
        write_png(self._file(".heatmap.png"), draw_heatmap(thumbnail(slide, THUMBNAIL_PX), result))
        write_tissue(self._file(".tissue.geojson"), processed.tissue, slide)
        if not len(result):
            return
        picture = thumbnail(slide, overlay_px(result, config.results.heatmap_mpp))
        write_overlay(self._file(".heatmap.tif"), picture, result)
        write_tiles(self._file(".tiles.geojson.gz"), result)
        if config.results.top_tiles:
            choice = Choice(most=config.results.top_tiles, tile_px=min(processed.tiles.tile_px, result.tile_side))
            write_png(self._file(".top.png"), draw_sheet(slide, result, choice))
        if config.results.features:
            write_features(self._file(".h5"), processed.features)

    def write_without_slide(self, result: SlideResult) -> None:
        """A heatmap on white and the tiles, for features whose slide is not at hand."""
        scale = THUMBNAIL_PX / max(result.size)
        shape = (max(1, round(result.size[0] * scale)), max(1, round(result.size[1] * scale)), 3)
        write_png(self._file(".heatmap.png"), draw_heatmap(np.full(shape, 255, np.uint8), result))
        write_tiles(self._file(".tiles.geojson.gz"), result)

    def _file(self, ending: str) -> Path:
        self.written.append(self.folder / f"{self.stem}{ending}")
        return self.written[-1]
