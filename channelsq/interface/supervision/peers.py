"""The exchange of metrics between the interface processes of one supervisor.

Each process listens on a Unix socket in a folder of the supervisor, which only their user may enter.  A process that
connects gets all metrics at once, and sends nothing.
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

#: Bytes that one process may send, far more than all metrics take.
_MOST = 4 * 1024 * 1024


class Peers:
    """The processes that serve together, as one of them sees them.

    Args:
        number: the number of this process.
        folder: the folder of their sockets.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self._folder = folder
        self._tell: Callable[[], bytes]
        self._server: asyncio.Server | None = None

    async def join(self, tell: Callable[[], bytes]) -> None:
        """Answer the others with the result of ``tell`` from now on, also those that know the predecessor of this
        number.
        """
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
            # The others do not find the predecessor any more.
            os.rename(new, self._folder / f"metrics-{self.number}")
        except OSError as error:
            logger.warning("the other processes' metrics lack this process: %s", error, extra=extra("no_peers"))

    def leave(self) -> None:
        """Stop answering the others."""
        if self._server is not None:
            self._server.close()

    async def ask(self, timeout: float) -> dict[int, bytes]:
        """Return the others' answers by number; processes that do not answer within ``timeout`` seconds are missing."""
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
            return b""  # the process has ended, or hangs

    async def _on_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._tell())
        writer.close()


_NAME = re.compile(r"metrics-(\d+)")
