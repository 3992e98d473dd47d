"""The transports: plain, TLS and Sentinel."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import redis
import redis.sentinel
from kombu.transport import redis as kombu_redis
from kombu.utils.url import url_to_parts
from redis.backoff import NoBackoff
from redis.retry import Retry

from channelsq.transport.enduring import EnduringTransport
from channelsq.transport.kombu_channel import keep_polling
from channelsq.transport.leases import Leases
from channelsq.transport.poller import Poller
from channelsq.transport.streams_channel import Channel

#: Seconds that a Sentinel has to answer, unless the transport options set another number.
SENTINEL_TIMEOUT = 2.0


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
        for channel in list(self.cycle._channels):
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

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params = super()._connparams(asynchronous)
        if not issubclass(params["connection_class"], redis.SSLConnection):
            raise ValueError("rediss-streams is TLS over TCP; a Unix socket's URL is redis-streams+socket:///path")
        return params


class SSLTransport(Transport):
    """``rediss-streams://``; the server's certificate is verified unless the URL has ``?ssl_cert_reqs=none``."""

    Channel = SSLChannel


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """A channel to the master that Sentinel names; the transport option ``master_name`` is required."""

    from_transport_options = (
        *Channel.from_transport_options,
        *kombu_redis.SentinelChannel.from_transport_options[len(kombu_redis.Channel.from_transport_options) :],
    )

    connection_class = kombu_redis.SentinelChannel.connection_class
    connection_class_ssl = kombu_redis.SentinelChannel.connection_class_ssl

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        # Kombu's own version reads only alternates whose scheme is the literal "sentinel".
        master = getattr(self, "master_name", None)
        if master is None:
            raise ValueError("transport option master_name is not set; it is the name Sentinel knows the master by")
        params = dict(self._connparams(asynchronous))
        address = (params.pop("host", None), params.pop("port", None))
        client: Any = self.connection.client
        parts = [url_to_parts(url) for url in client.alt]
        sentinels = [(part.hostname, part.port or self.connection.default_port) for part in parts]
        manager: Any = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            sentinels or [address],
            min_other_sentinels=getattr(self, "min_other_sentinels", 0),
            sentinel_kwargs=self._sentinel_options(params),
            **params,
        )
        if asynchronous:
            self._async_sentinel_manager = manager  # Kombu closes both with the channel
        else:
            self._sentinel_manager = manager
        credentials = {name: params[name] for name in ("username", "password") if name in params}
        return manager.master_for(master, redis.Redis, **credentials).connection_pool

    def _sentinel_options(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return options that skip a silent Sentinel soon: redis-py would try it ten times, for longer than a lease."""
        defaults = {name: value for name, value in params.items() if name.startswith("socket_")}
        defaults["socket_connect_timeout"] = defaults.get("socket_connect_timeout") or SENTINEL_TIMEOUT
        defaults["socket_timeout"] = defaults.get("socket_timeout") or SENTINEL_TIMEOUT
        return {**defaults, "retry": Retry(NoBackoff(), 0), **(getattr(self, "sentinel_kwargs", None) or {})}


class SentinelTransport(Transport):
    """``sentinel-streams://``."""

    default_port = 26379
    Channel = SentinelChannel
