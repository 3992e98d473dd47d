"""The interface processes of one supervisor tell each other what they have counted.

Each listens on a Unix socket in the folder that the supervisor made for them, which only their user may enter.  Who
connects is told everything at once, and asks nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

from channelsq.interface.basis.log_fields import extra

logger = logging.getLogger("channelsq.interface")

#: Bytes that one process may tell, far more than all metrics take.
_MOST = 4 * 1024 * 1024


class Peers:
    """The processes that serve together, for one of them.

    Args:
        number: which one this is.
        folder: where their sockets are.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self._folder = folder
        self._tell: Callable[[], bytes]
        self._server: asyncio.Server | None = None

    async def join(self, tell: Callable[[], bytes]) -> None:
        """From now on the others get what ``tell`` gives; those that asked a predecessor with this number ask here."""
        self._tell = tell
        new = self._folder / f"new-{self.number}-{os.getpid()}"
        try:
            listening = socket.socket(socket.AF_UNIX)
            try:
                listening.bind(str(new))
                self._server = await asyncio.start_unix_server(self._on_peer, sock=listening)
            except BaseException:
                listening.close()
                raise
            # The predecessor, which takes its leave, is not found any more.
            os.rename(new, self._folder / f"metrics-{self.number}")
        except OSError as error:
            logger.warning("the other processes' metrics lack these: %s", error, extra=extra("no_peers"))

    def leave(self) -> None:
        """Tell nobody any more."""
        if self._server is not None:
            self._server.close()

    async def ask(self, timeout: float) -> dict[int, bytes]:
        """By number, what the others tell; without those that do not within ``timeout`` seconds."""
        found = {int(match[1]): each for each in self._folder.iterdir() if (match := _NAME.fullmatch(each.name))}
        found.pop(self.number, None)
        answers = await asyncio.gather(*(self._ask_one(path, timeout) for path in found.values()))
        return {number: answer for number, answer in zip(found, answers, strict=True) if answer}

    async def _ask_one(self, path: Path, timeout: float) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_unix_connection(str(path), limit=_MOST)
                try:
                    return await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return b""  # it has ended, or hangs

    async def _on_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._tell())
        writer.close()


_NAME = re.compile(r"metrics-(\d+)")
