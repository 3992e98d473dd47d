"""``channelsq.test``: test cases, clients and ``apply_routes``."""

from __future__ import annotations

import importlib
import sys
import unittest
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.test import TestCase, override_settings

from channelsq import Channel, Group, channel_layers, include, route
from channelsq.asgi import ChannelLayerWrapper
from channelsq.exceptions import ConsumeLater, DenyConnection, WebsocketCloseException
from channelsq.layers import InMemoryChannelLayer
from channelsq.message import Message
from channelsq.sessions import channel_session, http_session
from channelsq.signals import consumer_finished, consumer_started
from channelsq.test import (
    ChannelTestCase,
    Client,
    HttpClient,
    TransactionChannelTestCase,
    WSClient,
    apply_routes,
)
from channelsq.test.layers import installed, memory_layer

ROUTING = "app.routing.channel_routing"


def echo(message: Any, **kwargs: Any) -> dict[str, Any]:
    message.reply_channel.send({**message.content, "kwargs": kwargs})
    return kwargs


def accept(message: Any, **kwargs: Any) -> None:
    message.reply_channel.send({"accept": True})


# -- test cases


class ChannelsOfATest(ChannelTestCase):
    def test_one(self) -> None:
        layer = channel_layers["default"]
        assert isinstance(layer.channel_layer, InMemoryChannelLayer)
        assert layer.routing == ROUTING
        assert self.get_next_message("some") is None
        Channel("some").send({"a": 1})
        Channel("some").send({"a": 2})
        message = self.get_next_message("some", require=True)
        assert isinstance(message, Message)
        assert (message["a"], message.channel.name) == (1, "some")

    def test_two_begins_with_empty_channels(self) -> None:
        assert self.get_next_message("some") is None
        with pytest.raises(AssertionError, match="no message on some"):
            self.get_next_message("some", require=True)

    @classmethod
    def setUpTestData(cls) -> None:
        Channel("some").send({"of": "the class"})


class TransactionsOfATest(TransactionChannelTestCase):
    def test_has_a_layer_in_memory(self) -> None:
        Channel("some").send({})
        assert self.get_next_message("some") is not None


class WithoutSuper(ChannelTestCase):
    def setUp(self) -> None:
        Channel("some").send({"from": "setUp"})

    def tearDown(self) -> None:
        assert self.get_next_message("some") is not None

    def test_set_up_and_tear_down_have_the_layer(self) -> None:
        pass


