"""Test cases whose channels are in memory, and a client for consumers of any channel."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import decimal
import functools
import inspect
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, overload

from django.test import TestCase, TransactionTestCase

from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.channel import Group
from channelsq.conf import DEFAULT_CHANNEL_LAYER
from channelsq.delayed import ID_KEY, may_leave
from channelsq.delivery.pending import pending_message_store
from channelsq.exceptions import ChannelSocketException, ConsumeLater, DenyConnection
from channelsq.fragments.page_groups import page_group
from channelsq.fragments.swaps import LIBRARY
from channelsq.message import Message
from channelsq.routing import Consumer, Include, Route, Router, include
from channelsq.signals import consumer_finished, consumer_started
from channelsq.test.layers import LayersMixin, installed, memory_layer, served


def next_message(channel: str, alias: str) -> Message | None:
    """Take the next message off a channel; return None if there is none."""
    layer = channel_layers[alias]
    while True:
        name, content = layer.receive([channel])
        if name is None or content is None:
            return None
        handle_id = content.pop(ID_KEY, None)
        if handle_id is None or may_leave(layer, handle_id):  # else the send was cancelled
            return Message(content, name, layer)


class ChannelTestCaseMixin(LayersMixin):
    """Channel layers in memory for any Django test case, new ones for each test; name it first among the bases."""

    #: The aliases whose layers are replaced.
    test_channel_aliases: ClassVar[Sequence[str]] = [DEFAULT_CHANNEL_LAYER]

    @classmethod
    def setUpClass(cls) -> None:
        """Set up the class; sends of ``setUpTestData`` are dropped, so that each test begins with empty channels."""
        # The layers of a class's override_settings do not exist yet.
        there = [memory_layer(alias) for alias in cls.test_channel_aliases if alias in channel_layers]
        with installed(there):
            super().setUpClass()

    def surroundings(self) -> contextlib.AbstractContextManager[object]:
        """Return layers in memory, with the routings of the layers that they replace."""
        return installed([memory_layer(alias) for alias in self.test_channel_aliases], self.layer_changes)

    @overload
    def get_next_message(self, channel: str, alias: str = ..., *, require: Literal[True]) -> Message: ...
    @overload
    def get_next_message(self, channel: str, alias: str, require: Literal[True]) -> Message: ...
    @overload
    def get_next_message(self, channel: str, alias: str = ..., require: bool = ...) -> Message | None: ...

    def get_next_message(
        self, channel: str, alias: str = DEFAULT_CHANNEL_LAYER, require: bool = False
    ) -> Message | None:
        """Take the next message off a channel.

        Args:
            channel: its name.
            alias: the alias of the layer.
            require: fail the test if there is no message; otherwise return None.
        """
        message = next_message(channel, alias)
        if message is None and require:
            self.fail(f"there is no message on {channel}")
        return message


class ChannelTestCase(ChannelTestCaseMixin, TestCase):
    """A Django ``TestCase`` with new channel layers in memory for each test."""


class TransactionChannelTestCase(ChannelTestCaseMixin, TransactionTestCase):
    """A Django ``TransactionTestCase`` with new channel layers in memory for each test."""


class Client:
    """A client with its own reply channel that sends messages, runs their consumers, and reads the replies.

    Args:
        alias: the alias of the layer.
    """

    def __init__(self, alias: str = DEFAULT_CHANNEL_LAYER) -> None:
        self.alias = alias
        #: The name of the channel for replies.
        self.reply_channel = f"{alias}{secrets.token_hex(4)}"

    @property
    def channel_layer(self) -> ChannelLayerWrapper:
        """The layer."""
        return channel_layers[self.alias]

    def get_next_message(self, channel: str) -> Message | Any:
        """Take the next message off a channel; return None if there is none."""
        return next_message(channel, self.alias)

    def get_consumer_by_channel(self, channel: str) -> Consumer | None:
        """Return the consumer of a channel's messages; None if no route claims those without keys."""
        match = self.channel_layer.router.match(Message({"text": ""}, channel, self.channel_layer))
        return match[0] if match else None

    def send(self, to: str, content: Mapping[str, Any] | None = None) -> None:
        """Send a message to a channel.

        Args:
            to: the channel's name.
            content: the message; ``reply_channel`` is this client's by default.
        """
        self.channel_layer.send(to, {"reply_channel": self.reply_channel, **copy.deepcopy(dict(content or {}))})

    def consume(self, channel: str, fail_on_none: bool = True) -> Any:
        """Take the next message off a channel and call its consumer, as a worker does.

        The consumer's sends leave when it has returned.  Its exceptions are raised here, except a
        ChannelSocketException, which only acts on the socket.  After DenyConnection the client gets no reply; after
        ConsumeLater the message is put back.

        Args:
            channel: the channel's name.
            fail_on_none: fail if there is no message, or no consumer for it.

        Returns:
            The consumer's return value; for a class, its instance.

        Raises:
            AssertionError: there is no message, or no consumer for it.
        """
        message = self.get_next_message(channel)
        match = self.channel_layer.router.match(message) if message is not None else None
        if message is None or match is None:
            if fail_on_none:
                raise AssertionError(
                    f"there is no message on {channel}"
                    if message is None
                    else f"no consumer claims {message!r}: {message.content}"
                )
            return None
        return self._call(message, *match)

    def _call(self, message: Message, consumer: Consumer, kwargs: Mapping[str, Any]) -> Any:
        """Call the consumer in a copy of the test's context: its changes end with it, as in a worker."""
        return contextvars.copy_context().run(self._call_here, message, consumer, kwargs)

    def _call_here(self, message: Message, consumer: Consumer, kwargs: Mapping[str, Any]) -> Any:
        decimal.setcontext(decimal.getcontext().copy())  # an object that both contexts would share
        result = None
        with pending_message_store.holding() as held:
            try:
                consumer_started.send(sender=type(self), environ={}, message=message)
                result = consumer(message, **kwargs)
            except ChannelSocketException as effect:
                effect.run(message)
            except DenyConnection:
                held.settle()
                raise
            except ConsumeLater:
                message.channel_layer.send(message.channel.name, message.content)
                raise
            finally:
                consumer_finished.send(sender=type(self), message=message)
            held.settle()
        return result

    def send_and_consume(
        self, channel: str, content: Mapping[str, Any] | None = None, fail_on_none: bool = True
    ) -> Any:
        """Call :meth:`send`, then :meth:`consume`."""
        self.send(channel, content)
        return self.consume(channel, fail_on_none=fail_on_none)

    def receive(self) -> Any:
        """Return the next reply to this client; None if there is none."""
        message = self.get_next_message(self.reply_channel)
        return None if message is None else message.content

    def join_group(self, group_name: str) -> None:
        """Add this client to a group."""
        Group(group_name, alias=self.alias).add(self.reply_channel)

    def join_page(self, group_name: str) -> None:
        """Add this client to the pages of a group, as ``{% live %}`` does.

        It gets the fragments of ``Group.render``.

        Args:
            group_name: the group's name.
        """
        self.channel_layer.channel_layer.group_add(page_group(group_name, LIBRARY), self.reply_channel)


