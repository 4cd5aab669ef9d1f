"""The README's lines for a notebook run as they stand, with a bundle and an image that are here."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_notebook__runs_as_printed(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(tmp_path / "image.png")
    bundle = ROOT / "demos" / "checkpoints" / "sfod-source"
    code = code.replace("runs/mine/model", str(bundle)).replace('"image.png"', repr(str(tmp_path / "image.png")))
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert [tuple(names[name].shape) for name in ("logits", "attention")] == [(2,), (500,)]  # type: ignore[attr-defined]
    assert names["found"].classes == ("Tree",)  # type: ignore[attr-defined]
