"""``Message``: the argument of a consumer."""

from __future__ import annotations

import copy
import uuid
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from functools import cached_property
from typing import TYPE_CHECKING, Any

from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.channel import Channel
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.core import names
from channelsq.delivery.attempts import Run
from channelsq.delivery.pending import pending_message_store

if TYPE_CHECKING:
    from django.contrib.sessions.backends.base import SessionBase

__all__ = ["Message", "pending_message_store"]


class Message:
    """One message off a channel.

    Args:
        content: the message; its keys are those of the ASGI 1.0 message format of the channel.
        channel_name: the channel of the message; None for a message made by hand, which no route claims.
        channel_layer: the layer that carried it; replies go back through it.  None for the default one.
    """

    #: The client's user, if a decorator of :mod:`channelsq.auth` is on the consumer.
    user: Any

    #: The socket's session, if a decorator of :mod:`channelsq.sessions` or :mod:`channelsq.auth` is on the consumer.
    channel_session: SessionBase

    #: The browser's session, if such a decorator is on the consumer; None if the browser has none.
    http_session: SessionBase | Any

    #: Whether the broker delivered the message before, to a worker that may have begun with it.
    is_redelivered = False

    def __init__(
        self, content: dict[str, Any], channel_name: str | None, channel_layer: ChannelLayerWrapper | None
    ) -> None:
        self.content = content
        self.channel_layer = channel_layers[DEFAULT_CHANNEL_LAYER] if channel_layer is None else channel_layer
        #: The name of :attr:`channel`, ``""`` if it has none.
        self.channel_name = "" if channel_name is None else names.check_channel_name(channel_name)
        reply_channel = content.get("reply_channel")
        #: The channel of the client that sent this; None if the message has no ``reply_channel``.  Messages of clients
        #: have one, so its type is :class:`channelsq.Channel` (``Channel | Any``: comparisons with None are allowed).
        self.reply_channel: Channel | Any = (
            Channel(reply_channel, channel_layer=channel_layer) if reply_channel else None
        )

    @cached_property
    def _run(self) -> Run:
        return Run()

    @cached_property
    def id(self) -> str:
        """The unique id: in a worker the Celery task's id, and the same when the message is redelivered."""
        return str(uuid.uuid4())

    @cached_property
    def channel(self) -> Channel:
        """The channel of the message; created at its first use, as most consumers never need it.

        Raises:
            TypeError: the message has no channel.
        """
        return Channel(self.channel_name, channel_layer=self.channel_layer)

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.content[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self.content

    def __repr__(self) -> str:
        return f"<Message from {self.channel_name or 'no channel'} with {sorted(self.content)}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def keys(self) -> KeysView[str]:
        """Return the keys of the content."""
        return self.content.keys()

    def values(self) -> ValuesView[Any]:
        """Return the values of the content."""
        return self.content.values()

    def items(self) -> ItemsView[str, Any]:
        """Return the items of the content."""
        return self.content.items()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under ``key``, or ``default``."""
        return self.content.get(key, default)

    def copy(self) -> Message:
        """Return a message whose content can be changed, down to its innermost values, without changing this one's.

        It has the same :attr:`id`, and none of the attributes that decorators added to this one.
        """
        same = type(self)(copy.deepcopy(self.content), self.channel_name or None, self.channel_layer)
        same.id = self.id
        if same.reply_channel is not None and self.reply_channel is not None:
            same.reply_channel.attempt = self.reply_channel.attempt
        return same
