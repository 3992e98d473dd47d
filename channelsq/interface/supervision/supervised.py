"""The data that :mod:`channelsq.interface.supervision.supervisor` passes to a supervised process, and its answers."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

#: The environment variable with which the supervisor passes these data.
VARIABLE = "CHANNELSQ_SUPERVISED"


@dataclass(frozen=True, slots=True)
class Supervised:
    """One of the processes that serve together.

    Attributes:
        number: its number, from 1.
        sockets: file descriptors of the sockets on which it listens, those of each address together.
        ready: the pipe to which it writes one byte when clients can connect.
        life: the pipe that ends when the supervisor ends.
        folder: a private folder of all these processes, in which they exchange data.
    """

    number: int
    sockets: tuple[tuple[int, ...], ...]
    ready: int
    life: int
    folder: Path

    def to_text(self) -> str:
        """Return the value of the environment variable."""
        sockets = ";".join(",".join(map(str, each)) for each in self.sockets)
        return f"{self.number} {sockets} {self.ready} {self.life} {self.folder}"

    @staticmethod
    def take(environ: MutableMapping[str, str]) -> Supervised | None:
        """Return the data in the environment variable, and remove it; None without a supervisor."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        number, sockets, ready, life, folder = text.split(" ", 4)
        fds = tuple(tuple(map(int, each.split(","))) for each in sockets.split(";"))
        given = Supervised(int(number), fds, int(ready), int(life), Path(folder))
        for fd in (*itertools.chain(*fds), given.ready, given.life):
            os.set_inheritable(fd, False)  # not for programs that an application may start
        return given

    def listening(self, address: int = 0) -> list[socket.socket]:
        """Return the sockets of an address, by its place among those of :class:`Together`; to be called once."""
        return [socket.socket(fileno=fd) for fd in self.sockets[address]]

    def say_ready(self) -> None:
        """Tell the supervisor that clients can connect."""
        os.write(self.ready, b"r")
        os.close(self.ready)

    def when_alone(self, stop: Callable[[], None]) -> None:
        """Call ``stop``, in a thread, when the supervisor has ended for any reason."""

        def watch() -> None:
            os.read(self.life, 1)
            stop()

        threading.Thread(target=watch, name="channelsq-supervisor-watch", daemon=True).start()
