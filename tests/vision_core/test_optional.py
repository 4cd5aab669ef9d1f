import sys
from pathlib import Path

import pytest

from vision_core.errors import MissingDependencyError
from vision_core.optional import require


def test_require__gives_the_module() -> None:
    assert require("json.decoder", "a test").JSONDecoder


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("not_there", "pip install not_there"),
        ("not_there.part", "pip install not_there"),
    ],
)
def test_require__missing_package_names_why_and_how(name: str, remedy: str) -> None:
    with pytest.raises(
        MissingDependencyError, match=rf"'not_there' is not installed; it draws\. Install it: {remedy}\.$"
    ):
        require(name, "it draws")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("detectron2", "run 'make setup'"),
        ("gradio", r"pip install 'domainsight\[apps\]'"),
        ("openslide", r"pip install 'domainsight\[slides\]'"),
        ("pydicom", r"pip install 'domainsight\[medical\]'"),
    ],
)
def test_require__package_with_its_own_way_of_installing(
    name: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    with pytest.raises(MissingDependencyError, match=remedy):
        require(name, "a test")


def test_require__package_that_lacks_another_names_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "half_installed.py").write_text("import not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match=r"'not_there', which 'half_installed' needs, .* Run 'make setup'"):
        require("half_installed", "a test")


def test_require__package_that_fails_otherwise_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_package.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        require("broken_package", "a test")
