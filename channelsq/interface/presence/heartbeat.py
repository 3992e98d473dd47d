"""The heartbeat of this interface server, and the cleanup after other servers that are dead.

A killed server leaves members in groups, reply queues, and applications that were never told of the end of its sockets.
The interface server that notices the missing heartbeat cleans up for it.  All of this runs in a thread of its own, so
that an unreachable broker does not block the event loop.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from channelsq.asgi import ChannelLayerWrapper
from channelsq.core import names
from channelsq.core.wire_version import log_others
from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.interface.basis.limits import Limits
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.replies import Delivery
from channelsq.interface.presence.socket_groups import Memberships
from channelsq.layers.contract.membership_notes import Change, read_note
from channelsq.layers.groups.presence import Presence

logger = logging.getLogger("channelsq.interface.heartbeat")

#: Seconds in which changes are gathered for one write.
_GATHER = 0.1

#: Sockets of a dead process whose applications are told at once, and seconds until the next: mass disconnects must
#: leave room for live sockets.
_AT_ONCE, _PAUSE = 50, 0.25

#: Channels that are taken out of their groups in one write.
_FORGOTTEN_TOGETHER = 200

#: Seconds for which a single process cleans up after another.
_CLAIM = 30.0

#: Seconds in which other servers' heartbeats return after a Redis outage: a server that waits for Redis gives up after
#: five.  The second value is for a server that has just started, which does not know of earlier outages.
_RETURN, _FIRST_LOOK = 6.0, 2.0

#: The ``order`` of the disconnects of a dead server: no server waits for their reports, and they wait for no message.
UNORDERED = -1


#: Memberships that were lost: each a group, a channel, and the seconds until it ends.
Lost = list[tuple[str, str, float]]


class Heartbeat:
    """The heartbeat of one interface process.

    Args:
        layer: the channel layer, one with groups in Redis.
        presence: the record of processes and sockets.
        limits: the interval of the heartbeat, and its validity.
        on_buried: called, in the thread, when other servers have declared this process dead.
        root_path: the path under which the site is mounted, or "".
        announces: further announcements of this process; None for an interface server of HTTP and WebSockets.
            A process with announcements of its own, a gateway, has reply channels instead of sockets.  They are not
            recorded in Redis, they stay open when others take the process for dead, and their memberships end with
            them here.  It leaves dead servers that had sockets to others.
        is_recorded: returns whether a socket is recorded here; on several servers each is on one of them.
        on_restored: called, in the thread, with lost memberships that were restored: each a group, a channel, and the
            seconds until it ends.
    """

    def __init__(
        self,
        layer: ChannelLayerWrapper,
        presence: Presence,
        limits: Limits,
        on_buried: Callable[[], None],
        root_path: str = "",
        announces: Mapping[str, Any] | None = None,
        is_recorded: Callable[[str], bool] = lambda channel: True,
        on_restored: Callable[[Lost], None] = lambda lost: None,
    ) -> None:
        self._layer = layer
        self._announces = announces
        self._channel_layer = layer.channel_layer
        self._presence = presence
        self._every = limits.heartbeat_every
        self._lifetime = limits.heartbeat_lifetime
        self._on_buried = on_buried
        self._on_restored = on_restored
        self._root_path = root_path
        self._has_sockets = announces is None
        self._is_recorded = is_recorded if self._has_sockets else _never
        self._process = layer.channel_layer.process
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        #: The path of each open socket, by its reply channel; and the changes that Redis does not know yet, None for
        #: closed.
        self._open: dict[str, str] = {}
        self._unknown: dict[str, str | None] = {}
        self._memberships = Memberships(layer.channel_layer.group_expiry)
        #: Channels that joined a group although the socket is gone.
        self._late_members: list[str] = []
        self._afterwards = False
        #: Processes that seemed dead at the last check, and the time of this server's claim, by the monotonic clock.
        self._claimed: dict[str, float] = {}
        self._due = 0.0
        self._is_loss_logged = False
        self._warned = False
        #: The time of the last heartbeat, and of the next check for dead processes, by the monotonic clock.
        self._beaten = time.monotonic()
        self._look_from = self._beaten + _FIRST_LOOK
        self._thread = threading.Thread(target=self._run, name="channelsq-heartbeat", daemon=True)
        self._sweeper: threading.Thread | None = None

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, as on an orderly shutdown; blocks for a moment."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(5)
        if self._sweeper is not None:
            self._sweeper.join(5)

    def opened(self, channel: str, path: str) -> None:
        """Record an open socket, or a gateway's reply channel; called in the event loop."""
        with self._changed:
            self._open[channel] = path
            if self._is_recorded(channel):
                self._unknown[channel] = path
                self._changed.notify()

    def closed(self, channel: str) -> None:
        """Record that a socket is gone, and that its application was told."""
        with self._changed:
            self._open.pop(channel, None)
            if self._is_recorded(channel):
                self._unknown[channel] = None
            if not self._has_sockets and channel in self._memberships:
                self._late_members.append(channel)
            self._afterwards |= self._memberships.closed(channel)
            self._changed.notify()

    def on_reply(self, delivery: Delivery) -> None:
        """Record that a socket joined or left a group; see :class:`channelsq.interface.link.replies.Receiver`."""
        change = read_note(delivery.message)
        if change is not None:
            self.on_change(change)

    def on_change(self, change: Change, *, is_elsewhere: bool = False) -> None:
        """Record that a socket joined or left a group; write it if it may have been written to another server."""
        with self._changed:
            if change.channel not in self._open:
                # The consumer outlived the socket, for example because its message was redelivered to another worker.
                if change.joined:
                    self._late_members.append(change.channel)
                    self._changed.notify()
            elif self._memberships.changed(change, is_elsewhere=is_elsewhere):
                self._afterwards = True
                self._changed.notify()

    def on_done(self, order: int) -> None:
        """Do nothing; see :class:`channelsq.interface.link.replies.Receiver`."""

    def check_now(self) -> None:
        """Compare with the broker at once, as the connection to it was lost and is back."""
        with self._changed:
            self._due = 0.0
            self._changed.notify()

    # -- in the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= self._due:
                    self._due = time.monotonic() + self._every
                    self._beat()
                    if not self._warned:
                        self._warned = True
                        self._channel_layer.warn_operator()
                        self._look_at_versions()
                    self._write()
                    if time.monotonic() >= self._look_from:
                        self._look_for_the_dead()
                    else:
                        self._due = min(self._due, self._look_from)
                else:
                    self._write()
                self._is_loss_logged = False
            except BrokerUnavailable as error:
                self._due = 0.0  # Redis may have lost everything when it is back
                self._log_loss(error)
                self._stopping.wait(min(1.0, self._every))
            except Exception:
                # The heartbeat continues after any error of a sweep.
                logger.exception("the heartbeat failed", extra=extra("heartbeat_failed"))
                self._stopping.wait(min(1.0, self._every))
            with self._changed:
                self._changed.wait_for(self._is_something_to_do, max(0.0, self._due - time.monotonic()))
            self._stopping.wait(_GATHER)
        try:
            if not self._has_sockets:
                self._forget([*self._late_members, *self._memberships.channels()])
            self._presence.leave(self._process)
        except BrokerUnavailable as error:
            self._log_loss(error)

    def _is_something_to_do(self) -> bool:
        return (
            bool(self._unknown or self._late_members)
            or self._afterwards
            or time.monotonic() >= self._due
            or self._stopping.is_set()
        )

    def _log_loss(self, error: BrokerUnavailable) -> None:
        if not self._is_loss_logged:
            self._is_loss_logged = True
            logger.warning("no heartbeat: %s", error, extra=extra("heartbeat_lost"))

    def _beat(self) -> None:
        with self._changed:
            noted = sum(channel not in self._unknown for channel in self._recorded())
        beat = self._presence.beat(self._process, self._lifetime, self._announces)
        now = time.monotonic()
        if now - self._beaten > self._lifetime / 2:
            # Redis was away, or this process was: the keys of other live servers may have expired as well.
            self._look_from = now + _RETURN
        self._beaten = now
        if beat.is_marked_dead:
            logger.error(
                "other interface servers declared this one dead, as it sent no heartbeat for %g s",
                self._lifetime,
                extra=extra("taken_for_dead"),
            )
            if not self._has_sockets:
                # If the cleanup has not ended, it marks this process again, and the next heartbeat comes here again.
                self._presence.revive(self._process)
                self._restore()
                return
            with self._changed:
                # They are closed now, and their memberships must not be restored.
                self._memberships.give_up(self._open)
                self._open.clear()
                self._unknown = {channel: path for channel, path in self._unknown.items() if path is None}
            try:
                self._presence.revive(self._process)  # first: a socket that connects after the closing may join groups
            finally:
                self._on_buried()
        elif beat.unknown or beat.sockets < noted:  # a replica that took over may lack the latest writes
            with self._changed:
                self._unknown.update(self._recorded())
            self._restore()

    def _recorded(self) -> dict[str, str]:
        """Return the open sockets that are recorded here; under the lock."""
        return {channel: path for channel, path in self._open.items() if self._is_recorded(channel)}

    def _look_at_versions(self) -> None:
        """Log once whether other processes of the site run another version."""
        others = [each for each in self._presence.announced() if each.name != self._process]
        log_others(others, f"layer {self._layer.alias}")

    def _restore(self) -> None:
        lost = self._memberships.lost()
        if not lost:
            return
        self._channel_layer.restore_memberships(lost)
        logger.warning(
            "Redis had lost clients of this process: %d group memberships were restored",
            len(lost),
            extra=extra("memberships_restored"),
        )
        self._on_restored(lost)

    def _put_right(self) -> None:
        """Write the changes that raced with a restoration, or were written to another server."""
        with self._changed:
            self._afterwards = False
        afterwards = self._memberships.afterwards()
        try:
            self._channel_layer.restore_memberships(afterwards.begun, afterwards.ended)
            self._forget(afterwards.gone)
        except BrokerUnavailable:
            self._memberships.again(afterwards)
            self._afterwards = True
            raise

    def _write(self) -> None:
        if self._afterwards:
            self._put_right()
        with self._changed:
            late, self._late_members = self._late_members, []
            unknown, self._unknown = self._unknown, {}
        if late:
            try:
                self._forget(late)
            except BrokerUnavailable:
                with self._changed:
                    self._late_members += late
                    self._unknown = {**unknown, **self._unknown}
                raise
        if not unknown:
            return
        opened = {channel: path for channel, path in unknown.items() if path is not None}
        try:
            self._presence.note(self._process, opened, [channel for channel in unknown if channel not in opened])
        except BrokerUnavailable:
            with self._changed:
                self._unknown = {**unknown, **self._unknown}
            raise

    # -- cleanup after dead servers

    def _look_for_the_dead(self) -> None:
        """Clean up after dead servers in a thread of its own: a slow or unreachable broker must not stop this
        heartbeat.
        """
        # A Redis that evicts may have dropped the key of a live server.  So each is claimed first, and its cleanup
        # begins only if the claim still stands after the time of a live server's next heartbeat, which would remove the
        # claim.
        now, before = time.monotonic(), self._claimed
        is_sweeping = self._sweeper is not None and self._sweeper.is_alive()
        self._claimed = {}
        dead: list[str] = []
        for process in self._presence.dead():
            since = before.get(process)
            if process == self._process or (self._announces and any(self._presence.socket_counts([process]))):
                continue
            if since is None or now - since >= _CLAIM:  # the claim has expired by then, and another server may hold it
                if self._presence.claim(process, _CLAIM):
                    self._claimed[process] = now
                    self._due = now + self._every + _GATHER
            elif is_sweeping or now - since < self._every:
                self._claimed[process] = since
            else:
                dead.append(process)
        if dead:
            self._sweeper = threading.Thread(target=self._sweep, args=[dead], name="channelsq-sweep", daemon=True)
            self._sweeper.start()

    def _sweep(self, dead: Iterable[str]) -> None:
        try:
            for process in dead:
                if self._presence.keep(process, _CLAIM):
                    # First of all, so that the process learns of it if it comes back, and a late consumer cannot add a
                    # member that the cleanup misses.
                    self._presence.mark_dead(process)
                    self._clean_up_after(process)
        except BrokerUnavailable as error:  # a later heartbeat does the rest
            logger.warning("no cleanup: %s", error, extra=extra("sweep_failed"))
        except Exception:
            logger.exception("the cleanup failed", extra=extra("sweep_failed"))

    def _clean_up_after(self, process: str) -> None:
        closed = 0
        while some := self._presence.some_sockets(process, _AT_ONCE):
            done = list(itertools.takewhile(lambda channel: self._say_disconnect(channel, some[channel]), some))
            closed += len(done)
            if done:
                self._presence.note(process, {}, done)
            if len(done) < len(some) or self._stopping.wait(_PAUSE):
                self._presence.release(process)  # another server continues, or this one with a later heartbeat
                return
            if not self._presence.keep(process, _CLAIM):
                return  # the process is back, and closes its sockets itself
        if not self._presence.keep(process, _CLAIM):
            return
        members = self._presence.members(process)
        while some_members := list(itertools.islice(members, _FORGOTTEN_TOGETHER)):
            self._channel_layer.forget_channels(some_members)
        self._channel_layer.end_reply_queues(process)
        self._presence.remove(process)
        logger.warning(
            "cleaned up after a dead interface server: %d sockets",
            closed,
            extra=extra("interface_swept", process),
        )

    def _forget(self, channels: Iterable[str]) -> None:
        """Remove channels from all their groups, and keep the heartbeat alive meanwhile."""
        rest = iter(channels)
        while some := list(itertools.islice(rest, _FORGOTTEN_TOGETHER)):
            self._channel_layer.forget_channels(some)
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + self._every
                self._beat()

    def _say_disconnect(self, channel: str, path: str) -> bool:
        """Clean up a socket, and publish its disconnect; return False if the channel has no room now."""
        self._channel_layer.forget_channel(channel)
        content = {"reply_channel": channel, "path": path, "code": 1006, "reason": "", "order": UNORDERED}
        if self._root_path:
            content["root_path"] = self._root_path
        try:
            self._layer.dispatch((self._layer.prepare(names.WEBSOCKET_DISCONNECT, content),))
        except ChannelFull:
            return False
        return True


def _never(channel: str) -> bool:
    return False
