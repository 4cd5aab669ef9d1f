"""The verb ``adopt``: reuse of features that CLAM or TRIDENT extracted."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipelines.wsi.adoption.adopt import FEATURES, Adoption, AdoptionSettings, ReencodingCheck, adopt
from pipelines.wsi.adoption.foreign_folders import ForeignFolder, find_clam, find_trident
from pipelines.wsi.adoption.reencoding import Grid, compare_features
from pipelines.wsi.adoption.split_lists import LABELS
from pipelines.wsi.cohort.csv_table import read_table
from pipelines.wsi.config import WsiConfig
from vision_core.config import loading as configs
from vision_core.console import command_line, say
from vision_core.errors import ConfigError, InputError, UsageError
from vision_core.slides.encoders.encoder import Encoder
from vision_core.slides.encoders.networks import build_encoder
from vision_core.slides.features.adopted import ADOPTED_SUFFIX, read_any_features, read_patch_grid
from vision_core.slides.identity import slide_name
from vision_core.slides.reading.listing import list_slides
from vision_core.slides.reading.slide import open_slide
from vision_core.training.runtime import pick_device

_SHIPPED = {"lite0"}
_SHOWN = 3


def run(arguments: argparse.Namespace, config_class: type[WsiConfig], build: Callable[[], object]) -> int:
    """Find, complete, check and write features; print the next command."""
    config = configs.load(config_class, None, arguments.words)
    given = {word.partition("=")[0] for word in arguments.words}
    _check_out(arguments.out, arguments.clam or arguments.trident, overwrite=arguments.overwrite)
    out = arguments.out
    found = find_clam(arguments.clam, out) if arguments.clam else find_trident(arguments.trident, out)
    slides = _OriginalSlides(config, found)
    settings = AdoptionSettings(
        encoder=config.encoder.name if "encoder.name" in given else None,
        tile_mpp=config.tiles.mpp if "tiles.mpp" in given else None,
        tile_px=config.tiles.tile_px if "tiles.tile_px" in given else None,
        slide_mpp=config.read.mpp,
        slide_mpps=slides.mpps(),
        classes=config.data.classes,
    )
    is_encoder_given = "encoder.name" in given and (config.encoder.weights or config.encoder.name in _SHIPPED)
    check = slides.check if is_encoder_given else lambda _: None
    for line in adopt(found, config.data.labels, settings, out, check):
        say(line)
    say(f"Go on:  python -m pipelines.wsi train {_training_settings(out)}")
    return 0


class _OriginalSlides:
    """Slides in ``data.root`` from which the features were extracted."""

    def __init__(self, config: WsiConfig, found: ForeignFolder) -> None:
        self._config, self._found = config, found
        self._files = self._listed(config.data.root) if config.data.root else {}
        self._encoder: Encoder | None = None

    def mpps(self) -> dict[str, float]:
        """Read microns per pixel at level 0 of slides that state them."""
        known = {}
        for name, file in self._files.items():
            try:
                with open_slide(file, self._config.read) as slide:
                    known[name] = slide.mpp
            except InputError:  # adoption may succeed without this slide
                continue
        return known

    def check(self, adoption: Adoption) -> ReencodingCheck | None:
        """Encode three tiles of a slide again."""
        file = self._files.get(adoption.slide)
        if file is None or not (adoption.side and adoption.tile_px and adoption.mpp):
            return None
        if self._encoder is None:
            self._encoder = build_encoder(self._config.encoder, pick_device(self._config.train.device))
        features = read_any_features(adoption.path, check=False)
        if adoption.corners:
            features = replace(features, coords=read_patch_grid(adoption.corners).corners)
        if features.coords is None or not len(features):
            return None
        grid = Grid(side=adoption.side, tile_px=adoption.tile_px, mpp=adoption.mpp)
        with open_slide(file, self._config.read) as slide:
            cosine = compare_features(features, slide, grid, self._encoder, self._config.read)
        return ReencodingCheck(cosine=cosine, encoder=self._encoder.identity)

    def _listed(self, folder: Path) -> dict[str, Path]:
        if not folder.is_dir():
            raise ConfigError(f"data.root '{folder}' is no folder. Give the folder of slides, or leave it out.")
        files: dict[str, list[Path]] = {}
        for file in list_slides(folder):
            files.setdefault(slide_name(file.name), []).append(file)
        wanted = {name: own for name, own in files.items() if name in self._found.features}
        for name, own in wanted.items():
            if len(own) > 1:
                listing = ", ".join(f"'{each}'" for each in own[:_SHOWN])
                raise ConfigError(
                    f"data.root: '{len(own)}' slides are called '{name}', {listing}, and the features do not say of "
                    "which they are. Give the folder of one of them."
                )
        return {name: own[0] for name, own in wanted.items()}


def _training_settings(out: Path) -> str:
    """Format the settings of a training on the written files."""
    words = f"{command_line([f'data.root={out}'])} data.format=features"
    if not (out / LABELS).is_file():
        return f"{words} data.labels=LABELS.csv"
    columns = read_table(out / LABELS).columns
    if "fold" in columns:
        return f"{words} data.folds={len({row.value('fold') for row in read_table(out / LABELS).rows})}"
    return words if "split" in columns else f"{words} data.protocol=stratified"


def _check_out(out: Path, source: Path, *, overwrite: bool) -> None:
    if source.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"--out {out} holds what is adopted, which stays as it is. Give another folder.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder.")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise UsageError(
                f"--out {out} is not empty. Give a new folder, or --overwrite what an earlier adoption wrote."
            )
        if not any((out / FEATURES).glob(f"*{ADOPTED_SUFFIX}")):
            raise UsageError(f"--out {out} is of no earlier adoption: nothing in it is overwritten. Give a new folder.")
