"""The primary of a group of Redis servers, as their Sentinels name it: whom to ask, and what follows from an answer.

This is the only place that asks Sentinels.  Each new connection asks for the current primary.  While connections are
open, a thread asks twice a second, and ends those to a server that is not the primary any more.  A primary that is
frozen or cut off would not end them itself, and a command to it would wait for a long time, or be lost.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakSet, WeakValueDictionary

import redis.sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

logger = logging.getLogger("channelsq.redis")

Address = tuple[str, int]

#: Seconds that a Sentinel has to connect and to answer, unless ``sentinel_kwargs`` has another number.
PATIENCE = 2.0

#: Seconds between two questions while connections are open.
ASKED_EVERY = 0.5

#: Seconds for which a Sentinel that did not answer is asked only if no other one answers.
SKIPPED_FOR = 5.0

#: Seconds after which the thread ends if no connection is open.
LINGERS = 5.0


class Follower(Protocol):
    """A connection to the primary."""

    @property
    def followed_address(self) -> Address | None:
        """The server to which it is connected, or connects; None while it is closed."""

    def primary_moved(self) -> None:
        """End the connection; called in another thread."""


class Primary:
    """The primary, under the name that the Sentinels have for it.

    Args:
        sentinels: host and port of each Sentinel.
        name: the name.
        options: redis-py's options of the connections to the Sentinels.
        min_other_sentinels: how many others a Sentinel must see, so that its answer counts.
    """

    def __init__(
        self, sentinels: Sequence[Address], name: str, options: Mapping[str, Any], min_other_sentinels: int = 0
    ) -> None:
        self.sentinels = tuple(sentinels)
        self.name = name
        self._options = {
            "socket_connect_timeout": PATIENCE,
            "socket_timeout": PATIENCE,
            "retry": Retry(NoBackoff(), 0),
            **options,
            "decode_responses": True,
        }
        self._min_other_sentinels = min_other_sentinels
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._asked = threading.Lock()
        self._followers: WeakSet[Any] = WeakSet()
        self._thread: threading.Thread | None = None
        self._manager: Any = None
        self._skipped: dict[int, float] = {}
        self._last: Address | None = None
        #: The time at which the last question began, and its answer.
        self._answer: tuple[float, Address | RedisConnectionError] = (0.0, RedisConnectionError())

    def forget_after_fork(self) -> None:
        """Forget the connections and the thread of the parent process, in a child."""
        self._begin()

    # -- asking

    def address(self) -> Address:
        """Return the address of the current primary.  Blocks for at most some seconds.

        Raises:
            redis.ConnectionError: no Sentinel answers, or none knows a primary that is up; the text names the reason.
        """
        arrived = time.monotonic()
        with self._asked:
            began, answer = self._answer
            if began < arrived:  # otherwise another thread has asked meanwhile
                began, answer = self._answer = time.monotonic(), self._answer_of_all()
        if isinstance(answer, RedisConnectionError):
            raise type(answer)(*answer.args)
        return answer

    def _answer_of_all(self) -> Address | RedisConnectionError:
        found: list[tuple[int, Address]] = []
        problems: list[str] = []
        for number in self._in_order():
            if number in self._skipped and found:
                continue
            self._ask(number, found, problems)
        if not found:
            return redis.sentinel.MasterNotFoundError(
                f"the sentinels name no primary {self.name!r}: {'; '.join(problems)}"
            )
        # A Sentinel learns within seconds of a failover that another one has carried out.
        _, address = max(found)
        if self._last not in (None, address):
            logger.warning(
                "the primary %s is %s:%d now; it was %s:%d", self.name, *address, *(self._last or ()),
                extra={"action": "primary_moved"},
            )  # fmt: skip
        self._last = address
        return address

    def states(self) -> list[tuple[Address, str | None]]:
        """Return each Sentinel with the reason why its answer cannot be used, None if it can."""
        found: list[tuple[Address, str | None]] = []
        with self._asked:
            for number, sentinel in enumerate(self.sentinels):
                problems: list[str] = []
                self._ask(number, [], problems)
                found.append((sentinel, problems[0] if problems else None))
        return found

    def _in_order(self) -> Iterator[int]:
        """Yield the numbers of the Sentinels, those last that did not answer lately."""
        now = time.monotonic()
        self._skipped = {number: until for number, until in self._skipped.items() if until > now}
        numbers = range(len(self.sentinels))
        yield from [number for number in numbers if number not in self._skipped]
        yield from [number for number in numbers if number in self._skipped]

    def _ask(self, number: int, found: list[tuple[int, Address]], problems: list[str]) -> None:
        host, port = self.sentinels[number]
        where = f"{host}:{port}"
        if self._manager is None:
            self._manager = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
                self.sentinels, min_other_sentinels=self._min_other_sentinels, sentinel_kwargs=self._options
            )
        client: Any = self._manager.sentinels[number]
        try:
            state = client.execute_command("SENTINEL MASTER", self.name)
            # Until a failover has ended, only this answer has the replica that was promoted.
            primary = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.name)
        except ResponseError as error:
            if "No such master" in str(error):
                problems.append(f"{where} knows {_known(client)}: correct master_name")
            else:
                problems.append(f"{where} refuses: {error}")
            return
        except (RedisError, OSError) as error:
            self._skipped[number] = time.monotonic() + SKIPPED_FOR
            problems.append(f"{where} does not answer: {error}")
            return
        self._skipped.pop(number, None)
        before = (str(state["ip"]), int(state["port"]))
        address = before if primary is None else (str(primary[0]), int(primary[1]))
        if address != before or self._manager.check_master_state(state, self.name):
            found.append((int(state["config-epoch"]), address))
        else:
            problems.append(f"{where} says that {address[0]}:{address[1]} is down")

    # -- following

    def follow(self, connection: Follower) -> None:
        """End a connection when its server is not the primary any more.

        Args:
            connection: a connection whose ``followed_address`` is set; it is held by a weak reference.
        """
        with self._lock:
            self._followers.add(connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="channelsq-sentinel", daemon=True)
                self._thread.start()

    def _open(self) -> list[Any]:
        with self._lock:
            return [each for each in self._followers if each.followed_address is not None]

    def _run(self) -> None:
        pause = threading.Event()
        used = time.monotonic()
        while True:
            pause.wait(ASKED_EVERY)
            now = time.monotonic()
            if self._open():
                used = now
                self._compare()
            elif now - used > LINGERS:
                with self._lock:
                    if not any(each.followed_address is not None for each in self._followers):
                        self._thread = None
                        break
        self._disconnect()

    def _compare(self) -> None:
        try:
            address = self.address()
        except RedisConnectionError as error:
            logger.debug("%s", error)  # a connection that is in order is kept
            return
        except Exception:  # the thread must survive
            logger.exception("the sentinels could not be asked", extra={"action": "sentinels_failed"})
            return
        for connection in self._open():
            if connection.followed_address not in (None, address):
                connection.primary_moved()

    def _disconnect(self) -> None:
        with self._asked:
            manager, self._manager = self._manager, None
        for client in manager.sentinels if manager is not None else ():
            client.connection_pool.disconnect()


def _known(client: Any) -> str:
    """Return the names of the primaries that a Sentinel knows, for an error."""
    try:
        names = sorted(client.execute_command("SENTINEL MASTERS"))
    except (RedisError, OSError):
        return "no such name"
    return f"only {', '.join(map(repr, names))}" if names else "no primary at all"


#: The primaries that connections of this process follow.
_primaries: WeakValueDictionary[tuple[Any, ...], Primary] = WeakValueDictionary()
_primaries_lock = threading.Lock()


def primary_of(
    sentinels: Sequence[Address], name: str, options: Mapping[str, Any] | None = None, min_other_sentinels: int = 0
) -> Primary:
    """Return the primary for these arguments of :class:`Primary`; the same object while it is in use."""
    chosen = dict(options or {})
    key = (frozenset(sentinels), name, repr(sorted(chosen.items())), min_other_sentinels)
    with _primaries_lock:
        primary = _primaries.get(key)
        if primary is None:
            primary = _primaries[key] = Primary(sentinels, name, chosen, min_other_sentinels)
        return primary


def _after_fork() -> None:
    global _primaries_lock
    _primaries_lock = threading.Lock()  # a thread that does not exist here may hold the other one
    for primary in list(_primaries.values()):
        primary.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
