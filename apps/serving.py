"""Serving of a page on this computer; unsafe settings are refused before any model is loaded."""

import argparse
import fcntl
import gc
import ipaddress
import logging
import os
import re
import shutil
import signal
import ssl
import sys
import tempfile
import threading
import traceback
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vision_core.environment import has_display, quiet_libraries, set_gradio_folder, unsafe_gradio_variables
from vision_core.errors import EnvironmentFault, UsageError, UserError, one_line
from vision_core.optional import require
from vision_core.results import RESEARCH_NOTICE

if TYPE_CHECKING:
    import gradio as gr

_FLOOR = (6, 24)  # Below it a failing auth_dependency let visitors in.
_WHY = "the page is built with it"
_PREFIX = "domainsight-app-"
_LAUNCHES = 4
_THREADS = 4  # each that runs a model keeps memory of its own; forty, Gradio's default, would keep ten times as much
_LAST_PORT = 65535
_log = logging.getLogger("domainsight")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Settings of a server; by default it is reachable from this computer alone.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; None: the first free one from 7860.
        auth: File with one ``name:password`` a line; not a flag, since a command line is visible to all users.
        cert: TLS certificate (PEM).
        key: Private key of the certificate (PEM).
        share: A tunnel through an outside host; always refused.
        blocked: Folders whose files are never served, beside the home and the working folder.
        max_file_size: Largest upload; larger ones get status 413.
        slides_root: Folder of slides that may be chosen by name; they are read, not served as files.
        no_browser: Whether to leave the browser closed; it is opened where a person sits before this computer.
        debug: Whether to print warnings of libraries, and tracebacks of errors in a page.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    share: bool = False
    blocked: tuple[Path, ...] = ()
    max_file_size: str = "200mb"
    slides_root: Path | None = None
    no_browser: bool = False
    debug: bool = False


def main(
    build: "Callable[..., gr.Blocks]", title: str, argv: Sequence[str] | None = None, *, has_slides: bool = False
) -> int:
    """Serve a page until Ctrl-C or SIGTERM; returns the exit code.

    Args:
        build: Builds the page, after all checks and with the private folder in place.
        title: Description for ``--help``.
        argv: Flags; None: those of the command line.
        has_slides: Whether the page takes slides: adds the flag ``--slides-root``, whose value ``build`` gets.
    """
    serving = parse(title, argv, has_slides=has_slides)
    gc.disable()  # what is loaded until the page answers stays: a sixth of the time would go into looking through it
    try:
        check(serving)
        if serving.debug:
            _log.setLevel(logging.DEBUG)
        else:
            _keep_quiet()
        print("Loading the models…", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM wipes the folder, too
        with private_folder():
            safe_launch(build(serving.slides_root) if has_slides else build(), serving)
    except UserError as error:
        sys.stderr.write(error.lines() + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        pass
    finally:
        gc.enable()
    return 0


def parse(title: str, argv: Sequence[str] | None = None, *, has_slides: bool = False) -> Serving:
    """Parse the flags that all pages share."""
    parser = argparse.ArgumentParser(description=f"{title} {RESEARCH_NOTICE}")
    parser.add_argument("--host", default="127.0.0.1", help="address; any but this computer's own needs --auth and TLS")
    parser.add_argument("--port", type=int, help="port; default: the first free one from 7860")
    parser.add_argument("--auth", type=Path, metavar="FILE", help="accounts: one name:password a line")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="TLS certificate (PEM)")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key of the certificate (PEM)")
    parser.add_argument("--share", action="store_true", help="refused: pages are never served through an outside host")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--debug", action="store_true", help="print tracebacks and warnings of libraries")
    if has_slides:
        parser.add_argument(
            "--slides-root", type=Path, metavar="FOLDER", help="slides that may be chosen by name, without upload"
        )
    return Serving(**vars(parser.parse_args(argv)))


def check(serving: Serving) -> None:
    """Refuse settings that are unsafe or cannot work.

    Raises:
        UsageError: A setting is refused; the message lists all reasons.
    """
    problems = [*_variable_problems(), *_flag_problems(serving), *_file_problems(serving), *_upload_problems(serving)]
    problems += _gradio_problems()
    if problems:
        raise UsageError(problems)


def safe_launch(blocks: "gr.Blocks", serving: Serving) -> None:
    """Serve ``blocks`` until interrupted; no file of this machine is served.

    Raises:
        UsageError: ``check`` refuses the settings.
        EnvironmentFault: The port is taken, or the page does not answer.
    """
    check(serving)
    blocks.queue(max_size=16, default_concurrency_limit=1, api_open=False)
    try:
        _launch(blocks, serving)
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot listen on '{serving.host}' port '{serving.port or '7860 and up'}': give another with --port."
        ) from error
    gc.freeze()
    gc.enable()
    print(f"Open {blocks.local_url} in a browser. Ctrl-C ends it and deletes what was uploaded.", flush=True)
    try:
        if not serving.no_browser and has_display():
            webbrowser.open(str(blocks.local_url))
        threading.Event().wait()
    finally:
        blocks.close(verbose=False)


