"""Records of a layer: small named documents that processes share for a limited time.

A record has fields with bytes.  All its fields end together, some time after the last change.  A layer keeps records
where its groups are: in Redis, in the file of the IPC layer, or in this process.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from channelsq.layers.wire.protection import NONE, Protection
from channelsq.layers.wire.signing import Refused
from channelsq.redis_core.commands import Command
from channelsq.redis_core.operations import ask, run
from channelsq.redis_core.records import delete_records, field_words, read_reply
from channelsq.redis_core.scripts import REPLACE_FIELD

if TYPE_CHECKING:
    from channelsq.layers.groups.group_stores import RedisGroups

logger = logging.getLogger("channelsq.layers")

#: The most records in the memory of a process; those that were changed first are dropped.
MOST_IN_MEMORY = 10_000

#: Random bytes before each stored value.
_TAG = 8

#: Fields whose last stored bytes are remembered, to save the reading before a change.
_REMEMBERED = 2_000


class _Recent:
    """The last stored bytes of a bounded number of fields.  Not safe for several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def get(self, key: tuple[str, str]) -> bytes | None:
        return self._values.get(key)

    def put(self, key: tuple[str, str], value: bytes | None) -> None:
        self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
            if len(self._values) > self._most:
                self._values.popitem(last=False)


class RecordStore(ABC):
    """The records of a layer.  Safe to call from any thread."""

    @abstractmethod
    def read(self, record: str) -> dict[str, bytes]:
        """Return the fields of a record; ``{}`` if there is none.

        Raises:
            BrokerUnavailable: the store does not answer.
        """

    @abstractmethod
    def write(self, record: str, fields: Mapping[str, bytes], seconds: float) -> None:
        """Set fields, and let the record live for so many seconds from now; errors as :meth:`read`."""

    @abstractmethod
    def change(
        self, record: str, field: str, work: Callable[[bytes | None], bytes | None], seconds: float
    ) -> bytes | None:
        """Replace a field by what ``work`` returns for its value, although other processes change it as well.

        Args:
            record, field: the names.
            work: called with the value, None if there is none; perhaps several times.  It returns the new value, or
                None to change nothing.
            seconds: the time that the record lives from now.

        Returns:
            The value of the field afterwards.

        Raises:
            BrokerUnavailable: the store does not answer; the change may have been made.
        """

    @abstractmethod
    def delete(self, record: str) -> None:
        """Delete a record, if there is one; errors as :meth:`read`."""

    @abstractmethod
    def flush(self) -> None:
        """Delete every record; errors as :meth:`read`."""


class StoredRecords(RecordStore):
    """Records in a store that can replace a field if its bytes are the expected ones.

    Args:
        protection: encrypts and signs the values; those without a valid signature are read as missing.
    """

    def __init__(self, protection: Protection = NONE) -> None:
        self._protection = protection
        self._lock = threading.Lock()
        self._recent = _Recent(_REMEMBERED)

    def read(self, record: str) -> dict[str, bytes]:
        opened = {field: self._opened(record, field, raw) for field, raw in self._read(record).items()}
        return {field: value for field, value in opened.items() if value is not None}

    def write(self, record: str, fields: Mapping[str, bytes], seconds: float) -> None:
        self._write(record, {field: self._sealed(record, field, fields[field], seconds) for field in fields}, seconds)

    def change(
        self, record: str, field: str, work: Callable[[bytes | None], bytes | None], seconds: float
    ) -> bytes | None:
        place = record, field
        with self._lock:
            raw = self._recent.get(place)
        is_known = raw is not None
        if not is_known:
            raw = self._read(record).get(field)
        while True:
            value = None if raw is None else self._opened(record, field, raw)
            changed = work(value)
            if changed is None and not is_known:
                return value
            # The remembered bytes may be out of date: whether they need no change is asked of the store as well.
            sealed = raw if changed is None else self._sealed(record, field, changed, seconds)
            assert sealed is not None
            is_replaced, current = self._replace(record, field, raw, sealed, seconds)
            with self._lock:
                self._recent.put(place, sealed if is_replaced else None)
            if is_replaced:
                return value if changed is None else changed
            raw, is_known = current, False

    def _sealed(self, record: str, field: str, value: bytes, seconds: float) -> bytes:
        # Equal values of two processes are told apart, so each knows whether its change was made.
        value = os.urandom(_TAG) + value
        if not self._protection.is_on:
            return value
        return self._protection.bare(f"record:{record}:{field}", value, seconds * 1000)

    def _opened(self, record: str, field: str, raw: bytes) -> bytes | None:
        if not self._protection.is_on:
            return raw[_TAG:]
        try:
            return self._protection.open_bare(f"record:{record}:{field}", raw)[_TAG:]
        except Refused as error:
            logger.warning("record %s: %s is ignored: %s", record, field, error, extra={"action": "record_refused"})
            return None

    @abstractmethod
    def _read(self, record: str) -> dict[str, bytes]:
        """Return the stored bytes of all fields."""

    @abstractmethod
    def _write(self, record: str, fields: Mapping[str, bytes], seconds: float) -> None:
        """Store the bytes of fields."""

    @abstractmethod
    def _replace(
        self, record: str, field: str, expected: bytes | None, value: bytes, seconds: float
    ) -> tuple[bool, bytes | None]:
        """Store ``value`` if the stored bytes are ``expected``; return whether they were, and what they were if not."""


