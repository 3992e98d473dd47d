"""Limits of a request's head: its size, its time, and the number of requests that wait on one connection."""

from __future__ import annotations

from channelsq.interface.basis.request_validation import Flaw


class HeadBounds:
    """The measured size of the request line and the headers, for one request after another.

    Args:
        max_size: the largest head, in bytes.
        pipelined: requests of one connection that may wait for the responses to earlier ones.
    """

    __slots__ = ("_max_size", "_pipelined", "_size", "is_complete")

    def __init__(self, max_size: int, pipelined: int) -> None:
        self._max_size = max_size
        self._pipelined = pipelined
        self._size = 0
        #: Whether the head is complete: headers after the body are trailers.
        self.is_complete = False

    def begin(self, waiting: int) -> None:
        """Begin with the next request.

        Args:
            waiting: the number of requests that wait on this connection.

        Raises:
            Flaw: too many requests wait.
        """
        if waiting >= self._pipelined:
            raise Flaw(429, f"more than {self._pipelined} requests wait for the responses to earlier ones")
        self._size = 0
        self.is_complete = False

    def measure(self, size: int) -> None:
        """Count bytes of the head.

        Raises:
            Flaw: the head is too large.
        """
        self._size += size
        if self._size > self._max_size:
            raise Flaw(431, f"request line and headers of more than {self._max_size} bytes")
