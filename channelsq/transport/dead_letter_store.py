"""Dead letters: messages with which too many consumers died, stored where they cannot kill more of them.

::

    with app.connection_for_write() as connection:
        letters = DeadLetters(connection)
        for letter in letters.all():
            print(letter.id, letter.queue, letter.task, letter.deaths)
            letters.replay(letter)

The transport options ``max_deaths`` and ``max_dead_letters`` set the number of deaths and of kept dead letters; see
docs/how-to/extend/transport.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from channelsq.redis_core.compact import ForeignPayload
from channelsq.redis_core.entries import DEAD_PREFIX, pairs
from channelsq.redis_core.operations import ask, run
from channelsq.redis_core.scripts import REPLAY
from channelsq.transport import payloads
from channelsq.transport.payloads import Payload
from channelsq.transport.streams_channel import Channel
from channelsq.transport.streams_transport import Transport

if TYPE_CHECKING:
    from kombu import Connection

#: The number of dead letters that one command reads.
CHUNK = 20


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter."""

    #: The id of the dead letter, ``<ms>-<n>``; a dead letter of another queue may have the same.
    id: str
    queue: str
    #: How many consumers died while they held the message.
    deaths: int
    #: The known cause of the last death.
    reason: str
    #: The message as the transport wrote it.
    data: bytes
    #: The stream of the message: the queue's name, and the priority step if above 0.
    stream: str

    @property
    def died(self) -> datetime:
        """The time when the message became a dead letter, by Redis's clock."""
        return datetime.fromtimestamp(int(self.id.partition("-")[0]) / 1000, UTC)

    @property
    def payload(self) -> Payload:
        """The message in Kombu's form: ``body``, ``headers``, ``properties``, content type and encoding."""
        return payloads.decode(self.data)

    @property
    def task(self) -> str | None:
        """The Celery task's name; for a message of channelsq, the channel's name."""
        return self._header("task")

    @property
    def task_id(self) -> str | None:
        """The Celery task's id."""
        return self._header("id")

    def _header(self, name: str) -> str | None:
        """Return a header's value, or None if there is none or the data is not a message of Kombu's."""
        try:
            value = self.payload["headers"].get(name)
        except ForeignPayload:
            return None
        return None if value is None else str(value)


class DeadLetters:
    """The dead letters on a broker.

    Args:
        connection: to a broker with this transport; its options set the key prefix (``global_keyprefix``).

    Raises:
        ValueError: the connection uses another transport.
            kombu.exceptions.OperationalError: the broker cannot be reached.
    """

    def __init__(self, connection: Connection) -> None:
        if not isinstance(connection.transport, Transport):
            raise ValueError(
                f"{connection.as_uri()} keeps no dead letters; they are for brokers on redis-streams:// and its like"
            )
        connection.ensure_connection(max_retries=1, interval_start=0)  # the default would retry for ever
        self._channel: Channel = connection.default_channel  # type: ignore[assignment]

    def _key(self, queue: str) -> str:
        return self._channel.streams.prefix + DEAD_PREFIX + queue

    def queues(self) -> list[str]:
        """Return the sorted names of the queues that have dead letters."""
        prefix = self._key("")
        pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", prefix) + "*"
        cursor: Any = 0
        found: set[str] = set()
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "stream")
            ((cursor, keys),) = self._channel.carry_out(ask(command))
            found.update(key.decode().removeprefix(prefix) for key in keys)
            if not int(cursor):
                return sorted(found)

    def all(self, queue: str | None = None) -> Iterator[DeadLetter]:
        """Yield the dead letters of one queue, or of all, the oldest first."""
        for name in self.queues() if queue is None else [queue]:
            start = "-"
            while entries := self._range(name, start):
                yield from entries
                start = f"({entries[-1].id}"

    def find(self, identity: str, queue: str | None = None) -> list[DeadLetter]:
        """Return the dead letters with an id, of one queue or of all; more than one is rare."""
        if not re.fullmatch(r"\d{1,19}-\d{1,19}", identity):
            return []
        queues = self.queues() if queue is None else [queue]
        return [letter for name in queues for letter in self._range(name, identity, identity)]

    def replay(self, letter: DeadLetter) -> bool:
        """Put the message at the end of its queue, marked redelivered, with no deaths and without an expiration.

        Return False, and send nothing, if the dead letter does not exist any more.
        """
        payload = letter.payload
        payloads.set_deaths(payload, 0)
        payloads.mark_redelivered(payload)
        payload["properties"].pop("expiration", None)
        return self._take_out(letter, payloads.encode(payload))

    def delete(self, letter: DeadLetter) -> bool:
        """Delete the dead letter; return False if it does not exist any more."""
        return self._take_out(letter, b"")

    def _take_out(self, letter: DeadLetter, data: bytes) -> bool:
        keys = [self._key(letter.queue), self._channel.streams.key(letter.stream)]
        return bool(self._channel.carry_out(run(REPLAY, keys, letter.id, data)))

    def _range(self, queue: str, start: str, end: str = "+") -> list[DeadLetter]:
        (reply,) = self._channel.carry_out(ask(("XRANGE", self._key(queue), start, end, "COUNT", CHUNK)))
        return [_letter(queue, identity.decode(), fields) for identity, fields in reply]


def _letter(queue: str, identity: str, fields: Any) -> DeadLetter:
    values = pairs(fields)
    return DeadLetter(
        id=identity,
        queue=queue,
        # Every program that can write to Redis can write anything here.
        deaths=int(deaths) if (deaths := values.get(b"d", b"")).isdigit() else 0,
        reason=values.get(b"r", b"").decode(errors="replace"),
        data=values.get(b"m", b""),
        stream=values.get(b"s", queue.encode()).decode(errors="replace"),
    )