class MemoryRecords(StoredRecords):
    """The records of a layer inside one process."""

    def __init__(self) -> None:
        super().__init__()
        self._records: OrderedDict[str, tuple[float, dict[str, bytes]]] = OrderedDict()
        self._own = threading.Lock()

    def _read(self, record: str) -> dict[str, bytes]:
        with self._own:
            return dict(self._fields(record))

    def _write(self, record: str, fields: Mapping[str, bytes], seconds: float) -> None:
        with self._own:
            self._store(record, {**self._fields(record), **fields}, seconds)

    def _replace(
        self, record: str, field: str, expected: bytes | None, value: bytes, seconds: float
    ) -> tuple[bool, bytes | None]:
        with self._own:
            fields = self._fields(record)
            current = fields.get(field)
            if current != expected:
                return False, current
            self._store(record, {**fields, field: value}, seconds)
            return True, None

    def delete(self, record: str) -> None:
        with self._own:
            self._records.pop(record, None)

    def flush(self) -> None:
        with self._own:
            self._records.clear()

    def _fields(self, record: str) -> dict[str, bytes]:
        end, fields = self._records.get(record, (0.0, {}))
        if end > time.monotonic():
            return fields
        self._records.pop(record, None)
        return {}

    def _store(self, record: str, fields: dict[str, bytes], seconds: float) -> None:
        self._records[record] = time.monotonic() + seconds, fields
        self._records.move_to_end(record)
        if len(self._records) > MOST_IN_MEMORY:
            self._records.popitem(last=False)


class RedisRecords(StoredRecords):
    """Records in the Redis that holds the groups: each a hash that expires.

    Args:
        groups: the groups in that Redis.
        protection: see :class:`StoredRecords`.
    """

    def __init__(self, groups: RedisGroups, protection: Protection = NONE) -> None:
        super().__init__(protection)
        self.groups = groups

    def _key(self, record: str) -> str:
        return f"{self.groups.prefix}:record:{{{record}}}"

    def _read(self, record: str) -> dict[str, bytes]:
        (reply,) = self.groups.carry_out(lambda: ask(("HGETALL", self._key(record))))
        return read_reply(reply)

    def _write(self, record: str, fields: Mapping[str, bytes], seconds: float) -> None:
        key = self._key(record)
        setting: Command = ("HSET", key, *field_words(fields))
        self.groups.carry_out(lambda: ask(setting, ("PEXPIRE", key, max(1, int(seconds * 1000)))))

    def _replace(
        self, record: str, field: str, expected: bytes | None, value: bytes, seconds: float
    ) -> tuple[bool, bytes | None]:
        words = (field, b"" if expected is None else expected, value, max(1, int(seconds * 1000)))
        reply = self.groups.carry_out(lambda: run(REPLACE_FIELD, [self._key(record)], *words))
        # An operation may be carried out twice, and the first time may have worked.
        return (True, None) if not reply or reply[0] == value else (False, reply[0] or None)

    def delete(self, record: str) -> None:
        self.groups.carry_out(lambda: ask(("UNLINK", self._key(record))))

    def flush(self) -> None:
        self.groups.carry_out(lambda: delete_records(self.groups.prefix))