@override_settings(
    CHANNEL_LAYERS={
        alias: {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": []} for alias in ("default", "other")
    }
)
class SeveralAliases(ChannelTestCase):
    test_channel_aliases = ["default", "other"]

    def test_each_has_a_layer(self) -> None:
        Channel("some", alias="other").send({"a": 1})
        assert self.get_next_message("some") is None
        assert self.get_next_message("some", alias="other") is not None
        client = Client(alias="other")
        client.join_group("all")
        Group("all").send({"a": 1})
        assert client.receive() is None
        Group("all", alias="other").send({"a": 1})
        assert client.receive() == {"a": 1}


ECHOING = {"default": {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": [route("some", echo)]}}


class OverriddenSettings(ChannelTestCase):
    @override_settings(CHANNEL_LAYERS=ECHOING)
    def test_of_a_test_keep_its_layer_and_have_their_routes(self) -> None:
        assert Client().send_and_consume("some") == {}

    def test_within_a_test_do_so_until_their_end(self) -> None:
        layer = channel_layers["default"]
        Channel("some").send({"a": 1})
        with self.settings(CHANNEL_LAYERS=ECHOING):
            assert channel_layers["default"] is layer
            assert Client().get_consumer_by_channel("some") is echo
            assert self.get_next_message("some") is not None
        assert channel_layers["default"] is layer
        assert layer.routing == ROUTING
        assert Client().get_consumer_by_channel("some") is None

    def test_may_have_no_layer(self) -> None:
        with self.settings(CHANNEL_LAYERS={}):
            Channel("some").send({"a": 1})
        assert self.get_next_message("some") is not None


def test_a_layer_that_was_there_before_its_settings_does_not_come_back(settings: Any) -> None:
    before = channel_layers["default"]
    with installed([memory_layer("default")]):
        settings.CHANNEL_LAYERS = ECHOING
    assert channel_layers["default"] is not before
    assert channel_layers["default"].routing == ECHOING["default"]["ROUTING"]


def test_the_layer_before_is_there_again_and_debug_runs_a_test_too() -> None:
    before = channel_layers["default"]
    result = unittest.TestResult()
    ChannelsOfATest.setUpClass()
    try:
        ChannelsOfATest("test_one").run(result)
        ChannelsOfATest("test_two_begins_with_empty_channels").debug()
    finally:
        ChannelsOfATest.tearDownClass()
    assert result.wasSuccessful(), result.errors
    assert channel_layers["default"] is before


test_the_layer_before_is_there_again_and_debug_runs_a_test_too = pytest.mark.django_db(
    test_the_layer_before_is_there_again_and_debug_runs_a_test_too
)


@pytest.mark.django_db
def test_a_layer_that_cannot_be_made_is_the_tests_error() -> None:
    class Unknown(ChannelsOfATest):
        pass

    Unknown.setUpClass()
    try:
        Unknown.test_channel_aliases = ["nobody"]
        result = Unknown("test_one").run()
    finally:
        Unknown.tearDownClass()
    assert result is not None
    ((_, problem),) = result.errors
    assert "no layer 'nobody'" in problem


# -- Client


@pytest.fixture
def client(channel_layer: ChannelLayerWrapper) -> Client:
    return Client()


def test_client_sends_with_its_reply_channel(client: Client) -> None:
    client.send("some", {"a": 1})
    client.send("some", {"reply_channel": "another"})
    assert client.get_next_message("some").content == {"a": 1, "reply_channel": client.reply_channel}
    assert client.get_next_message("some")["reply_channel"] == "another"
    assert client.get_next_message("some") is None
    assert Client().reply_channel != client.reply_channel


def test_client_consumes_and_receives(client: Client) -> None:
    with apply_routes([route("some", echo, path=r"^/(?P<room>\w+)")]):
        assert client.send_and_consume("some", {"path": "/tea"}) == {"room": "tea"}
        assert client.receive()["kwargs"] == {"room": "tea"}
        assert client.receive() is None
        assert client.get_consumer_by_channel("some") is None
    with apply_routes([route("some", echo)]):
        assert client.get_consumer_by_channel("some") is echo


def test_client_fails_where_nothing_is_to_be_consumed(client: Client) -> None:
    with apply_routes([route("some", echo)]):
        with pytest.raises(AssertionError, match="no message on some"):
            client.consume("some")
        assert client.consume("some", fail_on_none=False) is None
        with pytest.raises(AssertionError, match="no consumer claims"):
            client.send_and_consume("other")
        assert client.send_and_consume("other", fail_on_none=False) is None


def test_what_a_consumer_sends_goes_out_when_it_has_returned(client: Client) -> None:
    def consumer(message: Any, fail: str) -> None:
        message.reply_channel.send({"late": True})
        message.reply_channel.send({"at once": True}, immediately=True)
        if fail == "yes":
            raise KeyError("broken")

    with apply_routes([route("some", consumer, fail="(?P<fail>yes|no)")]):
        client.send_and_consume("some", {"fail": "no"})
        assert [client.receive(), client.receive()] == [{"at once": True}, {"late": True}]
        with pytest.raises(KeyError, match="broken"):
            client.send_and_consume("some", {"fail": "yes"})
        assert [client.receive(), client.receive()] == [{"at once": True}, None]


def test_of_a_refused_connection_the_test_is_told(client: Client) -> None:
    def consumer(message: Any) -> None:
        Channel("log").send({"refused": True})
        raise DenyConnection

    with apply_routes([route("websocket.connect", consumer)]), pytest.raises(DenyConnection):
        client.send_and_consume("websocket.connect")
    assert client.receive() is None  # so that the same client can try again
    assert client.get_next_message("log") is not None


def test_consume_later_puts_the_message_back_and_the_test_is_told(client: Client) -> None:
    ready: list[bool] = []

    def consumer(message: Any) -> str:
        Channel("log").send({"ready": bool(ready)})
        if not ready:
            raise ConsumeLater
        return str(message["text"])

    with apply_routes([route("some", consumer)]):
        with pytest.raises(ConsumeLater):
            client.send_and_consume("some", {"text": "hello"})
        ready.append(True)
        assert client.consume("some") == "hello"
    assert client.get_next_message("log").content == {"ready": True}
    assert client.get_next_message("log") is None


def test_exceptions_with_an_effect_have_it(client: Client) -> None:
    def consumer(message: Any) -> None:
        message.reply_channel.send({"text": "bye"})
        raise WebsocketCloseException(4001)

    with apply_routes([route("websocket.receive", consumer)]):
        client.send_and_consume("websocket.receive")
    assert [client.receive(), client.receive()] == [{"text": "bye"}, {"close": 4001}]


def test_signals_surround_a_consumer(client: Client) -> None:
    seen: list[str] = []

    def started(message: Message, **kwargs: Any) -> None:
        seen.append(f"started {message.channel.name}")

    def finished(message: Message, **kwargs: Any) -> None:
        seen.append(f"finished {message.channel.name}")

    consumer_started.connect(started)
    consumer_finished.connect(finished)
    try:
        with apply_routes([route("some", lambda message: seen.append("run"))]):
            client.send_and_consume("some")
    finally:
        consumer_started.disconnect(started)
        consumer_finished.disconnect(finished)
    assert seen == ["started some", "run", "finished some"]


def test_a_test_gets_delayed_messages_as_consumers_do(client: Client) -> None:
    cancelled = Channel("other").send({"n": 1}, delay=0)
    Channel("other").send({"n": 2}, delay=0)
    assert cancelled.cancel()
    assert client.get_next_message("other").content == {"n": 2}
    assert client.get_next_message("other") is None


def test_client_joins_groups(client: Client) -> None:
    client.join_group("all")
    Group("all").send({"text": "hello"})
    assert client.receive() == {"text": "hello"}


@pytest.mark.parametrize("alias", ["default", "other"])
def test_clients_get_the_fragments_of_pages(alias: str) -> None:
    with installed([ChannelLayerWrapper(InMemoryChannelLayer(), alias, [])]):
        pages = [WSClient(alias=alias) for _ in range(2)]
        for page in pages:
            page.join_page("all")
        Group("all", alias=alias).send({"text": "not for pages"})
        Group("all", alias=alias).render(None, target="row-7", action="remove")
        for page in pages:
            assert page.receive()["payload"] == {"action": "remove", "target": "row-7", "html": ""}
            assert page.receive() is None


# -- apply_routes


@pytest.mark.parametrize(
    "routes",
    [
        route("some", echo),
        [route("some", echo)],
        [[route("other", echo)], [route("some", echo)]],
        include([route("some", echo)]),
        [include([route("some", echo)]), route("other", echo)],
    ],
    ids=["a route", "a list", "lists", "an include", "mixed"],
)
def test_apply_routes_takes(client: Client, routes: Any) -> None:
    with apply_routes(routes):
        assert client.send_and_consume("some") == {}


def test_apply_routes_takes_a_dotted_path_and_puts_the_routing_back(client: Client) -> None:
    before = client.channel_layer.router
    with apply_routes(ROUTING):
        assert client.channel_layer.router is not before
        with apply_routes(route("some", echo)):
            assert client.get_consumer_by_channel("some") is echo
        assert client.get_consumer_by_channel("some") is None
    assert client.channel_layer.router is before
    assert client.channel_layer.routing == ROUTING


@apply_routes(route("some", echo))
def test_apply_routes_decorates_a_test(client: Client) -> None:
    assert client.send_and_consume("some") == {}


class AsynchronousTests(ChannelTestCase):
    @apply_routes(route("some", echo))
    async def test_apply_routes_decorates_them(self) -> None:
        assert Client().send_and_consume("some") == {}


@apply_routes([route("some", echo)])
class RoutesOfAClass(ChannelTestCase):
    def setUp(self) -> None:
        self.client_of_set_up = Client()
        assert self.client_of_set_up.send_and_consume("some") == {}

    def test_its_tests_have_them(self) -> None:
        assert self.client_of_set_up.send_and_consume("some") == {}


@apply_routes(route("some", accept))
class OtherRoutesOfASubclass(RoutesOfAClass):
    def setUp(self) -> None:
        assert Client().get_consumer_by_channel("some") is accept

    def test_its_tests_have_them(self) -> None:
        assert Client().get_consumer_by_channel("some") is accept


@apply_routes([route("some", echo)], aliases="default")
class RoutesOfAPlainTestCase(TestCase):
    def test_its_tests_have_them(self) -> None:
        assert Client().get_consumer_by_channel("some") is echo


# -- WSClient


@pytest.fixture
def browser(settings: Any, channel_layer: ChannelLayerWrapper) -> WSClient:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    return WSClient()


def test_ws_client_sends_what_a_socket_sends(browser: WSClient) -> None:
    browser.set_cookie("theme", "dark")
    browser.set_header("origin", "https://example.org")
    browser.send("websocket.connect", path="/chat/?room=tea")
    message = browser.get_next_message("websocket.connect")
    assert message is not None
    assert (message["path"], message["query_string"]) == ("/chat/", b"room=tea")
    headers = dict(message["headers"])
    assert headers[b"origin"] == b"https://example.org"
    assert headers[b"host"] == b"testserver"
    cookies = headers[b"cookie"].decode().split("; ")
    assert sorted(cookies) == [f"sessionid={browser.session.session_key}", "theme=dark"]
    assert "order" not in message
    browser.send("websocket.receive", {"a": 1}, text={"said": True}, path="/chat/?room=tea")
    message = browser.get_next_message("websocket.receive")
    assert message is not None
    assert (message["path"], message["text"], message["a"]) == ("/chat/", '{"said": true}', 1)
    assert message["reply_channel"] == browser.reply_channel
    assert not {"query_string", "headers", "scheme"} & message.keys()
    assert browser.headers["cookie"] == b"theme=dark"
    with pytest.raises(ValueError, match="use set_cookie"):
        browser.set_header("Cookie", "x")


def test_ws_client_numbers_its_messages_if_told_so(channel_layer: ChannelLayerWrapper) -> None:
    client = WSClient(ordered=True)
    for expected in range(3):
        client.send("websocket.receive", text="x")
        assert client.get_next_message("websocket.receive")["order"] == expected
    assert client.order == 3
    with pytest.raises(ValueError, match="leave out 'order'"):
        client.send("websocket.receive", {"order": 7})


def test_ws_client_receives_text_decoded_or_not(browser: WSClient) -> None:
    browser.join_group("all")
    for content in ({"text": '{"a": 1}'}, {"text": '{"a": 1}'}, {"bytes": b"x"}, {"text": 7}):
        Group("all").send(content)
    assert browser.receive() == {"a": 1}
    assert browser.receive(json=False) == '{"a": 1}'
    assert browser.receive() == {"bytes": b"x"}
    assert browser.receive() == 7
    assert browser.receive() is None


def test_ws_client_looks_whether_it_was_accepted(browser: WSClient) -> None:
    def connect(message: Any, answer: str) -> None:
        if answer != "nothing":
            message.reply_channel.send({"accept": True} if answer == "accept" else {"close": True})

    with apply_routes([route("websocket.connect", connect, path="^/(?P<answer>.*)$")]):
        browser.send_and_consume("websocket.connect", path="/accept")
        assert browser.receive() is None
        for path in ("/close", "/nothing"):
            with pytest.raises(AssertionError, match="was not accepted"):
                browser.send_and_consume("websocket.connect", path=path)
        browser.send_and_consume("websocket.connect", path="/close", check_accept=False)
        assert browser.receive() == {"close": True}


def test_ws_clients_session_is_the_browsers_and_the_sockets(browser: WSClient) -> None:
    @http_session
    @channel_session
    def connect(message: Any) -> None:
        accept(message)
        message.reply_channel.send(
            {"http": message.http_session["species"], "channel": message.channel_session["species"]}
        )

    browser.session["species"] = "cat"
    browser.session.save()
    with apply_routes([route("websocket.connect", connect)]):
        browser.send_and_consume("websocket.connect")
    assert browser.receive() == {"http": "cat", "channel": "cat"}


@pytest.mark.django_db
def test_ws_clients_session_with_an_engine_for_channels(browser: WSClient, settings: Any) -> None:
    settings.CHANNEL_SESSION_ENGINE = "django.contrib.sessions.backends.db"

    @http_session
    def connect(message: Any) -> None:
        accept(message)
        message.reply_channel.send({"text": message.http_session["species"]})

    browser.session["species"] = "cat"
    browser.session.save()
    with apply_routes([route("websocket.connect", connect)]):
        browser.send_and_consume("websocket.connect")
    assert browser.receive(json=False) == "cat"


@pytest.mark.django_db
def test_ws_client_logs_in_and_out(browser: WSClient) -> None:
    from channelsq.auth import http_session_user

    @http_session_user
    def who(message: Any) -> str:
        return str(message.user)

    alice = get_user_model().objects.create_user("alice", password="secret")
    with apply_routes([route("http.request", who)]):
        assert browser.send_and_consume("http.request") == "AnonymousUser"
        browser = HttpClient()
        assert not browser.login(username="alice", password="wrong")
        assert browser.login(username="alice", password="secret")
        assert browser.send_and_consume("http.request") == "alice"
        browser = WSClient()
        browser.force_login(alice)
        browser.logout()
        assert browser.send_and_consume("http.request") == "AnonymousUser"
        alice.is_active = False
        alice.save()
        assert not WSClient().login(username="alice", password="secret")


def test_ws_client_without_sessions(settings: Any, channel_layer: ChannelLayerWrapper) -> None:
    settings.INSTALLED_APPS = ["channelsq"]
    client = WSClient()
    assert not client.login(username="alice", password="secret")
    client.send("websocket.connect")
    message = client.get_next_message("websocket.connect")
    assert message is not None
    assert message["headers"] == [[b"host", b"testserver"]]
    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        client.session  # noqa: B018


class PlainTestCase(TestCase):
    def test_clients_work_in_djangos_test_case_too(self) -> None:
        client = Client()
        client.join_group("plain")
        Group("plain").send({"text": "hello"})
        assert client.receive() == {"text": "hello"}


def test_the_old_name_of_the_package() -> None:
    sys.modules.pop("channelsq.tests", None)
    with pytest.warns(DeprecationWarning, match=r"import from channelsq\.test"):
        old = importlib.import_module("channelsq.tests")
    assert old.ChannelTestCase is ChannelTestCase
    assert old.apply_routes is apply_routes
