"""The statistics of a layer: the extension "statistics" of ASGI 1.0.

Sends cost nothing more for them: most numbers are the broker's own, read when somebody asks; the others are counters in
this process's memory.

https://asgi.readthedocs.io (legacy: channel layers, "Extensions")
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from channelsq.core import names
from channelsq.exceptions import ChannelFull
from channelsq.layers.contract.layer_settings import LayerSettings
from channelsq.layers.contract.layer_values import ChannelState

#: Statistics by their keys, which are those of ASGI 1.0; a value that the layer cannot tell is missing.
Numbers: TypeAlias = dict[str, float]

MESSAGES, PER_SECOND = "messages_count", "messages_count_per_second"
PENDING, AGE, FULL = "messages_pending", "messages_max_age", "channel_full_count"

#: All keys.
KEYS = frozenset({MESSAGES, PER_SECOND, PENDING, AGE, FULL})

#: The most channels that are counted apart from each other; the totals are complete in any case.
_MOST_CHANNELS = 10_000

#: The shortest time, in seconds, over which a rate is computed.
_LEAST = 1.0


class Tally:
    """The counters of this process; threads share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: How often ChannelFull was raised, on all channels.
        self.full = 0
        self._sent: Counter[str] = Counter()
        self._full: Counter[str] = Counter()

    def count_sent(self, channel: str) -> None:
        """Count a message to a channel that workers consume."""
        with self._lock:
            if channel in self._sent or len(self._sent) < _MOST_CHANNELS:
                self._sent[channel] += 1

    def count_full(self, error: ChannelFull) -> ChannelFull:
        """Count an error that is about to be raised, and return it."""
        key = _key_of(error.channel)
        with self._lock:
            self.full += 1
            if key in self._full or len(self._full) < _MOST_CHANNELS:
                self._full[key] += 1
        return error

    def sent_to(self, channel: str) -> int:
        """Return how many messages this process has sent to a channel."""
        return self._sent[channel]

    def full_of(self, channel: str) -> int:
        """Return how often ChannelFull was raised for a channel; channels of one process share a number."""
        return self._full[_key_of(channel)]

    def channels(self) -> set[str]:
        """Return the channels that messages were counted for."""
        with self._lock:
            return set(self._sent)


class Statistics(LayerSettings):
    """The methods of the extension."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # it checks them
        #: The counts of this process.
        self.tally = Tally()
        #: The time.monotonic() and the number of messages of an earlier look; "" stands for all channels.
        self._looks: dict[str, tuple[float, float]] = {}

    def channel_state(self, channel: str) -> ChannelState:
        """Return the state of a channel that workers consume."""
        raise NotImplementedError

    def known_channels(self) -> set[str]:
        """Return the channels, of those that workers consume, that this process has used."""
        return self.tally.channels()

    def statistics(self, channels: Iterable[str] | None = None) -> dict[str, float]:
        """Return the statistics of the layer, with the keys of :meth:`channel_statistics`.

        Args:
            channels: the channels that are added up; by default those of the routing, or without a routing those that
                this process has used. ``channel_full_count`` is of all channels.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        found = [self._numbers_of(channel) for channel in self.known_channels() | set(channels or ())]
        numbers: Numbers = {
            MESSAGES: sum(each[MESSAGES] for each in found),
            FULL: self.tally.full,
        }
        pending = [each[PENDING] for each in found if PENDING in each]
        if pending or not found:
            numbers[PENDING] = sum(pending)
        ages = [each[AGE] for each in found if AGE in each]
        if ages or numbers.get(PENDING) == 0:
            numbers[AGE] = max(ages, default=0.0)
        return self._with_rate("", numbers)

    def global_statistics(self) -> dict[str, float]:
        """Return the statistics of the layer; ASGI's name of :meth:`statistics`."""
        return self.statistics()

    def channel_statistics(self, channel: str) -> dict[str, float]:
        """Return the statistics of one channel.

        Returns:
            numbers by their keys; a number that the layer cannot tell is missing. ``messages_count``: messages sent
            to the channel; ``messages_count_per_second``: the same since an earlier call of this process, at least a
            second ago; ``messages_pending``: messages that wait; ``messages_max_age``: seconds since the oldest of
            these was sent, 0 without any; ``channel_full_count``: how often this process raised ChannelFull for it.
            Of ``!`` and ``?`` channels only the last one is known.

        Raises:
            TypeError: the channel's name is invalid.
            BrokerUnavailable: the broker does not answer.
        """
        names.check_channel_name(channel, receive=True)
        full = self.tally.full_of(channel)
        if names.is_process_channel(channel) or names.is_single_reader(channel):
            return {FULL: full}
        return self._with_rate(channel, {**self._numbers_of(channel), FULL: full})

    def _numbers_of(self, channel: str) -> Numbers:
        state = self.channel_state(channel)
        sent = self.tally.sent_to(channel) if state.sent is None else state.sent
        numbers: Numbers = {MESSAGES: sent}
        if state.waiting is not None:
            numbers[PENDING] = state.waiting
        if state.oldest is not None or state.waiting == 0:
            numbers[AGE] = state.oldest or 0.0
        return numbers

    def _with_rate(self, channel: str, numbers: Numbers) -> Numbers:
        """Add the messages per second since an earlier look, if there was one."""
        now, count = time.monotonic(), numbers[MESSAGES]
        then, before = self._looks.get(channel, (now, count))
        if count < before:  # the broker has begun to count anew
            then, before = now, count
        if now - then >= _LEAST and now > then:
            numbers[PER_SECOND] = (count - before) / (now - then)
            then, before = now, count
        if channel in self._looks or len(self._looks) < _MOST_CHANNELS:
            self._looks[channel] = then, before
        return numbers


def _key_of(channel: str) -> str:
    """Return the part of a name that channels of one kind share: their number is unbounded."""
    if names.is_process_channel(channel):
        return names.process_part(channel)
    return "".join(channel.partition("?")[:2])