def _keep_quiet() -> None:
    """Keep warnings that nobody at the page can act on from the terminal; what an input is like stands on the page."""
    quiet_libraries()
    warnings.filterwarnings("ignore")
    for name in ("", "domainsight"):
        logging.getLogger(name).setLevel(logging.ERROR)
    traceback.print_exc = _tell_error  # by which Gradio tells of every call that it refuses
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(_without_traceback)


def _tell_error(*_place: object, **_options: object) -> None:
    error = sys.exc_info()[1]
    _log.error("%s", one_line(f"A call failed: {type(error).__name__}: {error}"))


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True


def _launch(blocks: "gr.Blocks", serving: Serving) -> None:
    for _ in range(_LAUNCHES):
        try:
            blocks.launch(**_launch_options(serving))
            return
        except ValueError as error:
            # Gradio gives its own page three seconds to answer; a busy machine may take longer.
            if "localhost is not accessible" not in str(error):
                raise
            blocks.close(verbose=False)
    raise EnvironmentFault(
        f"The page was started {_LAUNCHES} times and did not answer within three seconds. Try again when the machine "
        "is less busy; where a proxy is set, add 'localhost,127.0.0.1' to no_proxy."
    )


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder for uploads and results that only this user can open (0700); it is wiped at the end.

    The folder in use is locked, so that the next start recognises and removes those of killed servers.
    """
    for leftover in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        _remove_if_abandoned(leftover)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        set_gradio_folder(folder)
        yield folder
    finally:
        # A result may still be being written: after the renaming, the rest of it cannot reach the folder.
        for each in (folder.rename(f"{folder}-ended"), folder):
            shutil.rmtree(each, ignore_errors=True)
        os.close(handle)


def _launch_options(serving: Serving) -> dict[str, Any]:
    themes, middleware = require("gradio.themes", _WHY), require("starlette.middleware", _WHY)
    sessions = import_module("apps.sessions")  # which imports Gradio
    return {
        "server_name": serving.host,
        "server_port": serving.port,
        "auth": _accounts(serving.auth) if serving.auth else None,
        "ssl_certfile": str(serving.cert) if serving.cert else None,
        "ssl_keyfile": str(serving.key) if serving.key else None,
        "ssl_verify": False,  # only for the server's first call to itself, by an address that no certificate names
        "share": False,
        "max_file_size": serving.max_file_size,
        "allowed_paths": [],
        "blocked_paths": [str(folder) for folder in _blocked(serving)],
        "strict_cors": True,
        "run_history": False,
        "footer_links": [],
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "ssr_mode": False,
        "num_workers": 0,
        "max_threads": _THREADS,
        "root_path": "",
        "show_error": False,
        "state_session_capacity": 32,
        "theme": _theme(themes),
        "css_paths": [Path(__file__).with_name("page.css")],
        "app_kwargs": {"middleware": [middleware.Middleware(sessions.Uploads)]},
        "quiet": True,
        "prevent_thread_lock": True,
    }


def _theme(themes: ModuleType) -> "gr.themes.Base":
    """Give texts of Gradio's theme a contrast of at least 4.5, and borders of choices one of at least 3."""
    theme: gr.themes.Base = themes.Default(primary_hue="blue", font=("system-ui", "sans-serif"))
    return theme.set(
        body_text_color_subdued="*neutral_600",
        input_placeholder_color="*neutral_600",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
    )


