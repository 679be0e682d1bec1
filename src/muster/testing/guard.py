"""Lets nothing in this process connect to another machine."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

__all__ = ("forbid_outside",)

_asked: list[bool] = []
"""Not empty once the hook is there."""


def forbid_outside() -> None:
    """From now on, and to the end of the process: a connection elsewhere is a `PermissionError`.

    It is Python's own audit that is asked, so that no library goes by; other processes are out of
    its reach.
    """
    if not _asked:
        _asked.append(True)
        sys.addaudithook(_look)


def _look(event: str, args: tuple[Any, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        address = args[1]
        if isinstance(address, tuple) and address and not _is_here(address[0]):
            raise PermissionError(f"muster check lets nothing out: {address[0]} was not called")
    elif event == "socket.getaddrinfo" and not _is_here(args[0]):
        raise PermissionError(f"muster check lets nothing out: {args[0]} was not looked up")


def _is_here(host: object) -> bool:
    if host is None or host == "":
        return True
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False
