"""The state of a Redis server, judged by its errors: it refuses commands for now, or it is full.  No I/O."""

from __future__ import annotations

import logging

from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.log_fields import extra
from channelsq.redis_core.server_errors import FULL, is_away, text_of

logger = logging.getLogger("channelsq.interface.link")


class ServerHealth:
    """The ability of a server to do what it is asked, judged by its errors.

    Args:
        shown: the server's URL, without a password.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        #: Why the server does nothing for now.  The connection is given up as soon as what was sent before is
        #: answered, since some of that may have been done.
        self.refusal: str | None = None
        #: Whether the server is full: it refuses messages, and does all else.
        self.is_full = False

    def heed(self, error: BaseException) -> None:
        """Note what an error says of the server, if it is no fault of the command."""
        text = text_of(error)
        if not is_away(text):
            return
        if not text.startswith(FULL):
            self.refusal = self.refusal or text
        elif not self.is_full:
            self.is_full = True
            logger.error(
                "%s; messages are refused until it has room",
                BrokerUnavailable(self._shown, text),
                extra=extra("broker_full"),
            )

    def heed_write(self) -> None:
        """Note that the server would write."""
        if self.is_full:
            self.is_full = False
            logger.info("%s: there is room again", self._shown, extra=extra("broker_has_room"))

    def begin(self) -> None:
        """Note that there is another connection."""
        self.refusal = None
