"""A link that is told of a full channel when it has tried, and tries again for those who may wait for room."""

from __future__ import annotations

from abc import abstractmethod

from channelsq.exceptions import ChannelFull
from channelsq.interface.link.link_contract import Link, Publication

#: Seconds between two attempts to send to a full channel, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


class RetryingLink(Link):
    """The link of layers that only say whether a message was sent; see :class:`Link`."""

    def submit(self, publication: Publication) -> None:
        self._try(publication, _FIRST_PAUSE)

    @abstractmethod
    def _try(self, publication: Publication, pause: float) -> None:
        """Send, and call :meth:`_tried` in the event loop if there is a publisher."""

    def _tried(self, publication: Publication, pause: float, error: Exception | None) -> None:
        """Tell the publisher, or try again.

        A publisher that waits for a lost broker, too, tries again by itself.
        """
        may_wait = not publication.waits_for_broker and self._loop.time() + pause < publication.deadline
        if may_wait and isinstance(error, ChannelFull):
            self._loop.call_later(pause, self._try_again, publication, pause)
        else:
            publication.tell(error)

    def _try_again(self, publication: Publication, pause: float) -> None:
        if not publication.cancelled:  # meanwhile
            self._try(publication, min(pause * 1.5, _LONGEST_PAUSE))
