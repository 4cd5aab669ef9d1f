"""Whose files are whose: what a session made is deleted when its tab is closed, loaded anew, or its work cancelled."""

import json
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gradio as gr
from gradio.context import LocalContext
from gradio.utils import get_upload_folder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vision_core.errors import InputError

_lock = threading.Lock()
_paths: dict[str, set[Path]] = defaultdict(set)  # folders of cases, and uploads, by session
_unfinished: set[Path] = set()
_left: dict[str, float] = {}  # when sessions left, for a while
_TAKEN, _FULL = 200, 503
_LATE_S = 60.0  # what was taken from the queue just before begins within it; a tab that is back after it works again


@contextmanager
def making(folder: Path, uploaded: Path | None = None) -> Iterator[None]:
    """Note that the session of the running event fills a folder from an upload, if there is one.

    The folder is deleted if that fails, or if nobody waits for it any more.

    Raises:
        InputError: The session left, or cancelled the work, while it ran; or it left just before.
    """
    session = _session()
    with _lock:
        is_late = session in _left and time.monotonic() - _left[session] < _LATE_S
        if not is_late:
            _paths[session].update(filter(None, (folder, uploaded)))
            _unfinished.add(folder)
    try:
        if is_late:
            raise InputError("This was cancelled.")
        yield
        with _lock:
            is_wanted = folder in _unfinished
        if not is_wanted:
            raise InputError("This was cancelled.")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        with _lock:
            _unfinished.discard(folder)


def leave(request: gr.Request) -> None:
    """Delete what the session of a closed or reloaded tab made, and refuse what begins for it afterwards."""
    now = time.monotonic()
    with _lock:
        for session in [each for each, at in _left.items() if now - at >= _LATE_S]:
            del _left[session]
        _left[str(request.session_hash)] = now
    drop(request)


def drop(request: gr.Request) -> None:
    """Delete what a session made and uploaded; work that still runs for it deletes its own when it ends."""
    with _lock:
        paths = _paths.pop(str(request.session_hash), set())
        _unfinished.difference_update(paths)
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            delete_upload(path)


class Uploads:
    """Layer around the server that sees what joins the queue: whose upload it is, so that it goes with its session.

    One that the full queue refuses is deleted at once, for no event will.

    Args:
        app: The server below.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; look at those that join the queue, and at the answer."""
        if scope["type"] != "http" or not scope["path"].endswith("/queue/join"):
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []

        async def heard() -> Message:
            message = await receive()
            parts.append(message.get("body", b""))
            return message

        async def told(message: Message) -> None:
            if message.get("status") in {_TAKEN, _FULL}:
                _joined(b"".join(parts), is_taken=message["status"] == _TAKEN)
            await send(message)

        await self._app(scope, heard, told)


def _joined(question: bytes, *, is_taken: bool) -> None:
    """Note the uploads that an event is to get, or delete them; those that another session has stay."""
    content = json.loads(question)  # the server has read it too
    session, values = str(content["session_hash"]), content["data"]
    named = [Path(each["path"]) for each in values if isinstance(each, dict) and isinstance(each.get("path"), str)]
    root = Path(get_upload_folder()).resolve()
    # Uploads lie in folders whose names cannot be guessed; whoever knows one has sent the file.
    uploads = {path for path in named if path.resolve().parent.parent == root and path.is_file()}
    with _lock:
        if is_taken:
            _paths[session].update(uploads)
            return
        uploads -= set().union(*(paths for other, paths in _paths.items() if other != session))
    for path in uploads:
        delete_upload(path)


def delete_upload(uploaded: Path) -> None:
    """Delete an uploaded file, and its folder unless it holds another file."""
    uploaded.unlink(missing_ok=True)
    with suppress(OSError):
        uploaded.parent.rmdir()


def _session() -> str:
    request = LocalContext.request.get(None)
    return str(request.session_hash) if request else ""
