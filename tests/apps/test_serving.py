import gc
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from apps import serving
from apps.serving import Serving, check, main, parse, private_folder
from tests.forked import Forked
from vision_core.errors import EnvironmentFault, UsageError

PAGE = """
import gradio as gr, sys
from pathlib import Path
from apps import ui
from apps.serving import Serving, _keep_quiet, private_folder, safe_launch

_keep_quiet()
with private_folder() as folder:
    print(folder, flush=True)
    page = ui.page("test")
    with page:
        file, text = gr.File(), gr.Textbox()
        file.upload(lambda path: Path(path).read_text(), file, text, api_visibility="private")
    import signal
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        safe_launch(page, Serving(port=int(sys.argv[1]), max_file_size="1kb"))
    except KeyboardInterrupt:
        pass
"""


@pytest.fixture(autouse=True)
def _home_and_work_apart_from_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards, whatever a test sets
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def account(tmp_path: Path) -> Path:
    path = tmp_path / "accounts"
    path.write_text("ada:pass:word\n")
    return path


def _refusals(serving: Serving) -> str:
    with pytest.raises(UsageError) as refused:
        check(serving)
    return str(refused.value)


def test_check__defaults_are_accepted() -> None:
    check(Serving())


def test_check__share_is_refused() -> None:
    assert "outside host" in _refusals(Serving(share=True))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example"])
def test_check__reachable_address_needs_login_and_tls(host: str, account: Path) -> None:
    assert f"'{host}' can be reached" in _refusals(Serving(host=host))
    assert f"'{host}' can be reached" in _refusals(Serving(host=host, auth=account))
    complete = Serving(host=host, auth=account, cert=account, key=account)
    assert "can be reached" not in _refusals(complete)  # what is left is that the file is no certificate


@pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
def test_check__a_number_that_is_no_port_is_refused(port: int) -> None:
    told = f"--port '{port}' is no port: expected a number from 1 to 65535, such as 7860."
    assert told in _refusals(Serving(port=port))
    check(Serving(port=65535))


