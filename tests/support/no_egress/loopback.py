"""Keeps the sockets of a process on this machine. Standard library only: it is there before anything else."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any


class NetworkError(RuntimeError):
    """Somebody tried to leave the machine."""


def _loopback(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a unix socket
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def only() -> Callable[[], None]:
    """From here on sockets reach the loopback range only; what wants more fails and says so. Returns what undoes it."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(address: object) -> None:
        if not _loopback(address):
            raise NetworkError(f"Tests stay on this machine; this one wanted {address!r}. Use a fake or a local server.")

    def guarded(self: socket.socket, address: Any) -> None:
        refuse(address)
        return connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        refuse(address)
        return connect_ex(self, address)

    def guarded_lookup(host: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        refuse((name or "", 0))
        return getaddrinfo(host, *more, **options)

    socket.socket.connect, socket.socket.connect_ex = guarded, guarded_ex
    socket.getaddrinfo = guarded_lookup

    def undo() -> None:
        socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
        socket.getaddrinfo = getaddrinfo

    return undo
