"""``Channel`` and ``Group``: the targets of an application's sends."""

from __future__ import annotations

from typing import Any, overload

from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.core import names
from channelsq.delayed import DelayedSend, forwarded, marked
from channelsq.delivery import attempts
from channelsq.delivery.pending import pending_message_store
from channelsq.fragments.sending import fragment_layer, fragment_sends, rendered
from channelsq.layers.contract.layer_values import Send

__all__ = ["Channel", "Group"]


class _Target:
    """A target of sends.  Sends wait for the consumer's success and the transaction's commit, if there are any."""

    name: str
    channel_layer: ChannelLayerWrapper

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _send(self, send: Send, immediately: bool) -> None:
        if immediately:
            self.channel_layer.dispatch((send,))
        else:
            pending_message_store.hold(self.channel_layer, send)


class Channel(_Target):
    """A named FIFO channel.

    Args:
        name: its name (ASCII letters, digits, ``-_.``, at most one ``?`` or ``!``; fewer than 100).
        alias: the entry of ``CHANNEL_LAYERS``; ``"default"`` if left out.
        channel_layer: the layer itself, instead of an alias.

    Raises:
        TypeError: ``name`` is not a channel name.
        InvalidChannelLayerError: there is no such layer.
    """

    def __init__(
        self,
        name: str,
        alias: str | None = DEFAULT_CHANNEL_LAYER,
        channel_layer: ChannelLayerWrapper | None = None,
    ) -> None:
        self.name = names.check_channel_name(name)
        # The runs whose answer is sent here, see channelsq.delivery.attempts; None if nothing tracks them.
        self.attempt: dict[str, str] | None = None
        self.channel_layer = channel_layers[alias or DEFAULT_CHANNEL_LAYER] if channel_layer is None else channel_layer

    def prepare(self, content: dict[str, Any], *, delay: float = 0.0) -> Send:
        """Check and pack ``content`` without sending it."""
        if type(content) is dict and (self.attempt is not None or "reply_channel" in content):
            content = attempts.stamp(content, self.attempt)
        return self.channel_layer.prepare(self.name, content, delay=delay)

    @overload
    def send(self, content: dict[str, Any], immediately: bool = False, *, delay: None = None) -> None: ...
    @overload
    def send(self, content: dict[str, Any], immediately: bool = False, *, delay: float) -> DelayedSend: ...

    def send(
        self, content: dict[str, Any], immediately: bool = False, *, delay: float | None = None
    ) -> DelayedSend | None:
        """Send a message to the channel.

        Inside a consumer it leaves when the consumer has returned, and is dropped if the consumer raises.  In a
        database transaction it first waits for the commit, and is dropped on rollback; a later failure is logged and
        counted.

        Args:
            content: a dict with str keys of None, bool, int, float, str, bytes, list, tuple and dict.
            immediately: wait neither for the consumer's end nor for a commit.
            delay: seconds until a worker may run it (Celery's countdown), or until it is sent to a client.

        Returns:
            A handle that can cancel the send, if there is a delay; otherwise None.

        Raises:
            TypeError: ``content`` is not such a dict; the text names the key.
            ValueError: ``delay`` is not a number of seconds.
            MessageTooLarge: it is over the layer's ``message_size_limit``.
            ChannelFull: the channel is at its capacity.
            BrokerUnavailable: the broker does not answer.
        """
        if delay is None:
            self._send(self.prepare(content), immediately)
            return None
        handle = DelayedSend(self.channel_layer, delay)
        if names.is_process_channel(self.name) or names.is_single_reader(self.name):
            self.prepare(content)  # raises for what cannot be sent
            send = forwarded(handle, self.name, attempts.stamp(content, self.attempt), delay, is_group=False)
        else:
            send = self.prepare(marked(content, handle), delay=delay)
        self._send(send, immediately)
        return handle


class Group(_Target):
    """A named set of channels; a send to the group goes to each of them.

    Args:
        name: its name (ASCII letters, digits, ``-_.``; fewer than 100).
        alias: the entry of ``CHANNEL_LAYERS``; ``"default"`` if left out.
        channel_layer: the layer itself, instead of an alias.

    Raises:
        TypeError: ``name`` is not a group name.
        InvalidChannelLayerError: there is no such layer.
    """

    def __init__(
        self,
        name: str,
        alias: str | None = DEFAULT_CHANNEL_LAYER,
        channel_layer: ChannelLayerWrapper | None = None,
    ) -> None:
        self.name = names.check_group_name(name)
        self.channel_layer = channel_layers[alias or DEFAULT_CHANNEL_LAYER] if channel_layer is None else channel_layer

    def prepare(self, content: dict[str, Any]) -> Send:
        """Check and pack ``content`` without sending it."""
        if type(content) is dict and "reply_channel" in content:
            content = attempts.stamp(content, None)
        return self.channel_layer.prepare_group(self.name, content)

    def add(self, channel: Channel | str) -> None:
        """Make ``channel`` a member, at once; a repeated call renews the membership."""
        self.channel_layer.group_add(self.name, channel.name if isinstance(channel, Channel) else channel)

    def discard(self, channel: Channel | str) -> None:
        """End ``channel``'s membership, at once; no error if there is none."""
        self.channel_layer.group_discard(self.name, channel.name if isinstance(channel, Channel) else channel)

    @overload
    def send(self, content: dict[str, Any], immediately: bool = False, *, delay: None = None) -> None: ...
    @overload
    def send(self, content: dict[str, Any], immediately: bool = False, *, delay: float) -> DelayedSend: ...

    def send(
        self, content: dict[str, Any], immediately: bool = False, *, delay: float | None = None
    ) -> DelayedSend | None:
        """Send a message to every member; errors as :meth:`Channel.send`, but ChannelFull only with a delay.

        Args:
            content: see :meth:`Channel.send`.
            immediately: wait neither for the consumer's end nor for a commit.
            delay: seconds until a worker sends it to those who are members then.

        Returns:
            A handle that can cancel the send, if there is a delay; otherwise None.
        """
        send = self.prepare(content)
        if delay is None:
            self._send(send, immediately)
            return None
        handle = DelayedSend(self.channel_layer, delay)
        self._send(forwarded(handle, self.name, attempts.stamp(content, None), delay, is_group=True), immediately)
        return handle

    def render(
        self,
        template: str | list[str] | tuple[str, ...] | None,
        context: dict[str, Any] | None = None,
        *,
        target: str = "",
        action: str = "",
        using: str | None = None,
        immediately: bool = False,
    ) -> None:
        """Render a template once, and change every page that has joined the group with ``{% live %}``.

        The template has no request, as the fragment goes to several users.

        Args:
            template: its name, or several of which the first that exists is used; None to remove an element.
            context: its variables.
            target: the id of the element to change, or to change next to; by default that of the fragment's first
                element, which it replaces.
            action: ``"append"``, ``"prepend"``, ``"before"``, ``"after"``, ``"replace"``, ``"update"`` or ``"remove"``;
                ``"append"`` by default if there is a ``target``.
            using: the name of a template engine.
            immediately: see :meth:`send`.

        Raises:
            ValueError: ``target`` or ``action`` cannot be used; the text names the remedy.
            TemplateDoesNotExist: there is no such template.
            MessageTooLarge: the fragment is over the layer's ``message_size_limit``.
            BrokerUnavailable: the broker does not answer.
        """
        swap = rendered(template, context, target, action, using)
        layer = fragment_layer(self.channel_layer)
        sends = fragment_sends(layer, self.name, swap)
        if immediately:
            layer.dispatch(sends)
        else:
            for send in sends:
                pending_message_store.hold(layer, send)