@pytest.mark.parametrize("title", ["Slide reader"])
def test_main__a_number_that_is_no_port_is_one_line(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(lambda: pytest.fail("built"), title, ["--port", "99999"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_check__what_is_no_certificate_is_refused(account: Path) -> None:
    assert "are not a matching pair" in _refusals(Serving(cert=account, key=account))
    assert "found one of them" in _refusals(Serving(cert=account))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_check__own_computer_needs_neither(host: str) -> None:
    check(Serving(host=host))


@pytest.mark.parametrize("name", ["GRADIO_SHARE", "GRADIO_SERVER_NAME", "GRADIO_ALLOWED_PATHS", "GRADIO_MCP_SERVER"])
def test_check__opening_variable_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert f"'{name}'" in _refusals(Serving())


def test_check__old_gradio_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradio.__version__", "6.23.9")
    assert "'6.23.9' is unsafe" in _refusals(Serving())
    monkeypatch.setattr("gradio.__version__", "6.24.0")
    check(Serving())


@pytest.mark.parametrize("folder", ["home", "work", "data"])
def test_check__temporary_folder_below_a_blocked_one_is_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Gradio compares lower case, so the check must.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / folder.upper() / "tmp"))
    assert "every upload would be refused" in _refusals(Serving(blocked=(tmp_path / "data",)))


def test_check__working_folder_at_the_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert "lies in '/'" in _refusals(Serving())


def test_check__all_reasons_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        check(Serving(share=True, host="0.0.0.0", cert=tmp_path / "none"))
    assert len(refused.value.problems) == 4


def test_main__refusal_exits_2_before_the_page_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    def build() -> None:
        raise AssertionError("models were loaded")

    assert main(build, "Page.", ["--share"]) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().err.startswith("error[USAGE] '--share'")
    assert gc.isenabled()  # it is off while a page is loaded


@pytest.mark.parametrize("content", ["", "ada\n", "ada:x\n:y\n"])
def test_check__account_without_name_or_password_is_refused(content: str, account: Path) -> None:
    account.write_text(content)
    assert "expected one name:password a line" in _refusals(Serving(auth=account))


def test_parse__defaults_listen_on_this_computer_alone() -> None:
    assert parse("Page.", []) == Serving()


def test_private_folder__closed_to_others_and_wiped() -> None:
    with private_folder() as folder:
        (folder / "upload.png").write_text("case A")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_private_folder__wiped_while_a_result_is_written(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        with suppress(FileNotFoundError):
            for number in range(1_000_000):
                (folder / f"{number}.png").write_text("case A")

    with private_folder() as folder:
        writer = threading.Thread(target=write, args=(folder,))
        writer.start()
        while not (folder / "200.png").exists():
            pass
    writer.join(timeout=30)
    assert not writer.is_alive()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_private_folder__leftover_of_a_killed_page_is_removed_and_a_living_one_stays(tmp_path: Path) -> None:
    dead = tmp_path / "tmp" / "domainsight-app-dead"
    dead.mkdir()
    (dead / "upload.png").write_text("case A")
    with private_folder() as living, private_folder():
        assert not dead.exists()
        assert living.exists()


@dataclass(frozen=True, kw_only=True)
class _Server:
    process: Forked
    url: str
    folder: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    process = Forked(["-c", PAGE, str(port)], partial(_in, environment, Path.cwd()))
    try:
        while "Open http" not in process.so_far()[0] and process.poll() is None:
            time.sleep(0.05)
        folder, told, *_ = process.so_far()[0].splitlines()
        assert told.startswith("Open http://127.0.0.1")
        yield _Server(process=process, url=f"http://127.0.0.1:{port}", folder=Path(folder))
    finally:
        process.kill()


def _in(environment: Mapping[str, str], folder: Path) -> None:
    """Take over variables and the folder to work in; the one for temporary files was asked for before."""
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None


def _upload(server: _Server, name: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/gradio_api/upload", files={"files": (name, content)})


def _outcome(server: _Server, path: str) -> str:
    """Call the page's one event directly, as a hostile script would, and return the event that ends it."""
    payload = {"path": path, "meta": {"_type": "gradio.FileData"}}
    call = {"data": [payload], "fn_index": 0, "session_hash": "hostile"}
    httpx.post(f"{server.url}/gradio_api/queue/join", json=call).raise_for_status()
    with httpx.stream("GET", f"{server.url}/gradio_api/queue/data?session_hash=hostile", timeout=30) as stream:
        return next(line for line in stream.iter_lines() if "process_completed" in line)


def test_safe_launch__serves_uploads_and_no_file_of_the_machine(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "work" / "source.py").write_text("secret source")
    for path in ("/etc/passwd", tmp_path / "work" / "source.py"):
        assert httpx.get(f"{server.url}/gradio_api/file={path}").status_code == 403
        assert json.loads(_outcome(server, str(path)).removeprefix("data:"))["success"] is False
    assert json.loads(_outcome(server, "http://127.0.0.1:9/x").removeprefix("data:"))["success"] is False
    stored = _upload(server, "../../a.txt", b"case A").json()[0]
    assert Path(stored).is_relative_to(server.folder) and Path(stored).name == "a.txt"
    assert "case A" in _outcome(server, stored)
    assert _upload(server, "big.txt", b"x" * 2000).status_code == 413
    foreign = httpx.get(f"{server.url}/config", headers={"Origin": "http://other.example"})
    assert "access-control-allow-origin" not in foreign.headers
    server.process.kill()
    told = server.process.communicate()[1].splitlines()
    assert [line.partition(" failed: ")[0] for line in told] == ["A call"] * 3, told  # and no traceback


def test_safe_launch__sigterm_closes_clean_and_leaves_nothing(server: _Server) -> None:
    _upload(server, "a.txt", b"case A").raise_for_status()
    assert any(server.folder.rglob("a.txt"))
    server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=15)
    assert server.process.returncode == 0
    deadline = time.monotonic() + 5
    while server.folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.folder.exists()


def test_parse__slides_root_is_a_flag_of_pages_with_slides_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse("a page", ["--slides-root", str(tmp_path)], has_slides=True).slides_root == tmp_path
    with pytest.raises(SystemExit):
        parse("a page", ["--slides-root", str(tmp_path)])
    assert "--slides-root" in capsys.readouterr().err


def test_check__slides_root_must_be_a_folder_that_holds_no_uploads(tmp_path: Path) -> None:
    assert "is not a folder" in _refusals(Serving(slides_root=tmp_path / "missing"))
    assert "every upload would be refused" in _refusals(Serving(slides_root=tmp_path))
    check(Serving(slides_root=tmp_path / "home"))


class _Busy:
    """A page whose first starts go as Gradio's do on a busy machine."""

    local_url = "http://127.0.0.1:7860"

    def __init__(self, failures: int) -> None:
        self.failures, self.tries = failures, 0

    def queue(self, **_options: object) -> None:
        """Nobody waits."""

    def launch(self, **_options: object) -> None:
        """Fail, or serve nothing."""
        self.tries += 1
        if self.tries <= self.failures:
            raise ValueError("When localhost is not accessible, a shareable link must be created.")

    def close(self, **_options: object) -> None:
        """Nothing was opened."""

    def wait(self) -> None:
        """Nobody is served, so nothing is waited for."""


@pytest.mark.parametrize("failures", [0, 2, 99])
def test_safe_launch__a_busy_machine_gets_more_than_one_try(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    page: Any = _Busy(failures)
    monkeypatch.setattr(serving, "threading", SimpleNamespace(Event=lambda: page))
    with (
        nullcontext() if failures < 9 else pytest.raises(EnvironmentFault, match="did not answer within three seconds")
    ):
        serving.safe_launch(page, Serving())
    assert page.tries == min(failures + 1, serving._LAUNCHES)


@pytest.mark.parametrize(
    ("environment", "flags", "is_opened"),
    [
        ({"DISPLAY": ":0"}, {}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, {}, True),
        ({"DISPLAY": ":0"}, {"no_browser": True}, False),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, {}, False),
        ({}, {}, False),
    ],
)
def test_safe_launch__the_browser_is_opened_where_a_person_sits(
    environment: dict[str, str], flags: dict[str, Any], is_opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    opened: list[str] = []
    page: Any = _Busy(0)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(serving, "threading", SimpleNamespace(Event=lambda: page))
    serving.safe_launch(page, Serving(**flags))
    assert bool(opened) is is_opened
