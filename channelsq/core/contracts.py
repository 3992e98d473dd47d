"""The shapes of a message and of a channel, for modules below both."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

#: A :class:`channelsq.message.Message`.  It is ``Any`` so that overrides in applications may name that class.
AnyMessage: TypeAlias = Any


class RunLike(Protocol):
    """The state of one run of a message; see :class:`channelsq.delivery.attempts.Run`."""

    retries: int
    was_put_back: bool
    is_admitted: bool
    rerun: bool | None
    mark: str | None
    is_numbered: bool


class TargetLike(Protocol):
    """A channel or group; see :mod:`channelsq.channel`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def channel_layer(self) -> Any:
        """The layer of this target, a :class:`channelsq.asgi.ChannelLayerWrapper`."""

    def prepare(self, content: dict[str, Any]) -> Any:
        """Check and pack a message; return a :class:`channelsq.layers.contract.layer_contract.Send`."""

    def send(self, content: dict[str, Any]) -> None:
        """Send a message."""


class ReplyChannelLike(TargetLike, Protocol):
    """The channel that answers a message; see :class:`channelsq.channel.Channel`."""

    #: The runs whose answer is sent here; None if nothing tracks them.
    attempt: dict[str, str] | None


class MessageLike(Protocol):
    """A message; see :class:`channelsq.message.Message`."""

    content: dict[str, Any]
    channel_name: str
    is_redelivered: bool

    @property
    def id(self) -> str:
        """The unique id of this message."""

    @property
    def channel(self) -> TargetLike:
        """The channel that the message came from."""

    @property
    def channel_layer(self) -> Any:
        """The layer, a :class:`channelsq.asgi.ChannelLayerWrapper`, that carried it."""

    @property
    def reply_channel(self) -> ReplyChannelLike | None:
        """The channel of its client."""

    @property
    def _run(self) -> RunLike:
        """The state of this run."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under ``key``, or ``default``."""

    def __contains__(self, key: object) -> bool: ...

    def __setitem__(self, key: str, value: Any) -> None: ...
