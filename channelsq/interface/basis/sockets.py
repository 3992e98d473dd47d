"""Sockets to listen on: bound, or refused with the reason and a remedy."""

from __future__ import annotations

import errno
import os
import socket
import stat

from channelsq.interface.basis.config import ConfigError


def bind(host: str, port: int, *, shared: bool = False, option: str = "--port") -> list[socket.socket]:
    """Return sockets bound to every address of ``host``, all to the same port.

    Args:
        host: a name or an address of this machine.
        port: 0 for any free port.
        shared: whether other processes of this user may bind to the same port and share its connections.
        option: the option that sets the port, for error texts.

    Raises:
        ConfigError: the sockets cannot be bound.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"--host {host!r} is not an address of this machine: {error.strerror}") from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                bound = socket.socket(family, kind, protocol)
            except OSError:
                continue  # the name has an address of a family that this machine does not support
            sockets.append(bound)
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            bound.setblocking(False)
            port = bound.getsockname()[1]
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise ConfigError(cannot_listen(f"{host}:{port}", error, option)) from None
    if not sockets:
        raise ConfigError(f"--host {host!r} is not an address of this machine")
    return sockets


#: The first file descriptor that a service manager passes, see sd_listen_fds(3).
_FIRST_PASSED = 3


def passed_sockets() -> list[socket.socket]:
    """Return the sockets that systemd, or another service manager, has opened for this process; none if it has not.

    A further call returns none, and child processes do not take them for theirs.

    Raises:
        ConfigError: what was passed is not a listening stream socket.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    sockets = []
    for fd in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        try:
            passed = socket.socket(fileno=fd)
            is_listening = passed.type == socket.SOCK_STREAM and passed.getsockopt(
                socket.SOL_SOCKET, getattr(socket, "SO_ACCEPTCONN", 0)
            )
        except OSError:
            is_listening = 0
        if not is_listening:
            raise ConfigError(
                f"LISTEN_FDS is {count}, but file descriptor {fd} is not a listening stream socket; use ListenStream= "
                "with Accept=no in the socket unit"
            )
        passed.setblocking(False)
        sockets.append(passed)
    return sockets


def cannot_listen(where: str, error: OSError, option: str) -> str:
    """Return the error text for an unusable address, and for the option that sets another."""
    remedies = {
        errno.EADDRINUSE: f"stop the process that uses it, or choose another with {option}",
        errno.EACCES: f"choose one that this user may use with {option}",
        errno.EADDRNOTAVAIL: "choose an address of this machine with --host",
    }
    remedy = remedies.get(error.errno or 0, f"choose another with {option}")
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return f"cannot listen on {where}: {reason}; {remedy}"


def check_unix_socket(path: str) -> None:
    """Check that ``path`` is free, or a socket on which no process listens any more.

    Raises:
        ConfigError: the path is in use.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # not there, or the attempt to listen will report the problem
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"--unix-socket {path!r} is a file, not a socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return
    raise ConfigError(cannot_listen(path, OSError(errno.EADDRINUSE, ""), "--unix-socket"))


def url_of(host: str, bound: socket.socket) -> str:
    """Return the URL of a socket that is bound to an address of ``host``; its path if it is a Unix socket."""
    if bound.family == getattr(socket, "AF_UNIX", None):
        return f"unix:{bound.getsockname()}"
    port = bound.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
