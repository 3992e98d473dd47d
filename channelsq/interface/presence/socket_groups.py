"""The group memberships of one process's clients, as far as it was told, to restore them after a loss.

A client is a socket of the interface server, or a reply channel of a gateway; the names below say "socket" for both.
No I/O.  Safe to call from any thread: the event loop records changes, and the heartbeat reads them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from channelsq.layers.contract.membership_notes import Change

#: Groups of one socket that are remembered; if it has more, the ones that it joined last.
MOST_GROUPS = 1000

#: Seconds after a restoration in which an older message about a membership may still arrive.
_SETTLING = 60.0


class Afterwards(NamedTuple):
    """The changes that a restoration may have got wrong, as they raced with it."""

    #: Memberships that exist, each a group, a channel, and the seconds until it ends.
    begun: list[tuple[str, str, float]]
    #: Memberships that have ended, each a group and a channel.
    ended: list[tuple[str, str]]
    #: Channels that are in no group any more.
    gone: list[str]


class Memberships:
    """The memberships of all sockets.

    Args:
        expiry: seconds that a membership lives after it began, or was renewed.
    """

    def __init__(self, expiry: float) -> None:
        self._expiry = expiry
        self._lock = threading.Lock()
        #: The end of each membership by the monotonic clock, by group, by channel.
        self._ends: dict[str, dict[str, float]] = {}
        self._restored: set[str] = set()
        self._restored_at = float("-inf")
        self._changed: dict[tuple[str, str], None] = {}
        self._gone: list[str] = []

    def changed(self, change: Change, *, is_elsewhere: bool = False) -> bool:
        """Record that a membership began or ended; return whether :meth:`afterwards` has something because of it.

        Args:
            change: the change.
            is_elsewhere: whether it may have been written to another server than that of this record.
        """
        group, channel, joined = change
        with self._lock:
            groups = self._ends.get(channel)
            if joined:
                if groups is None:
                    groups = self._ends[channel] = {}
                groups.pop(group, None)  # so that the newest comes last
                groups[sys.intern(group)] = time.monotonic() + self._expiry
                if len(groups) > MOST_GROUPS:
                    del groups[next(iter(groups))]
            elif groups is not None:
                groups.pop(group, None)
            if is_elsewhere:
                self._restored.add(channel)  # so that the membership ends with the socket
            elif channel not in self._restored or time.monotonic() - self._restored_at > _SETTLING:
                return False
            self._changed[group, channel] = None
            return True

    def __contains__(self, channel: object) -> bool:
        """Return whether a channel is a member of any group, as far as known."""
        with self._lock:
            return isinstance(channel, str) and bool(self._ends.get(channel))

    def channels(self) -> list[str]:
        """Return the channels that are members of groups, as far as known."""
        with self._lock:
            return [channel for channel, groups in self._ends.items() if groups]

    def closed(self, channel: str) -> bool:
        """Record that a socket is gone; return whether :meth:`afterwards` has something because of it."""
        with self._lock:
            self._ends.pop(channel, None)
            if channel not in self._restored:
                return False
            self._restored.discard(channel)
            self._gone.append(channel)
            return True

    def give_up(self, channels: Iterable[str]) -> None:
        """Forget channels whose sockets are about to be closed."""
        with self._lock:
            for channel in channels:
                self._ends.pop(channel, None)
                self._restored.discard(channel)

    def lost(self) -> list[tuple[str, str, float]]:
        """Return all memberships, to restore them: each a group, a channel, and the seconds until it ends."""
        now = time.monotonic()
        with self._lock:
            self._restored_at = now
            self._restored = set(self._ends)
            return [
                (group, channel, end - now)
                for channel, groups in self._ends.items()
                for group, end in groups.items()
                if end > now
            ]

    def afterwards(self) -> Afterwards:
        """Return the corrections after a restoration, and changes that were written elsewhere, each of them once."""
        now = time.monotonic()
        result = Afterwards([], [], [])
        with self._lock:
            for group, channel in self._changed:
                end = self._ends.get(channel, {}).get(group, 0.0)
                if end > now:
                    result.begun.append((group, channel, end - now))
                else:
                    result.ended.append((group, channel))
            result.gone.extend(self._gone)
            self._changed.clear()
            self._gone.clear()
        return result

    def again(self, afterwards: Afterwards) -> None:
        """Return these corrections from :meth:`afterwards` again, as they could not be written."""
        with self._lock:
            self._changed.update({(group, channel): None for group, channel, *_ in afterwards.begun})
            self._changed.update(dict.fromkeys(afterwards.ended))
            self._gone += afterwards.gone
