"""What a process that is watched over by :mod:`channelsq.interface.process.supervisor` gets from it, and tells it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

#: The environment variable in which the supervisor says all this.
VARIABLE = "CHANNELSQ_SUPERVISED"


@dataclass(frozen=True, slots=True)
class Supervised:
    """One of the processes that serve together.

    Attributes:
        number: which one, from 1.
        sockets: file descriptors of the sockets that it listens on.
        ready: where it says that clients can connect: one byte.
        life: what ends when the supervisor does.
        folder: a private folder of all these processes, for what they tell each other.
    """

    number: int
    sockets: tuple[int, ...]
    ready: int
    life: int
    folder: Path

    def to_text(self) -> str:
        """For the environment."""
        return f"{self.number} {','.join(map(str, self.sockets))} {self.ready} {self.life} {self.folder}"

    @staticmethod
    def take(environ: MutableMapping[str, str]) -> Supervised | None:
        """What the environment says, which then says it no more; None if there is no supervisor."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        number, sockets, ready, life, folder = text.split(" ", 4)
        given = Supervised(int(number), tuple(map(int, sockets.split(","))), int(ready), int(life), Path(folder))
        for fd in (*given.sockets, given.ready, given.life):
            os.set_inheritable(fd, False)  # not for what an application may start
        return given

    def listening(self) -> list[socket.socket]:
        """The sockets."""
        return [socket.socket(fileno=fd) for fd in self.sockets]

    def say_ready(self) -> None:
        """Clients can connect."""
        os.write(self.ready, b"r")
        os.close(self.ready)

    def when_alone(self, stop: Callable[[], None]) -> None:
        """Call ``stop``, in a thread, when the supervisor has ended, however that came about."""

        def watch() -> None:
            os.read(self.life, 1)
            stop()

        threading.Thread(target=watch, name="channelsq-supervisor-watch", daemon=True).start()