Routes = Route | Include | str | Sequence["Route | Include | Sequence[Route | Include]"]


class apply_routes:
    """Other routes for a ``with`` block, a decorated test or every test of a decorated class.

    Args:
        routes: a route, a list of routes, a list of such lists, or a dotted path to a list.
        aliases: the aliases of the layers that get them.
    """

    def __init__(self, routes: Routes, aliases: Iterable[str] = (DEFAULT_CHANNEL_LAYER,)) -> None:
        self.routes = routes
        self.aliases = [aliases] if isinstance(aliases, str) else list(aliases)
        self._undo: list[contextlib.ExitStack] = []

    def _routing(self) -> Any:
        if isinstance(self.routes, (str, Route, Include)):
            return [include(self.routes)] if isinstance(self.routes, str) else [self.routes]
        return [include(each) if isinstance(each, (list, tuple)) else each for each in self.routes]

    def enter(self) -> None:
        """Apply the routes.

        Raises:
            RuntimeError: the workers of a live server have read the layer's routes already.
        """
        routing = self._routing()
        routers = {alias: Router(routing) for alias in self.aliases}
        undo = contextlib.ExitStack()
        for alias, router in routers.items():
            layer = channel_layers[alias]
            if layer in served:
                raise RuntimeError(
                    "the live server's workers have read their routes when the test began: decorate the class with "
                    "apply_routes instead"
                )
            undo.callback(vars(layer).update, routing=layer.routing, router=layer.router)
            vars(layer).update(routing=routing, router=router)
        self._undo.append(undo)

    def exit(self, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None) -> None:
        """Restore the previous routes."""
        self._undo.pop().close()

    __enter__ = enter
    __exit__ = exit

    def __call__(self, test: Any) -> Any:
        """Decorate a test or a class of tests."""
        if isinstance(test, type) and issubclass(test, LayersMixin):
            test.layer_changes = (*test.layer_changes, self)
            return test
        if isinstance(test, type):
            set_up: Any = getattr(test, "setUp")  # noqa: B009 - a class of tests, as far as mypy knows any class

            @functools.wraps(set_up)
            def set_up_with_routes(case: Any) -> None:
                self.enter()
                case.addCleanup(self.exit)
                set_up(case)

            setattr(test, "setUp", set_up_with_routes)  # noqa: B010
            return test

        if inspect.iscoroutinefunction(test):

            @functools.wraps(test)
            async def await_with_routes(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await test(*args, **kwargs)

            return await_with_routes

        @functools.wraps(test)
        def run_with_routes(*args: Any, **kwargs: Any) -> Any:
            with self:
                return test(*args, **kwargs)

        return run_with_routes
