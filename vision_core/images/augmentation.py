"""Strong view of an image: photometric changes alone, so that boxes of the weak view stay valid."""

import math
import random
from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from vision_core.environment import keep_offline
from vision_core.images.augmentation_settings import StrongViewSettings

keep_offline()  # albumentations asks for its newest version while it is imported

import albumentations as A  # noqa: E402

_Image = NDArray[np.uint8]
_Range = tuple[float, float]
_Step = tuple[Callable[[Image.Image, float], Image.Image], float]

_BRIGHTNESS = _CONTRAST = _SATURATION = (0.6, 1.4)
_HUE = (-0.1, 0.1)  # turns of the colour circle
_BLUR_RADIUS = (0.1, 2.0)
_ERASING_ATTEMPTS = 10


class StrongView:
    """Strong augmentation of an image: colours, sharpness, erased areas.

    ``StrongView()(image, seed=0)`` is the strong view of an ``(H, W, 3)`` uint8 image by the published chain; equal
    seeds give equal views.

    Args:
        settings: Chain, channel order and noise; the published ones if None.
    """

    def __init__(self, settings: StrongViewSettings | None = None) -> None:
        settings = settings or StrongViewSettings()
        self._swap_channels = settings.channel_order == "bgr_as_rgb"
        chains = {"published": _published(settings.noise), "stock": _stock(), "none": []}
        self._chain = A.Compose(chains[settings.kind])

    def __call__(self, image: _Image, seed: int) -> _Image:
        """Augment an image; the image itself is not changed.

        Args:
            image: ``(H, W, 3)`` uint8, RGB.
            seed: All random draws follow from it.

        Returns:
            ``(H, W, 3)`` uint8, RGB.
        """
        self._chain.set_random_state(np.random.default_rng(seed), random.Random(seed))
        if not self._swap_channels:
            return np.array(self._chain(image=image)["image"])
        changed = self._chain(image=cv2.cvtColor(image, cv2.COLOR_RGB2BGR))["image"]
        return np.asarray(cv2.cvtColor(changed, cv2.COLOR_BGR2RGB), np.uint8)


def noise_bytes(values: NDArray[np.floating[Any]], noise: Literal["wrap", "clip"]) -> _Image:
    """Convert intensities to bytes: ``trunc(255 v)``, modulo 256 or clipped to 0..255."""
    scaled = (values * 255).astype(np.int64)  # truncates; defined on every platform, unlike a cast to uint8
    return (scaled & 255 if noise == "wrap" else scaled.clip(0, 255)).astype(np.uint8)


class ColourJitter(A.ImageOnlyTransform):
    """Jitter of brightness, contrast, saturation and hue in random order (as ``torchvision.ColorJitter``)."""

    def get_params(self) -> dict[str, Any]:
        """Draw the order and the four amounts."""
        steps: list[_Step] = [
            (_scale_brightness, self.py_random.uniform(*_BRIGHTNESS)),
            (_scale_contrast, self.py_random.uniform(*_CONTRAST)),
            (_scale_saturation, self.py_random.uniform(*_SATURATION)),
            (_turn_hue, self.py_random.uniform(*_HUE)),
        ]
        self.py_random.shuffle(steps)
        return {"steps": steps}

    def apply(self, img: _Image, steps: list[_Step], **_: object) -> _Image:
        """Apply the steps drawn."""
        picture = Image.fromarray(img)
        for change, amount in steps:
            picture = change(picture, amount)
        return np.asarray(picture)


class Grey(A.ImageOnlyTransform):
    """Conversion to luminance on all three channels."""

    def apply(self, img: _Image, **_: object) -> _Image:
        """Convert to grey."""
        luminance = np.asarray(Image.fromarray(img).convert("L"))
        return np.repeat(luminance[..., None], 3, axis=2)


class Blur(A.ImageOnlyTransform):
    """Gaussian blur of a random radius, as Pillow approximates it."""

    def get_params(self) -> dict[str, Any]:
        """Draw the radius in pixels."""
        return {"radius": self.py_random.uniform(*_BLUR_RADIUS)}

    def apply(self, img: _Image, radius: float, **_: object) -> _Image:
        """Blur by the radius drawn."""
        return np.asarray(Image.fromarray(img).filter(ImageFilter.GaussianBlur(radius)))


class Erasing(A.ImageOnlyTransform):
    """Erasing of one rectangle with N(0, 1) noise (Zhong et al. 2020, "Random Erasing").

    Only the rectangle passes through floats: all other pixels keep their bytes.

    Args:
        area: Smallest and largest share of the image.
        aspect: Smallest and largest height over width, drawn evenly on a logarithmic scale.
        noise: How noise becomes bytes, see ``noise_bytes``.
        p: Probability.
    """

    class InitSchema(A.BasicTransform.InitSchema):
        """Schema that albumentations checks the arguments against."""

        area: _Range
        aspect: _Range
        noise: Literal["wrap", "clip"]

    def __init__(self, area: _Range, aspect: _Range, noise: Literal["wrap", "clip"], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.area, self.aspect, self.noise = area, aspect, noise

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the rectangle and its noise; none where no attempt fits the image."""
        height, width = params["shape"][:2]
        for _ in range(_ERASING_ATTEMPTS):
            area = height * width * self.py_random.uniform(*self.area)
            aspect = math.exp(self.py_random.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if rows < height and columns < width:
                top = self.py_random.randint(0, height - rows)
                left = self.py_random.randint(0, width - columns)
                values = self.random_generator.standard_normal((rows, columns, 3), dtype=np.float32)
                return {"top": top, "left": left, "patch": noise_bytes(values, self.noise)}
        return {"top": 0, "left": 0, "patch": np.empty((0, 0, 3), np.uint8)}

    def apply(self, img: _Image, top: int, left: int, patch: _Image, **_: object) -> _Image:
        """Fill the rectangle with noise."""
        erased = img.copy()
        erased[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
        return erased


def _published(noise: Literal["wrap", "clip"]) -> list[Any]:
    return [
        ColourJitter(p=0.8),
        Grey(p=0.2),
        Blur(p=0.5),
        Erasing(area=(0.05, 0.2), aspect=(0.3, 3.3), noise=noise, p=0.7),
        Erasing(area=(0.02, 0.2), aspect=(0.1, 6.0), noise=noise, p=0.5),
        Erasing(area=(0.02, 0.2), aspect=(0.05, 8.0), noise=noise, p=0.3),
    ]


def _stock() -> list[Any]:
    return [
        A.ColorJitter(brightness=_BRIGHTNESS, contrast=_CONTRAST, saturation=_SATURATION, hue=_HUE, p=0.8),
        A.ToGray(p=0.2),
        A.GaussianBlur(sigma_limit=_BLUR_RADIUS, p=0.5),
        A.CoarseDropout(num_holes_range=(1, 3), hole_height_range=(0.1, 0.3), hole_width_range=(0.1, 0.3), p=0.7),
    ]


def _scale_brightness(picture: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(factor)


def _scale_contrast(picture: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(factor)


def _scale_saturation(picture: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(picture).enhance(factor)


def _turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    step = int(turn * 255) % 256  # the byte circle closes by itself: a look-up table is enough
    turned = hue.point([(level + step) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
