"""The source of the layer on one machine: polls, ends of messages and their sends are transactions of the site's file.

If there are messages to end, a poll ends them, writes their consumers' sends, and takes new messages in one
transaction.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from kombu import Message as KombuMessage

from channelsq.ipc.messages import LEASE, Key, Taken, Transaction
from channelsq.ipc.room import is_full
from channelsq.ipc.store import Store, has_messages
from channelsq.ipc.store_dead_letters import dead_letter
from channelsq.layers.contract.outbox import Outbox
from channelsq.layers.contract.source_contract import Plain, Source, SourceOptions, TaskMessage
from channelsq.layers.ipc_broker.store_errors import ERRORS, unavailable
from channelsq.layers.ipc_broker.store_incoming import is_compact, log_foreign, open_message
from channelsq.layers.ipc_broker.store_sender import Put, StoreOutbox, StoreSender
from channelsq.layers.kombu_broker.broker_access import KombuBroker
from channelsq.layers.wire import codec
from channelsq.redis_core.compact import ForeignPayload, NewerPayload, decode_compact
from channelsq.redis_core.suspects import MOST_DEATHS, Suspects

logger = logging.getLogger("channelsq.layers")

#: The most messages that one transaction takes.
BATCH = 256


class StoreSource(Source[Taken]):
    """Reads the channels of a layer; see :class:`Source`.

    Args:
        layer: the layer.
        store: returns the layer's store.
        sender: writes the sends of consumers.
        options: the worker's.
    """

    def __init__(
        self, layer: KombuBroker, store: Callable[[], Store], sender: StoreSender, options: SourceOptions
    ) -> None:
        self._layer = layer
        self._open_store = store
        self._sender = sender
        self._accept = options.accept
        self._credit = options.credit
        self._queues = {layer.queue(channel).name: channel for channel in options.channels}
        #: Messages that are held and not settled.
        self._held: dict[Key, None] = {}
        self._settled: deque[tuple[Key, StoreOutbox | None]] = deque()
        self._returned: deque[Key] = deque()
        self._unread: list[Taken] = []
        self._suspects = Suspects(MOST_DEATHS, LEASE)
        self._lock = threading.Lock()  # held by the writing thread
        self._waiter = store().waiter(self._queues)
        self._interrupted = False
        #: The most outcomes, and the most messages, of a transaction: fewer while there is little space for its log.
        self._most = BATCH

    # -- the connection

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        return ERRORS

    @property
    def _store(self) -> Store:
        return self._open_store()

    def connect(self) -> bool:
        _ = self._store.me  # opens the file
        return False  # this process keeps the messages that it holds for as long as it lives

    def lost(self) -> None:
        """Do nothing: the file is opened for each transaction that needs it."""

    def interrupt(self) -> None:
        self._interrupted = True
        self._waiter.interrupt()

    def close(self) -> None:
        self._give_back_all()
        try:
            self._waiter.close()
        except ERRORS as error:  # other processes clean up for this one
            logger.debug("a waiter was not closed: %s", error)

    def cut(self) -> None:
        self._give_back_all()

    def _give_back_all(self) -> None:
        held, self._held = self._held, {}
        self._unread.clear()
        self._returned.extend(held)
        self.flush()

    # -- reading

    def read(self, channel: str) -> None:
        self._queues[self._layer.queue(channel).name] = channel
        self._waiter.watch(self._queues)

    def cease(self, channel: str) -> None:
        self._queues.pop(self._layer.queue(channel).name, None)
        self._waiter.watch(self._queues)

    def poll(self, seconds: float) -> Sequence[Taken]:
        if self._unread:
            unread, self._unread = self._unread, []
            return unread
        store = self._store
        store.sweep()
        if not seconds:
            return self._exchange(store)[0]
        until, woken = time.monotonic() + seconds, False
        while True:
            if not woken:
                self._waiter.arm()
            taken, due = self._exchange(store, is_told=woken)
            if taken or self._interrupted:
                break
            if woken:  # another worker was quicker
                woken = False
                continue
            left = min(until - time.monotonic(), due)
            if left <= 0:
                break
            woken = self._waiter.sleep(left)
        self._waiter.disarm()
        return taken

    def has_credit(self) -> bool:
        return len(self._held) < self._credit

    def make_room(self, number: int) -> None:
        self._credit += number

    def unread(self, deliveries: Sequence[Taken]) -> None:
        self._unread = [*deliveries, *self._unread]

    # -- transactions

    def _exchange(self, store: Store, *, is_told: bool = False) -> tuple[list[Taken], float]:
        """Write the waiting outcomes, and take messages.

        Args:
            store: the layer's.
            is_told: whether a wake-up has announced messages, so that no check for them is needed first.

        Returns:
            the messages, and the seconds until a delayed message is due.
        """
        due = 1e9
        if not (is_told or self._settled or self._returned):
            is_there, due = store.read(self._look)
            if not is_there:
                return [], due
        limit = min(BATCH, self._credit - len(self._held))

        def take(tx: Transaction) -> list[Taken]:
            nonlocal due
            (at,) = tx.connection.execute("SELECT min(due) FROM delayed").fetchone()
            if at is not None:
                tx.put_due()
                due = max(0.001, at - tx.now)
            return self._take(tx, limit)

        taken = self._write(store, take)
        deadly = [each for each in taken if each.deaths >= MOST_DEATHS]
        for each in deadly:
            dead_letter(store, each)
            self._held.pop(each.key, None)
        return ([each for each in taken if each.deaths < MOST_DEATHS] if deadly else taken), due

    def _look(self, connection: sqlite3.Connection) -> tuple[bool, float]:
        (due,) = connection.execute("SELECT min(due) FROM delayed").fetchone()
        left = 1e9 if due is None else max(0.0, due - time.time())
        return not left or has_messages(connection, list(self._queues)), left or 0.001

    def _take(self, tx: Transaction, limit: int) -> list[Taken]:
        limit = min(limit, self._most)
        if limit <= 0:
            return []
        left = self._suspects.room(lambda tag: _key(tag) in self._held, time.monotonic())

        def admits(deaths: int) -> bool:
            nonlocal left
            cost = self._suspects.cost(deaths)
            if cost > left:
                return False
            left -= cost
            return True

        queues = list(self._queues)  # another thread may add one
        return tx.take(random.sample(queues, len(queues)), limit, admits=admits)

    def _write(self, store: Store, take: Callable[[Transaction], list[Taken]]) -> list[Taken]:
        while True:
            try:
                return self._write_some(store, take)
            except sqlite3.OperationalError as error:
                if not is_full(error) or self._most == 1:
                    raise
                self._most = max(1, self._most // 4)

    def _write_some(self, store: Store, take: Callable[[Transaction], list[Taken]]) -> list[Taken]:
        with self._lock:
            settled = [self._settled.popleft() for _ in range(min(len(self._settled), self._most))]
            returned = [self._returned.popleft() for _ in range(min(len(self._returned), self._most))]
            outboxes = [outbox for _, outbox in settled if outbox is not None]
            puts = self._sender.render((outbox.envelopes, outbox.messages) for outbox in outboxes)
            marks = [(mark,) for outbox in outboxes for mark in outbox.marks]

            def work(tx: Transaction) -> tuple[list[int], list[Taken]]:
                tx.remove(key for key, _ in settled)
                if returned:
                    tx.release(returned, again=True)
                if marks:
                    tx.connection.executemany("DELETE FROM begun WHERE mark = ?", marks)
                return [put.write(tx) for put in puts], take(tx)

            try:
                counts, taken = store.write(work)
            except BaseException:
                self._settled.extendleft(reversed(settled))
                self._returned.extendleft(reversed(returned))
                raise
            self._most = min(BATCH, self._most * 2)
            now = time.monotonic()
            for each in taken:
                self._held[each.key] = None
                if each.deaths > 1:
                    self._suspects.admit(_tag(each.key), each.deaths, now)
        self._tell_late(puts, counts)
        return taken

    def _tell_late(self, puts: Sequence[Put], counts: Sequence[int]) -> None:
        if puts:
            self._sender.tell_late(puts, counts)

    # -- what a delivery says

    def queue_of(self, delivery: Taken) -> str:
        return delivery.queue

    def plain(self, delivery: Taken) -> Plain | None:
        _, queue, payload, again, _, is_expired = delivery
        if again or is_expired or not is_compact(payload):
            return None
        try:
            name, identity, body, _ = decode_compact(payload)
            (sent_to, content), _, _ = codec.loads(body)
        except (ForeignPayload, TypeError, ValueError):
            return None
        if name != queue or sent_to != self._queues.get(queue) or identity is None or type(content) is not dict:
            return None
        signing = self._layer.signing
        if signing is not None and not signing.is_signed(queue, identity, body):
            return None
        content = self._layer.protection.encryption.content_of(queue, content)
        if content is None:
            return None
        return sent_to, identity, content

    def open(self, delivery: Taken) -> TaskMessage | None:
        try:
            message: KombuMessage = open_message(delivery, self._accept)
        except NewerPayload:
            raise
        except ForeignPayload as error:
            log_foreign(delivery.queue, error)
            self.drop(delivery)
            return None
        return message

    def is_redelivered(self, delivery: Taken, message: TaskMessage) -> bool:
        return delivery.again

    def is_expired(self, delivery: Taken, message: TaskMessage) -> bool:
        return delivery.is_expired

    # -- while a delivery is held

    def is_lost(self, delivery: Taken) -> bool:
        return delivery.key not in self._held  # it was given back when the source was closed

    # -- outcomes

    def outbox(self, delivery: Taken) -> Outbox | None:
        return StoreOutbox(self._layer)

    def settle(self, delivery: Taken, outbox: Outbox | None) -> None:
        if self._held.pop(delivery.key, False) is None:  # atomic; None: it was held, False: another worker has it
            self._settled.append((delivery.key, outbox if isinstance(outbox, StoreOutbox) else None))

    def acknowledge_first(self, delivery: Taken) -> bool:
        if delivery.key not in self._held:
            return False
        try:
            self._store.remove(delivery.key)
        except ERRORS as error:
            logger.warning("a message was not begun: %s", error, extra={"action": "not_begun"})
            self.give_back(delivery)
            return False
        self._held.pop(delivery.key, None)
        return True

    def give_back(self, delivery: Taken) -> None:
        self._returned.append(delivery.key)
        self._held.pop(delivery.key, None)

    def abandon(self, delivery: Taken) -> None:
        self._held.pop(delivery.key, None)

    def leave(self, delivery: Taken) -> None:
        self._store.write(lambda tx: tx.release([delivery.key], again=False))
        self._held.pop(delivery.key, None)

    def drop(self, delivery: Taken) -> None:
        self.settle(delivery, None)

    def set_aside(self, delivery: Taken, reason: str) -> None:
        self._store.write(lambda tx: tx.dead_letter(delivery.key, reason))
        self._held.pop(delivery.key, None)

    def flush(self) -> None:
        if not (self._settled or self._returned):
            return
        store = self._store
        try:
            while self._settled or self._returned:
                self._write(store, lambda tx: [])
        except ERRORS as error:
            logger.warning("acknowledgements wait: %s", unavailable(store.path, error), extra={"action": "acks_wait"})
        except Exception:  # they wait, too, and the thread must survive
            logger.exception("acknowledgements could not be written", extra={"action": "acks_wait"})


def _tag(key: Key) -> str:
    return f"{key.queue} {key.id}"


def _key(tag: str) -> Key:
    queue, _, identity = tag.partition(" ")
    return Key(int(queue), int(identity))
