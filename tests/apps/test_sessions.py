from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.context import LocalContext
from gradio.routes import App
from starlette.testclient import TestClient

from apps import sessions
from apps.cases import new_folder
from apps.serving import Serving, _launch_options
from apps.sessions import drop, leave
from vision_core.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "session"))
    return tmp_path / "session"


def test_refused__what_the_full_queue_does_not_take_is_deleted_at_once(folder: Path) -> None:
    with gr.Blocks() as page:
        given = gr.File()
        given.upload(lambda path: None, given, None)
    page.max_file_size = None  # which the launch sets
    page.queue(max_size=0)  # always full
    app = App.create_app(page, app_kwargs=_launch_options(Serving())["app_kwargs"])
    folder.mkdir()
    (other := folder / "other.png").write_text("of the page")
    (outside := folder.parent / "outside.png").write_text("of the machine")
    with TestClient(app) as client:
        [kept, sent] = client.post(
            "/gradio_api/upload", files=[("files", (name, name.encode())) for name in ("a.png", "b.png")]
        ).json()
        assert Path(kept).is_file() and Path(sent).is_file()
        for path in (sent, str(other), str(outside), f"{folder}/0123/../../outside.png"):
            question = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": 0}
            answer = client.post("/gradio_api/queue/join", json=question | {"session_hash": "mine"})
            assert answer.status_code == 503
        assert not Path(sent).parent.exists()
        assert Path(kept).is_file() and other.is_file() and outside.is_file()
        sessions._paths["another"].add(Path(kept))
        client.post("/gradio_api/queue/join", json={"data": [{"path": kept}], "fn_index": 0, "session_hash": "mine"})
        assert Path(kept).is_file()  # another session has it
        drop(session("another"))


def test_queued__an_upload_that_waits_still_goes_with_its_session(folder: Path) -> None:
    with gr.Blocks() as page:
        given = gr.File()
        given.upload(lambda path: None, given, None)
    page.max_file_size = None
    page.queue()  # nothing works through it
    app = App.create_app(page, app_kwargs=_launch_options(Serving())["app_kwargs"])
    client = TestClient(app)
    [sent] = client.post("/gradio_api/upload", files=[("files", ("a.png", b"a person"))]).json()
    question = {"data": [{"path": sent, "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": "mine"}
    assert client.post("/gradio_api/queue/join", json=question).status_code == 200
    drop(session("another"))
    assert Path(sent).is_file()
    drop(session("mine"))
    assert not Path(sent).parent.exists()


def session(name: str) -> Any:  # noqa: ANN401
    return SimpleNamespace(session_hash=name)


@pytest.fixture
def mine() -> Any:  # noqa: ANN401
    token = LocalContext.request.set(session("mine"))
    yield session("mine")
    LocalContext.request.reset(token)


def upload(folder: Path) -> Path:
    path = folder / "0123" / "a.png"
    path.parent.mkdir(parents=True)
    path.write_text("a person")
    return path


def test_drop__a_session_that_leaves_takes_its_cases_and_its_upload_and_no_others(folder: Path, mine: Any) -> None:  # noqa: ANN401
    uploaded = upload(folder)
    with new_folder(uploaded) as own:
        (own / "image.png").write_text("a person")
    LocalContext.request.set(session("another"))
    with new_folder() as others:
        pass
    drop(mine)
    assert not own.exists() and not uploaded.parent.exists() and others.is_dir()
    drop(mine)  # once more: its tab is closed after Cancel


def test_drop__work_that_still_runs_deletes_what_it_made_when_it_ends(folder: Path, mine: Any) -> None:  # noqa: ANN401
    uploaded = upload(folder)
    with pytest.raises(InputError, match="cancelled"), new_folder(uploaded) as own:
        drop(mine)
        own.mkdir(exist_ok=True)
        (own / "late.png").write_text("a person")
    assert not own.exists() and not uploaded.exists()
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_leave__work_that_begins_just_after_it_makes_nothing(
    folder: Path,
    mine: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    LocalContext.request.set(session("gone"))
    uploaded = upload(folder)
    leave(session("gone"))
    with pytest.raises(InputError, match="cancelled"), new_folder(uploaded):
        pytest.fail("it ran")
    assert not [path for path in folder.rglob("*") if path.is_file() or path.name.startswith("case-")]
    monkeypatch.setattr(sessions, "_LATE_S", 0.0)
    with new_folder() as own:  # its tab was only out of reach
        assert own.is_dir()
    drop(session("gone"))
    assert not own.exists()


def test_new_folder__what_fails_leaves_nothing(folder: Path, mine: Any) -> None:  # noqa: ANN401
    uploaded = upload(folder)
    with pytest.raises(ZeroDivisionError), new_folder(uploaded):
        raise ZeroDivisionError
    assert not [path for path in folder.rglob("*") if path.is_file()]
