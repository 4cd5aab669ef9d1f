import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.pipelines.sfod.tiny import EXPORTED_PX, exported_source, source_bundle
from tests.vision_core.detection.synthetic import make_voc
from vision_core.detection.onnx_predictor import PADDING, OnnxDetector
from vision_core.detection.weights.bundles import load_detector
from vision_core.errors import CheckpointError, InputError
from vision_core.images.reading import read_image, resize_shortest


def test_detector__finds_what_the_bundle_finds_in_the_padded_image(tmp_path: Path) -> None:
    detector, card = load_detector(source_bundle())
    predictor = OnnxDetector(exported_source(), threads=1)
    total = 0
    for number, path in enumerate(sorted((make_voc(tmp_path, count=4) / "JPEGImages").iterdir())):
        pixels = read_image(path)[: 64 - 20 * (number % 2)]  # wider than high, of two heights
        resized = resize_shortest(pixels, EXPORTED_PX, EXPORTED_PX)
        mean = detector.pixel_mean.view(1, 1, 3)  # this detector takes RGB
        padded = mean.expand(EXPORTED_PX, EXPORTED_PX, 3).clone()
        padded[: resized.shape[0], : resized.shape[1]] = torch.from_numpy(resized)
        with torch.no_grad():
            [expected] = detector.detect(detector.features([padded.permute(2, 0, 1)]))
        scale = pixels.shape[1] / resized.shape[1]
        boxes = np.minimum(expected.boxes.numpy() * scale, [pixels.shape[1], pixels.shape[0]] * 2)
        inside = boxes[:, 1] < boxes[:, 3]
        boxes = boxes[inside]
        found = predictor(pixels)
        np.testing.assert_allclose(found.boxes, boxes, atol=1e-2)
        np.testing.assert_allclose(found.scores, expected.scores.numpy()[inside], atol=1e-4)
        np.testing.assert_array_equal(found.labels, expected.labels.numpy()[inside])
        assert found.image_size == pixels.shape[:2]
        total += len(found.boxes)
    assert total > 0
    assert found.classes == card.classes
    assert found.model == card.identity()


def test_detector__reads_files_and_refuses_what_is_none(tmp_path: Path) -> None:
    predictor = OnnxDetector(str(exported_source()))
    path = min((make_voc(tmp_path, count=1) / "JPEGImages").iterdir())
    np.testing.assert_array_equal(predictor(str(path)).boxes, predictor(read_image(path)).boxes)
    path.write_text("no image")
    with pytest.raises(InputError):
        predictor(path)


def test_detector__another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a file"):
        OnnxDetector(tmp_path / "none.onnx")
    (tmp_path / "a.onnx").write_bytes(exported_source().read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"is damaged or no ONNX file: .* Export it again"):
        OnnxDetector(tmp_path / "a.onnx")
    model = onnx.load(exported_source())
    kept = [each for each in model.metadata_props if each.key != PADDING]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "b.onnx")
    with pytest.raises(CheckpointError, match=f"or from before it noted '{PADDING}'"):
        OnnxDetector(tmp_path / "b.onnx")


def test_detector__needs_no_torch() -> None:
    code = "import sys; from domainsight import OnnxDetector; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
