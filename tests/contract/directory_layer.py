"""A channel layer in a directory: a small layer of the kind that is written outside of channelsq.

One file is one message, and one file is one membership.  A lock on one file makes each operation atomic, between
threads and processes.  It is slow, and workers cannot read it; it is here to hold the published contract against.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from channelsq.core import names
from channelsq.exceptions import ChannelFull
from channelsq.layers import BaseChannelLayer
from channelsq.layers.contract.layer_values import ChannelState, Deliver, Listener, Received, Send
from channelsq.layers.groups.group_stores import GroupSizes, GroupStore

logger = logging.getLogger(__name__)


class Stored(NamedTuple):
    """A message in its file, for one or more channels of one queue."""

    path: Path
    channels: list[str]
    deadline: float
    packed: bytes
    group: str | None


class DirectoryGroups(GroupStore):
    """Groups as directories, memberships as files in them with the time of their end.

    Args:
        path: the directory of all groups.
        expiry: seconds that a membership lives.
    """

    def __init__(self, path: Path, expiry: float) -> None:
        super().__init__(expiry)
        self._path = path

    def add(self, group: str, channel: str) -> None:
        (self._path / group).mkdir(parents=True, exist_ok=True)
        (self._path / group / channel).write_text(str(time.time() + self.expiry))

    def discard(self, group: str, channel: str) -> None:
        (self._path / group / channel).unlink(missing_ok=True)

    def members(self, group: str) -> list[str]:
        now, found = time.time(), list((self._path / group).glob("*"))
        return [each.name for each in found if float(each.read_text()) > now]

    def sizes(self, most: int, seconds: float) -> GroupSizes:
        sizes = {each.name: len(self.members(each.name)) for each in self._path.glob("*")}
        filled = {group: size for group, size in sizes.items() if size}
        return GroupSizes(dict(itertools.islice(filled.items(), most)), len(filled) > most)

    def forget(self, channel: str) -> None:
        for group in self._path.glob("*"):
            self.discard(group.name, channel)

    def flush(self) -> None:
        for membership in self._path.glob("*/*"):
            membership.unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: no file stays open."""


class DirectoryListener:
    """A thread that delivers the messages of one process's channels.

    Args:
        layer: the layer.
        prefix: the part of the channels' names that they share, ``"name.<process>!"``.
        deliver: called for each message.
    """

    connected = True

    def __init__(self, layer: DirectoryChannelLayer, prefix: str, deliver: Deliver) -> None:
        self._layer = layer
        self._prefix = prefix
        self._deliver = deliver
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            for stored in self._layer.take_all(self._prefix):
                self._deliver(stored.channels, msgpack.unpackb(stored.packed), stored.group)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


class DirectoryChannelLayer(BaseChannelLayer):
    """Channels and groups in one directory of a local disk.

    Args:
        path: the directory.
        config: see :class:`channelsq.layers.BaseChannelLayer`.
    """

    def __init__(self, *, path: Path, **config: Any) -> None:
        super().__init__(**config)
        self._path = path
        self._group_store = DirectoryGroups(path / "groups", self.group_expiry)
        self._numbers = itertools.count()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _queue(self, channel: str) -> Path:
        name = names.process_part(channel) if names.is_process_channel(channel) else channel
        return self._path / "messages" / name

    def _waiting(self, channel: str) -> Iterator[Stored]:
        """Yield the messages of a channel's queue in order; delete expired ones."""
        for path in sorted(self._queue(channel).glob("*")):
            stored = Stored(path, *msgpack.unpackb(path.read_bytes()))
            if stored.deadline > time.time():
                yield stored
            else:
                path.unlink()

    # -- sending

    def dispatch(self, sends: Sequence[Send]) -> None:
        full: ChannelFull | None = None
        with self._locked():
            for send in sends:
                if send.group:
                    self._put_group(send)
                elif not self._put([send.target], send):
                    full = full or ChannelFull(send.target, self.capacity_of(send.target))
        if full is not None:
            raise self.tally.count_full(full)

    def _put_group(self, send: Send) -> None:
        by_process, others = self._group_store.addresses(send.target)
        for channels in [*(list(channels) for _, channels in by_process), *([channel] for channel in others)]:
            if not self._put(channels, send):
                self.note_dropped(send.target, channels[0])

    def _put(self, channels: list[str], send: Send) -> bool:
        """Write a message for channels of one queue; return False if it is full."""
        queue, channel = self._queue(channels[0]), channels[0]
        if sum(channel in stored.channels for stored in self._waiting(channel)) >= self.capacity_of(channel):
            return False
        queue.mkdir(parents=True, exist_ok=True)
        due = time.time() + send.delay
        content = [channels, due + self.expiry, send.body, send.target if send.group else None]
        (queue / f"{due:020.6f}-{next(self._numbers):09}").write_bytes(msgpack.packb(content))
        if not names.is_process_channel(channel) and not names.is_single_reader(channel):
            self.tally.count_sent(channel)
        return True

    # -- receiving

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        wanted = self.check_wanted(channels)
        end = time.monotonic() + (self.block_timeout if block else 0)
        pause = threading.Event()
        while (found := self._take(wanted)) is None and time.monotonic() < end:
            pause.wait(0.01)
        return found or (None, None)

    def _take(self, wanted: list[str]) -> tuple[str, dict[str, Any]] | None:
        with self._locked():
            for asked in wanted:
                for stored in self._waiting(asked):
                    due = float(stored.path.name.partition("-")[0])
                    channel = stored.channels[0] if asked[-1] == "!" else asked
                    if due > time.time() or channel not in stored.channels:
                        continue
                    others = [each for each in stored.channels if each != channel]
                    if others:
                        stored.path.write_bytes(msgpack.packb([others, *stored[2:]]))
                    else:
                        stored.path.unlink()
                    return channel, msgpack.unpackb(stored.packed)
        return None

    def take_all(self, prefix: str) -> list[Stored]:
        """Take every message of one queue."""
        with self._locked():
            found = list(self._waiting(prefix))
            for stored in found:
                stored.path.unlink()
            return found

    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        self.check_wanted([prefix])
        return DirectoryListener(self, prefix, deliver)

    # -- groups and housekeeping

    @property
    def _groups(self) -> GroupStore:
        return self._group_store

    def depth(self, channel: str) -> int:
        with self._locked():
            return len(list(self._waiting(channel)))

    def channel_state(self, channel: str) -> ChannelState:
        with self._locked():
            waiting = list(self._waiting(channel))
        oldest = time.time() + self.expiry - waiting[0].deadline if waiting else None
        return ChannelState(len(waiting), None, oldest)

    def purge(self, channel: str) -> int:
        return len(self.take_all(channel))

    def flush(self) -> None:
        with self._locked():
            for message in (self._path / "messages").glob("*/*"):
                message.unlink()
            self._group_store.flush()

    def close(self) -> None:
        """Do nothing: no file stays open."""
