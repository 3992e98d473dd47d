"""The part of a channel layer that needs no broker: its settings, its counters, and the identity of the process."""

from __future__ import annotations

import fnmatch
import os
import re
import secrets
from collections.abc import Mapping

from channelsq import exceptions
from channelsq.core import names
from channelsq.core.logs import LogLimit


class Identity:
    """The identity of a process in the names of its channels."""

    def __init__(self) -> None:
        self._made: tuple[int, str] = (0, "")

    def here(self) -> str:
        """Return the identity of this process; after a fork it is another one."""
        pid, identity = self._made
        if pid != os.getpid():
            identity = secrets.token_hex(6)
            self._made = (os.getpid(), identity)
        return identity


class Counts:
    """The counters of a layer in this process."""

    def __init__(self) -> None:
        self.dropped = 0
        self.unsent = 0


class LayerSettings:
    """The settings of every channel layer.

    Args:
        expiry: seconds that an unread message lives.
        group_expiry: seconds that a membership lives after the last ``group_add``.
        capacity: the most unread messages that a channel holds.
        channel_capacity: ``{pattern: capacity}`` for channels with another capacity; a pattern is a glob
            (``"http.request*"``) or a compiled regular expression; the first that matches counts.
        message_size_limit: the largest packed message, in bytes.
        consume_later_limit: how often a consumer may raise ConsumeLater on one message.
        unrouted: ``"accept"`` or ``"refuse"``, for WebSockets that no route matches.
        streaming_responses: the most streaming responses that run at once in a process with consumers; None for
            half of its threads.

    Raises:
        InvalidChannelLayerError: a setting is invalid.
    """

    def __init__(
        self,
        *,
        expiry: float = 60,
        group_expiry: float = 86_400,
        capacity: int = 100,
        channel_capacity: Mapping[str | re.Pattern[str], int] | None = None,
        message_size_limit: int = 1024 * 1024,
        consume_later_limit: int = 10,
        unrouted: str = "accept",
        streaming_responses: int | None = None,
    ) -> None:
        for name, value in (
            ("expiry", expiry),
            ("group_expiry", group_expiry),
            ("capacity", capacity),
            ("message_size_limit", message_size_limit),
            ("consume_later_limit", consume_later_limit),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise exceptions.InvalidChannelLayerError(
                    f"CHANNEL_LAYERS CONFIG[{name!r}] must be a number above 0, not {value!r}"
                )
        if unrouted not in ("accept", "refuse"):
            raise exceptions.InvalidChannelLayerError(
                f"CHANNEL_LAYERS CONFIG['unrouted'] must be 'accept' or 'refuse', not {unrouted!r}"
            )
        if streaming_responses is not None and (
            isinstance(streaming_responses, bool) or not isinstance(streaming_responses, int) or streaming_responses < 1
        ):
            raise exceptions.InvalidChannelLayerError(
                "CHANNEL_LAYERS CONFIG['streaming_responses'] must be a whole number above 0, or None for half of the "
                f"threads, not {streaming_responses!r}"
            )
        self.expiry = expiry
        self.group_expiry = group_expiry
        self.capacity = capacity
        self.channel_capacity = dict(channel_capacity or {})
        self.message_size_limit = message_size_limit
        self.consume_later_limit = consume_later_limit
        self.unrouted = unrouted
        self.streaming_responses = streaming_responses
        for pattern, limit in self.channel_capacity.items():
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                raise exceptions.InvalidChannelLayerError(
                    f"CHANNEL_LAYERS CONFIG['channel_capacity'][{pattern!r}] must be a whole number above 0, "
                    f"not {limit!r}"
                )
        self._patterns = [
            (p if isinstance(p, re.Pattern) else re.compile(fnmatch.translate(p)), n)
            for p, n in self.channel_capacity.items()
        ]
        self._capacities: dict[str, int] = {}
        self._process = Identity()
        self._counts = Counts()
        self._drops = LogLimit()

    # -- identity

    def join(self, other: LayerSettings) -> None:
        """Have the identity and the counters of another layer, of which this one is a part."""
        self._process, self._counts = other._process, other._counts

    @property
    def dropped(self) -> int:
        """The number of group messages that this process dropped because a member's channel was full."""
        return self._counts.dropped

    @property
    def unsent(self) -> int:
        """The number of times that this process failed to send all messages after a commit."""
        return self._counts.unsent

    @property
    def process(self) -> str:
        """The identity of this process in names of ``!`` channels; it changes after a fork."""
        return self._process.here()

    def new_channel(self, pattern: str) -> str:
        """Return a new channel name of this process, from ``"name!"`` or ``"name?"``.

        Raises:
            TypeError: the pattern ends with neither.
        """
        return names.new_channel_name(pattern, self.process)

    def capacity_of(self, channel: str) -> int:
        """Return the most unread messages that ``channel`` may hold."""
        # Clients' channels of one kind share an entry, because their number is unbounded.
        key = names.process_part(channel) if names.is_process_channel(channel) else "".join(channel.partition("?")[:2])
        try:
            return self._capacities[key]
        except KeyError:
            limit = next((n for pattern, n in self._patterns if pattern.match(channel)), self.capacity)
            if len(self._capacities) < 1000:
                self._capacities[key] = limit
            return limit
