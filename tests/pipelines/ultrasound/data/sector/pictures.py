"""Made pictures of a machine: a sector of moving speckle, words beside it, a scale, a trace that moves."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vision_core.randomness import key

SIZE = (240, 320)


def fan(size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """The sector itself."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    down, right = rows + 0.1 * size[0], columns - 0.45 * size[1]
    away, angle = np.hypot(down, right), np.degrees(np.arctan2(right, down))
    return np.asarray((away > 0.2 * size[0]) & (away < 0.95 * size[0]) & (abs(angle) < 35))


def words(size: tuple[int, int] = SIZE, name: str = "QUILL^Z 1952") -> NDArray[np.uint8]:
    """Words in two corners, a scale of ticks, and a bar of buttons."""
    picture = np.zeros(size, np.uint8)
    cv2.putText(picture, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 230, 1)
    cv2.putText(picture, "12 cm  MI 1.1", (int(0.68 * size[1]), size[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 230, 1)
    picture[size[0] - 44 : size[0] - 24, -90:-12] = 60
    cv2.putText(picture, "Gen  Page 1", (size[1] - 88, size[0] - 30), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 160, 1)
    picture[20 : size[0] - 20 : 20, size[1] - 6 :] = 200
    return picture


def cine(
    count: int = 6, size: tuple[int, int] = SIZE, *, seed: int = 0, text: bool = True, trace: bool = True
) -> NDArray[np.uint8]:
    """Frames ``(F, H, W)``."""
    generator, inside = np.random.default_rng(key("sector", seed)), fan(size)
    frames = np.where(inside, generator.integers(20, 200, (count, *size)), 0).astype(np.uint8)
    for number, frame in enumerate(frames):
        if text:
            frame[:] = np.maximum(frame, words(size))
        if trace:  # of an ECG, thin and moving
            steps = np.arange(20, size[1] - 120)
            frame[size[0] - 6 - (3 * np.sin(steps / 5 + number)).astype(int), steps] = 180
    return frames