def _gradio_problems() -> list[str]:
    found = str(require("gradio", _WHY).__version__)
    if tuple(int(number) for number in re.findall(r"\d+", found)[:2]) >= _FLOOR:
        return []
    return [f"Gradio '{found}' is unsafe: 6.24 or later is needed. Run: pip install 'gradio>=6.24,<7'."]


def _variable_problems() -> list[str]:
    return [
        f"The environment sets '{name}', which could open the page to others. Unset it."
        for name in unsafe_gradio_variables()
    ]


def _flag_problems(serving: Serving) -> list[str]:
    problems = []
    if serving.share:
        problems.append("'--share' sends images through an outside host. Use --host with --auth, --cert and --key.")
    if not _is_loopback(serving.host) and not (serving.auth and serving.cert and serving.key):
        problems.append(f"'{serving.host}' can be reached from other computers: give --auth, --cert and --key too.")
    if serving.port is not None and not 1 <= serving.port <= _LAST_PORT:
        problems.append(f"--port '{serving.port}' is no port: expected a number from 1 to {_LAST_PORT}, such as 7860.")
    if bool(serving.cert) != bool(serving.key):
        problems.append("TLS needs both --cert and --key; found one of them.")
    return problems


def _file_problems(serving: Serving) -> list[str]:
    given = {"--auth": serving.auth, "--cert": serving.cert, "--key": serving.key}
    missing = [f"{flag} '{path}' is not a file." for flag, path in given.items() if path and not path.is_file()]
    if serving.slides_root and not serving.slides_root.is_dir():
        missing.append(f"--slides-root '{serving.slides_root}' is not a folder.")
    return missing or [*_account_problems(serving.auth), *_certificate_problems(serving.cert, serving.key)]


def _account_problems(path: Path | None) -> list[str]:
    accounts = _accounts(path) if path else [("not", "asked for")]
    if accounts and all(name and password for name, password in accounts):
        return []
    return [f"--auth '{path}': expected one name:password a line, found a line without one, or no line."]


def _certificate_problems(cert: Path | None, key: Path | None) -> list[str]:
    if not (cert and key):
        return []
    try:
        # The password is empty: else one would be asked for at the terminal.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        return [f"--cert '{cert}' and --key '{key}' are not a matching pair in PEM without a password ({error})."]
    return []


def _upload_problems(serving: Serving) -> list[str]:
    """Refuse a temporary folder below a blocked one: Gradio would refuse every upload."""
    temporary = Path(tempfile.gettempdir()).resolve()
    return [
        f"The temporary folder '{temporary}' lies in '{folder}', whose files are never served, so every upload would "
        "be refused. Set TMPDIR to a folder outside it, or start from another folder."
        for folder in _blocked(serving)
        if _is_below(temporary, folder)
    ]


def _blocked(serving: Serving) -> list[Path]:
    root = (serving.slides_root,) if serving.slides_root else ()
    return sorted({folder.resolve() for folder in (Path.home(), Path.cwd(), *serving.blocked, *root)})


def _is_below(path: Path, folder: Path) -> bool:
    # Gradio compares paths in lower case.
    return Path(str(path).lower()).is_relative_to(str(folder).lower())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _accounts(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(name, password) for name, _, password in (line.partition(":") for line in lines)]


def _remove_if_abandoned(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        _log.debug("another page is running in %s", folder)
    finally:
        os.close(handle)
