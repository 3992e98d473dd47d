"""The transports: plain, TLS and Sentinel."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import redis
from kombu.transport import redis as kombu_redis

from channelsq.transport.enduring import EnduringTransport
from channelsq.transport.kombu_poller_internals import Poller, keep_polling
from channelsq.transport.leases import Leases
from channelsq.transport.sentinel_channel import SentinelConnections, SentinelUrls
from channelsq.transport.streams_channel import Channel

#: Seconds between two checks for answers that no later send has read.
LOOK_EVERY = 0.5


class _OnceLoop:
    """An event loop that adds a reader once: Kombu adds every connection in every turn, with a system call for each."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        if fd not in self._hub.readers:
            self._hub.add_reader(fd, callback, *args)


class Transport(EnduringTransport):
    """``redis-streams://``: queues on Redis Streams; everything else is from Kombu's Redis transport."""

    Channel = Channel

    #: Gossip, mingle, fanout events and ``worker_disable_prefetch`` check for this name.
    driver_type = "redis"

    implements = kombu_redis.Transport.implements.extend(batch_publish=False)
    supports_batch_publish = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Poller = Poller()
        self.leases = Leases()
        #: The event loop that drives this transport, if there is one.
        self.hub: Any = None
        self._looking: Any = None
        if "celery.worker" in sys.modules:  # this process is a worker, and has not created its pool yet
            importlib.import_module("channelsq.transport.requests")

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let an event loop drive the transport: it receives whole batches."""
        self.hub = loop
        super().register_with_event_loop(connection, _OnceLoop(loop))
        keep_polling(self.cycle, loop)
        self._stop_looking()
        self._looking = loop.call_repeatedly(LOOK_EVERY, self._look_for_answers)

    def _look_for_answers(self) -> None:
        for channel in self.cycle.channels:
            channel.look_for_answer()
            channel.look_for_silence()

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def close_connection(self, connection: Any) -> None:
        """Close the channels."""
        self.hub = None
        self._stop_looking()
        super().close_connection(connection)


class SSLChannel(Channel):
    """A channel that always uses TLS."""

    connection_class = redis.SSLConnection

    def pool_params(self, params: dict[str, Any]) -> dict[str, Any]:
        """Refuse parameters without TLS."""
        params = super().pool_params(params)
        if not issubclass(params["connection_class"], redis.SSLConnection):
            raise ValueError("rediss-streams is TLS over TCP; a Unix socket's URL is redis-streams+socket:///path")
        return params


class SSLTransport(Transport):
    """``rediss-streams://``; the server's certificate is verified unless the URL has ``?ssl_cert_reqs=none``."""

    Channel = SSLChannel


class SentinelChannel(SentinelConnections, Channel, kombu_redis.SentinelChannel):
    """A channel to the primary that Sentinel names."""

    from_transport_options = (
        *Channel.from_transport_options,
        *kombu_redis.SentinelChannel.from_transport_options[len(kombu_redis.Channel.from_transport_options) :],
    )


class SentinelTransport(SentinelUrls, Transport):
    """``sentinel-streams://``."""

    Channel = SentinelChannel
