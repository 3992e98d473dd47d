"""The link to a layer of several servers: a link to each, and the choice among them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.log_fields import extra
from channelsq.interface.link.link_contract import Link, Publication
from channelsq.interface.link.replies import Replies
from channelsq.interface.link.streams_link import StreamsLink
from channelsq.layers.shards.sharded_layer import ShardedChannelLayer

logger = logging.getLogger("channelsq.interface.link")

#: The prefix of sockets; an HTTP request is one message, which never moves.
_SOCKETS = "websocket.send."

#: Seconds between two looks at which servers are there.
_LOOK_EVERY = 0.25

#: Seconds for which a server is away before messages that it holds are given up.
GIVEN_UP_AFTER = 10.0


class ShardedLink(Link):
    """See :class:`channelsq.interface.link.link_contract.Link`.

    The process listens on every server, and publishes a client's messages on that of the client, or on the next one in
    the order of its name while that is away.

    Args:
        layer: the layer.
        stats: where failures are counted.
        links: the link to each server.
    """

    def __init__(self, layer: ChannelLayerWrapper, stats: Counters, links: Sequence[StreamsLink]) -> None:
        super().__init__(layer, stats)
        assert isinstance(layer.channel_layer, ShardedChannelLayer)
        self._sharded = layer.channel_layer
        self._links = tuple(links)
        #: Sockets whose last message went elsewhere than to their own server.
        self._moved: dict[str, int] = {}
        #: Since when, by the loop's time, each server that is away has been so.
        self._away: dict[int, float] = {}
        self._stopping = False

    async def _start(self, prefixes: list[str], replies: Replies) -> None:
        for link in self._links:
            link.on_back = self._is_back
        await asyncio.gather(*(link.start(prefixes, replies) for link in self._links))
        self._look()

    async def _stop(self) -> int:
        self._stopping = True
        await asyncio.gather(*(link.stop() for link in self._links))
        return 0  # each link has reported its own

    def _is_back(self) -> None:
        if self.on_back is not None:
            self.on_back()

    def _look(self) -> None:
        if self._stopping:
            return
        now = self._loop.time()
        servers, health = self._sharded.placement.servers, self._sharded.health
        for place, link in enumerate(self._links):
            if link.reachable:
                if self._away.pop(place, None) is not None:
                    health.answered(place)
                    logger.warning("the server %s is back", servers[place], extra=extra("shard_back"))
                continue
            if place not in self._away:
                self._away[place] = now
                logger.warning(
                    "the server %s is away: its clients use the others", servers[place], extra=extra("shard_away")
                )
            health.failed(place, BrokerUnavailable(servers[place], "its connections are lost"))
        self._loop.call_later(_LOOK_EVERY, self._look)

    @property
    def reachable(self) -> bool:
        return any(link.reachable for link in self._links)

    @property
    def idle(self) -> bool:
        return all(link.idle for link in self._links)

    def submit(self, publication: Publication) -> None:
        send = publication.send
        client = send.home if send.home is not None and send.home.startswith(_SOCKETS) else None
        places = self._sharded.places(send)
        if client is None:
            place = self._there(places, places[0])
        else:
            own = places[0]
            before = self._moved.get(client, own) if self._moved else own
            place = self._there(places, before)
            if place != before:
                self._move(client, place, own, publication.order)
        publication.place = place
        self._links[place].submit(publication)

    def _there(self, places: Sequence[int], otherwise: int) -> int:
        """Return the first of some servers that is there; ``otherwise`` if none is."""
        for place in places:
            if self._links[place].reachable:
                return place
        return otherwise

    def _move(self, client: str, place: int, own: int, order: int) -> None:
        """Have a socket's messages go to another server from now on."""
        if place == own:
            del self._moved[client]
        else:
            self._moved[client] = place
        if order:
            self._links[place].mark_moved(client, order)

    def is_lost(self, publication: Publication) -> bool:
        since = self._away.get(publication.place)
        return since is not None and self._loop.time() - since > GIVEN_UP_AFTER

    def _forget(self, channel: str) -> None:
        self._moved.pop(channel, None)
        for link in self._links:
            link.forget(channel)
