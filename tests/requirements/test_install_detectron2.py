from pathlib import Path

import pytest

from requirements import install_detectron2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(install_detectron2, "install", lambda: calls.append("install"))
    return calls


def found(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(install_detectron2, "installed_version", lambda: version)


def test_main__users_own_build_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found(monkeypatch, None)
    install_detectron2.main()
    assert calls == []


@pytest.mark.parametrize(("version", "expected"), [("0.7.2", []), ("0.7.1", ["install"])])
def test_main__only_another_version_is_replaced(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], version: str, expected: list[str]
) -> None:
    found(monkeypatch, version)
    install_detectron2.main()
    assert calls == expected
