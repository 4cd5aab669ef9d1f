"""Refuses and writes down every name look-up and every connection beyond the loopback, in each Python process.

Python imports this module by itself when its folder is on PYTHONPATH; child processes inherit both.
"""

import os
import sys
from typing import Any

_LOCAL = {"localhost", "127.0.0.1", "::1"}
_LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
_SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def _target(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The host that an event reaches for, if it is one of these."""
    if event in _LOOK_UPS:
        found = arguments[0]
        return str(found[0] if isinstance(found, tuple) else found)
    if event in _SENDS and isinstance(arguments[1], tuple):  # the address of a Unix socket is no tuple
        return str(arguments[1][0])
    return None


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    host = _target(event, arguments)
    if host is None or host in _LOCAL:
        return
    attempts = os.open(os.environ["NETWORK_ATTEMPTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(attempts, f"{os.getpid()} {event} {host} {sys.argv[:3]}\n".encode())
    os.close(attempts)
    raise OSError(f"refused: {event} {host}")


sys.addaudithook(_refuse)
