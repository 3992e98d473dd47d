"""The sockets of dashboards on a layer in memory: permissions, samples, dead letters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, override_settings

from channelsq import route
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.contrib.dashboard import dashboard_consumers
from channelsq.contrib.dashboard.dashboard_checks import check_dashboard
from channelsq.contrib.dashboard.dashboard_sockets import FULL, GROUP, NOT_ALLOWED
from channelsq.contrib.dashboard.routing import channel_routing
from channelsq.contrib.dashboard.sampler import TURN
from channelsq.exceptions import BadFrame, DenyConnection
from channelsq.layers import IPCChannelLayer
from channelsq.message import Message
from channelsq.worker.running.execution import run_consumer
from tests.support.layers import drain, installed, wrapped
from tests.support.markdown import doc_page, rows

PATH = "/channelsq/dashboard/"


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    with override_settings(CHANNEL_DASHBOARD={"enabled": True}, ROOT_URLCONF="tests.support.dashboard_urls"):
        yield


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    layer = wrapped(channel_routing)
    with installed(layer):
        yield layer


class Tab:
    """A page of the dashboard with its socket.

    Args:
        layer: the layer.
        user: the user; None for none.
    """

    def __init__(self, layer: ChannelLayerWrapper, user: User | None) -> None:
        self.layer = layer
        self.client = Client()
        if user is not None:
            self.client.force_login(user)
        self.channel = layer.new_channel("websocket.send!")

    def message(self, channel: str, origin: str = "http://testserver", **content: Any) -> Message:
        """Return a message of the socket."""
        cookies = "; ".join(f"{name}={each.value}" for name, each in self.client.cookies.items())
        headers = [[b"host", b"testserver"], [b"origin", origin.encode()], [b"cookie", cookies.encode()]]
        handshake = {"headers": headers, "method": "GET"} if channel == "websocket.connect" else {}
        return Message({"path": PATH, "reply_channel": self.channel, **handshake, **content}, channel, self.layer)

    def run(self, channel: str, **content: Any) -> None:
        """Run the consumer of a message of the socket."""
        message = self.message(channel, **content)
        found = self.layer.router.match(message)
        assert found is not None
        run_consumer(found[0], message, "test")

    def say(self, **frame: Any) -> list[dict[str, Any]]:
        """Send a frame; return the messages that came since."""
        self.run("websocket.receive", text=json.dumps(frame))
        return self.frames()

    def open(self) -> list[dict[str, Any]]:
        """Open the socket and say hello; return the frames that came."""
        self.run("websocket.connect")
        assert self.frames() == [{"accept": True}]
        return self.say(type="hello")

    def frames(self) -> list[dict[str, Any]]:
        """Return the messages that came, text frames decoded."""
        return [json.loads(each["text"]) if "text" in each else each for each in drain(self.layer, self.channel)]


def staff(*, is_superuser: bool = False) -> User:
    return User.objects.create_user(f"user{User.objects.count()}", is_staff=True, is_superuser=is_superuser)


def over(layer: ChannelLayerWrapper) -> None:
    """End the pause after a sample."""
    records = layer.channel_layer.records
    assert records is not None
    records.delete(TURN)


@pytest.mark.django_db
def test_a_page_gets_the_points_before_it_and_a_sample(layer: ChannelLayerWrapper) -> None:
    history, sample = Tab(layer, staff()).open()
    assert history == {"type": "history", "points": []}
    assert sample["type"] == "sample"
    (shown,) = sample["layers"]
    assert [each["channel"] for each in shown["channels"]] == [
        "channelsq.delayed", "http.disconnect", "http.request",
        "websocket.connect", "websocket.disconnect", "websocket.receive",
    ]  # fmt: skip
    assert shown["groups"] == {"shown": [{"group": GROUP, "members": 1}], "total": 1, "cut": False}
    assert not shown["private"]
    assert shown["inside"]
    assert sample["notes"] == []  # that no worker is announced is no problem here
    assert (sample["totals"]["workers"], sample["totals"]["interfaces"]) == (None, None)
    assert sample["point"]["waiting"] == 0
    assert sample["totals"]["slow"] is None
    assert "--metrics" in sample["hint"]
    over(layer)
    history, later = Tab(layer, staff()).open()
    assert history["points"] == [sample["point"]]
    assert later["point"]["time"] >= sample["point"]["time"]


@pytest.mark.django_db
def test_all_pages_get_one_sample_an_interval(layer: ChannelLayerWrapper) -> None:
    first, second = Tab(layer, staff()), Tab(layer, staff())
    assert [each["type"] for each in first.open()] == ["history", "sample"]
    assert [each["type"] for each in second.open()] == ["history"]  # the sample was just taken
    assert first.say(type="look") == []
    over(layer)
    (sample,) = second.say(type="look")
    assert first.frames() == [sample]


@pytest.mark.django_db
def test_rates_come_with_the_second_sample(layer: ChannelLayerWrapper) -> None:
    tab = Tab(layer, staff())
    assert tab.open()[1]["point"]["received"] is None
    for _ in range(5):
        layer.send("websocket.receive", {"text": "x", "path": "/"})
    over(layer)
    (sample,) = tab.say(type="look")
    assert sample["point"]["received"] > 0
    assert sample["point"]["waiting"] == 5
    channels = {each["channel"]: each for each in sample["layers"][0]["channels"]}
    assert channels["websocket.receive"]["rate"] == sample["point"]["received"]


@pytest.mark.django_db
def test_a_sample_of_a_layer_between_processes(tmp_path: Path) -> None:
    """Its channels and groups are counted in its file."""
    with closing(IPCChannelLayer(path=str(tmp_path / "ipc"))) as ipc:
        layer = ChannelLayerWrapper(ipc, "default", channel_routing)
        with installed(layer):
            for _ in range(3):
                layer.send("websocket.receive", {"text": "x", "path": "/"})
            sample = Tab(layer, staff()).open()[1]
    (shown,) = sample["layers"]
    assert not shown["inside"]
    assert sample["point"]["waiting"] == 3
    assert shown["groups"]["shown"] == [{"group": GROUP, "members": 1}]
    assert sample["totals"]["workers"] == 0
    assert [each["level"] for each in sample["notes"]]  # nothing reads these channels


@pytest.mark.django_db
def test_a_sample_has_every_layer(tmp_path: Path) -> None:
    entry = {"BACKEND": "channelsq.layers.IPCChannelLayer", "ROUTING": []}
    with (
        override_settings(CHANNEL_LAYERS={**settings.CHANNEL_LAYERS, "other": entry}),
        closing(IPCChannelLayer(path=str(tmp_path / "ipc"))) as ipc,
        installed(layer := wrapped(channel_routing)),
    ):
        other = ChannelLayerWrapper(ipc, "other", [route("reports", lambda message: None)])
        channel_layers.set("other", other)
        other.send("reports", {"number": 1})
        sample = Tab(layer, staff()).open()[1]
    shown = {each["layer"]: each for each in sample["layers"]}
    assert shown.keys() == {"default", "other"}
    assert {each["channel"]: each["waiting"] for each in shown["other"]["channels"]}["reports"] == 1
    assert sample["point"]["waiting"] == 1


@pytest.mark.django_db
def test_a_full_channel_is_noted() -> None:
    layer = wrapped(channel_routing, capacity=5)
    with installed(layer):
        for _ in range(5):
            layer.send("websocket.receive", {"text": "x", "path": "/"})
        sample = Tab(layer, staff()).open()[1]
    assert {"level": "bad", "text": "Channel websocket.receive is full: 5 of 5 messages wait"} in sample["notes"]


@pytest.mark.django_db
@pytest.mark.parametrize("who", ["nobody", "not staff", "inactive"])
def test_sockets_are_for_staff(layer: ChannelLayerWrapper, who: str) -> None:
    user = None if who == "nobody" else User.objects.create_user("sam", is_staff=who == "inactive")
    tab = Tab(layer, user)
    if who == "inactive":
        User.objects.update(is_active=False)
    tab.run("websocket.connect")
    assert tab.frames() == [{"accept": True, "close": NOT_ALLOWED}]
    for kind in ("hello", "look", "letters", "replay", "delete"):
        assert tab.say(type=kind) == [{"close": NOT_ALLOWED}]
    assert layer.group_channels(GROUP) == []


@pytest.mark.django_db
def test_foreign_pages_are_refused(layer: ChannelLayerWrapper) -> None:
    with override_settings(CHANNEL_ALLOWED_ORIGINS=["*"]), pytest.raises(DenyConnection):
        dashboard_consumers.connect(Tab(layer, staff()).message("websocket.connect", origin="http://evil.example"))


@pytest.mark.django_db
def test_a_dashboard_that_is_off_has_no_sockets(layer: ChannelLayerWrapper) -> None:
    tab = Tab(layer, staff())
    tab.open()
    with override_settings(CHANNEL_DASHBOARD={}):
        assert tab.say(type="look") == [{"close": NOT_ALLOWED}]


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["demoted", "logout", "password"])
def test_a_user_who_may_not_look_any_more_gets_no_sample(layer: ChannelLayerWrapper, how: str) -> None:
    user, other = staff(), Tab(layer, staff())
    silent = Tab(layer, user)
    silent.open()
    other.open()
    silent.frames()
    if how == "demoted":
        User.objects.filter(pk=user.pk).update(is_staff=False)
    elif how == "logout":
        silent.client.logout()
    else:
        user.set_password("new")
        user.save()
    over(layer)
    assert [each["type"] for each in other.say(type="look")] == ["sample"]
    assert silent.frames() == [{"close": NOT_ALLOWED}]
    assert layer.group_channels(GROUP) == [other.channel]


@pytest.mark.django_db
def test_too_many_dashboards(layer: ChannelLayerWrapper) -> None:
    first, second = Tab(layer, staff()), Tab(layer, staff())
    with patch.object(dashboard_consumers, "MOST_DASHBOARDS", 1):
        first.open()
        assert second.open() == [{"close": FULL}]
        assert first.say(type="hello")[0]["type"] == "history"
    assert layer.group_channels(GROUP) == [first.channel]


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "purge"}', "[" * 100_000])
def test_bad_frames(layer: ChannelLayerWrapper, text: str) -> None:
    tab = Tab(layer, staff())
    tab.open()
    with pytest.raises(BadFrame, match="hello, look, letters, replay or delete"):
        dashboard_consumers.receive(tab.message("websocket.receive", text=text))


@pytest.mark.django_db
@pytest.mark.parametrize("frame", [{}, {"layer": "default", "queue": 7, "id": "1-1"}, {"id": "1" * 301}])
def test_bad_actions(layer: ChannelLayerWrapper, frame: dict[str, Any]) -> None:
    tab = Tab(layer, staff(is_superuser=True))
    tab.open()
    with pytest.raises(BadFrame, match='needs the texts "layer", "queue" and "id"'):
        dashboard_consumers.receive(tab.message("websocket.receive", text=json.dumps({"type": "replay", **frame})))


@pytest.mark.django_db
def test_actions_need_the_permission(layer: ChannelLayerWrapper) -> None:
    tab = Tab(layer, staff())
    tab.open()
    (letters,) = tab.say(type="letters")
    assert letters == {"type": "letters", "may_act": False, "layers": []}  # this layer keeps none
    named = {"layer": "default", "queue": "reports", "id": "1-1"}
    (done,) = tab.say(type="delete", **named)
    assert done == {"type": "done", "ok": False, "text": "You may not replay or delete dead letters."}
    User.objects.update(is_superuser=True)
    done, letters = tab.say(type="delete", **named)
    assert not done["ok"]
    assert "is on no broker, so that it keeps no dead letters" in done["text"]
    assert letters["may_act"]


@pytest.mark.django_db
def test_the_session_of_a_closed_page_ends(layer: ChannelLayerWrapper) -> None:
    from channelsq.sessions import session_for_reply_channel

    tab = Tab(layer, staff())
    tab.open()
    session = session_for_reply_channel(tab.channel)
    key = session.session_key or ""
    assert session.exists(key)
    tab.run("websocket.disconnect")
    assert not session.exists(key)


# -- system checks


def ids() -> list[str | None]:
    return [each.id for each in check_dashboard(None)]


def test_the_checks(layer: ChannelLayerWrapper) -> None:
    assert ids() == []
    with override_settings(ROOT_URLCONF="app.urls"):
        assert ids() == ["channelsq_dashboard.W002"]
    with override_settings(CHANNEL_DASHBOARD={"enabled": 3}):
        assert ids() == ["channelsq_dashboard.E003"]
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        assert ids() == ["channelsq_dashboard.E002"]
    apps = ["channelsq", "channelsq.contrib.dashboard", "django.contrib.auth", "django.contrib.contenttypes"]
    with override_settings(INSTALLED_APPS=apps):
        assert ids() == ["channelsq_dashboard.E001"]
    for routing in ([], [route("websocket.connect", lambda message: None), *channel_routing]):
        with installed(wrapped(routing)):
            assert ids() == ["channelsq_dashboard.W001"]
            with override_settings(CHANNEL_DASHBOARD={}):
                assert ids() == []  # it is off


def test_the_documentation_has_every_check() -> None:
    from channelsq.contrib.dashboard import dashboard_checks

    documented = {row[0].strip("`") for row in rows(doc_page("dashboard")) if "channelsq_dashboard." in row[0]}
    assert documented == set(re.findall(r"channelsq_dashboard\.[EW]\d+", dashboard_checks.__doc__ or ""))
    assert len(documented) == 5
