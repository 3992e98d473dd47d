"""A temporary file that keeps the parts of a request's body for another run of the request."""

from __future__ import annotations

import logging
import tempfile
from typing import TYPE_CHECKING

from channelsq.interface.basis.log_fields import extra

if TYPE_CHECKING:
    from channelsq.interface.context.server_context import ServerContext

logger = logging.getLogger("channelsq.interface.http")

#: Bytes of one body above which it moves to disk.
_IN_MEMORY = 1024 * 1024


class Spool:
    """The parts of one body that were sent to a worker.

    All bodies together may take ``Limits.body_kept`` bytes.  A body that would exceed them, or that the disk has no
    room for, is not kept; a worker that asks for it again makes the server respond with 503.

    Args:
        context: counts the bytes of all bodies.
        channel: the request's channel, for the log.
    """

    def __init__(self, context: ServerContext, channel: str) -> None:
        self._context = context
        self._channel = channel
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._kept = 0
        #: The number of written bytes.
        self.size = 0
        #: Whether all of them can be read.
        self.complete = True

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        self.size += len(data)
        if not self.complete:
            return
        if self._context.bodies_kept + len(data) > self._context.limits.body_kept:
            self._give_up(f"bodies already take {self._context.limits.body_kept} bytes")
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._give_up(error)
            return
        self._kept += len(data)
        self._context.bodies_kept += len(data)

    def read(self, start: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``start`` on; the spool must be :attr:`complete`."""
        self._file.seek(start)
        data: bytes = self._file.read(size)
        self._file.seek(0, 2)
        return data

    def close(self) -> None:
        """Delete everything."""
        self.complete = False
        self._context.bodies_kept -= self._kept
        self._kept = 0
        self._file.close()

    def _give_up(self, reason: object) -> None:
        logger.warning(
            "%s: its body is not kept for another run: %s",
            self._channel,
            reason,
            extra=extra("body_not_kept", self._channel),
        )
        self.close()
