"""The link to a layer in this process's memory, which never waits for anything: it is called at once."""

from __future__ import annotations

from channelsq.interface.link.link_contract import Publication
from channelsq.interface.link.replies import Replies
from channelsq.interface.link.retrying_link import RetryingLink
from channelsq.layers.contract.layer_values import Listener


class DirectLink(RetryingLink):
    """See :class:`channelsq.interface.link.link_contract.Link`."""

    _listeners: list[Listener]

    async def _start(self, prefixes: list[str], replies: Replies) -> None:
        self._listeners = [self.layer.channel_layer.listen(prefix, replies.deliver) for prefix in prefixes]

    async def _stop(self) -> int:
        for listener in self._listeners:
            listener.stop()
        return 0

    @property
    def idle(self) -> bool:
        return True

    def _try(self, publication: Publication, pause: float) -> None:
        send, publisher = publication.send, publication.publisher
        error = self._attempt(lambda: self.layer.dispatch((send,)), send.target, quiet=publisher is not None)
        if publisher is not None:
            self._loop.call_soon(self._tried, publication, pause, error)

    def _forget(self, channel: str) -> None:
        self._forgotten(
            channel, self._attempt(lambda: self.layer.channel_layer.forget_channel(channel), channel, quiet=True)
        )
