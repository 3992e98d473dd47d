"""The SMS gateway as a real process: webhooks by a real client, and a local server that plays the provider's API."""

from __future__ import annotations

import base64
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateways import LAYERS, GatewaySite, Servers, servers
from tests.support.processes import Process, Processes
from tests.support.servers import running_redis
from tests.support.twilio_api import TwilioApi, signature
from tests.support.waiting import wait_until

MODULE = "channelsq.interface.sms"
PUBLIC = "https://texts.example"
TOKEN, OLD_TOKEN = "a secret", "an older secret"
TEXT = {
    "MessageSid": "SM100",
    "AccountSid": "AC1",
    "From": "+4915112345678",
    "To": "+15550001111",
    "Body": "Grüße & more=1",
    "NumMedia": "1",
    "MediaUrl0": "https://media.example/1",
    "MediaContentType0": "image/png",
    "FromCity": "Köln",
}


class SmsSite(GatewaySite):
    """A site with an SMS gateway and its provider."""

    def __init__(self, api: TwilioApi, processes: Processes, folder: Path, on: Servers, config: dict[str, Any]) -> None:
        sms = {"account_sid": "AC1", "auth_token": [TOKEN, OLD_TOKEN], "sender": "+15550001111", "api_url": api.url}
        super().__init__(processes, folder, on, {"CHANNEL_SMS": sms}, config)
        self.api = api
        self.port = 0

    def run(self, *args: str) -> Process:
        """Start a gateway."""
        process, self.port = self.start(MODULE, "--public-url", PUBLIC, *args)
        return process

    def webhook(
        self, path: str, fields: dict[str, str], token: str | None = TOKEN, signed: dict[str, str] | None = None
    ) -> httpx.Response:
        """Call a webhook as the provider does.

        Args:
            token: signs it; None for no signature.
            signed: the fields that are signed, if others.
        """
        headers = {}
        if token is not None:
            headers["X-Twilio-Signature"] = signature(token, PUBLIC + path, signed or fields)
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", data=fields, headers=headers, timeout=20)

    def text(self, number: int, **changes: str) -> httpx.Response:
        """Receive a text."""
        return self.webhook("/sms/receive", {**TEXT, "MessageSid": f"SM{number}", **changes})


@pytest.fixture
def api() -> Iterator[TwilioApi]:
    server = TwilioApi()
    yield server
    server.stop()


@pytest.fixture(params=LAYERS)
def on(request: pytest.FixtureRequest) -> Servers:
    """The servers of the layer."""
    return servers(request, request.param)


@pytest.fixture
def site(api: TwilioApi, processes: Processes, tmp_path: Path, on: Servers) -> Iterator[SmsSite]:
    made = SmsSite(api, processes, tmp_path, on, {"capacity": 3})
    yield made
    processes.stop()
    made.close()


def test_texts_come_in_once_and_are_answered(site: SmsSite) -> None:
    gateway = site.run()
    response = site.webhook("/sms/receive", TEXT)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/xml")
    assert "<Response" in response.text
    message = site.receive("sms.receive")
    reply_channel = message.pop("reply_channel")
    assert message == {
        "provider": "twilio",
        "id": "SM100",
        "from": "+4915112345678",
        "to": "+15550001111",
        "text": "Grüße & more=1",
        "media": [{"url": "https://media.example/1", "content_type": "image/png"}],
        "fields": {"FromCity": "Köln"},
    }

    # Repeated, by another gateway too, it is answered and not published again; so is one with the older token.
    assert site.webhook("/sms/receive", TEXT).status_code == 200
    other, port = site.port, site.run()
    assert site.webhook("/sms/receive", TEXT, token=OLD_TOKEN).status_code == 200
    port.terminate()
    site.port = other
    assert site.is_empty("sms.receive")

    site.layer.send(reply_channel, {"text": "Hello back"})
    (call,) = site.api.wait_for_calls(1)
    assert call.path == "/2010-04-01/Accounts/AC1/Messages.json"
    assert base64.b64decode(call.authorization.removeprefix("Basic ")).decode() == f"AC1:{TOKEN}"
    assert call.form == {
        "To": ["+4915112345678"],
        "From": ["+15550001111"],
        "Body": ["Hello back"],
        "StatusCallback": [f"{PUBLIC}/sms/status"],
    }
    receipt = site.receive("sms.status")
    assert (receipt["id"], receipt["status"], receipt["to"]) == ("SM1", "queued", "+4915112345678")
    assert gateway.terminate() == 0


def test_only_the_providers_webhooks_are_taken(site: SmsSite) -> None:
    gateway = site.run("--max-body-size", "2000", "--metrics")
    forged = [
        site.webhook("/sms/receive", TEXT, token=None),
        site.webhook("/sms/receive", TEXT, token="another secret"),
        site.webhook("/sms/receive", {**TEXT, "Body": "changed"}, signed=TEXT),
        site.webhook("/sms/status", {"MessageSid": "SM1", "MessageStatus": "delivered"}, token="another secret"),
    ]
    assert [response.status_code for response in forged] == [403] * 4
    assert site.webhook("/sms/receive", {"Body": "no id"}).status_code == 400
    assert site.webhook("/sms/receive", {**TEXT, "Body": "x" * 3000}).status_code == 413
    base = f"http://127.0.0.1:{site.port}"
    assert httpx.get(f"{base}/sms/receive").status_code == 405
    assert httpx.get(f"{base}/elsewhere").status_code == 404
    assert site.is_empty("sms.receive")
    assert httpx.get(f"{base}/-/health/live").text == "live\n"
    wait_until(lambda: httpx.get(f"{base}/-/health/ready").text == "ready\n", "a ready gateway")
    metrics = httpx.get(f"{base}/-/metrics").text
    assert 'channelsq_gateway_events_total{event="unsigned"} 4.0' in metrics
    assert 'channelsq_gateway_info{protocol="sms"' in metrics
    assert 'channelsq_gateway_refused_total{protocol="http",reason="answer",status="403"} 4.0' in metrics
    assert TOKEN not in gateway.output


def test_a_full_channel_makes_the_provider_try_again(site: SmsSite) -> None:
    site.run("--publish-timeout", "0.2")
    responses = [site.text(number) for number in range(5)]
    refused = [number for number, response in enumerate(responses) if response.status_code == 503]
    assert refused
    assert all(int(responses[number].headers["retry-after"]) > 0 for number in refused)
    got = {site.receive("sms.receive")["id"] for _ in range(5 - len(refused))}
    for number in refused:
        wait_until(lambda number=number: site.text(number).status_code == 200, "room")  # type: ignore[misc]
        got.add(site.receive("sms.receive")["id"])
    assert got == {f"SM{number}" for number in range(5)}
    assert site.is_empty("sms.receive")


def test_receipts_follow_a_text(site: SmsSite) -> None:
    site.run()
    text = {"to": "+491", "text": "Your order", "reference": "order 7 & 8", "media": ["https://media.example/2"]}
    site.layer.send("sms.send", text)
    (call,) = site.api.wait_for_calls(1)
    assert call.form["MediaUrl"] == ["https://media.example/2"]
    callback = call.form["StatusCallback"][0].removeprefix(PUBLIC)
    first = site.receive("sms.status")
    assert (first["status"], first["id"], first["reference"]) == ("queued", "SM1", "order 7 & 8")
    news = {"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": "30003", "To": "+491", "From": "+1555"}
    for _ in range(2):
        assert site.webhook(callback, news).status_code == 204
    second = site.receive("sms.status")
    assert second == {
        "id": "SM1",
        "status": "undelivered",
        "from": "+1555",
        "to": "+491",
        "code": "30003",
        "reason": "",
        "reference": "order 7 & 8",
    }
    assert site.is_empty("sms.status")


def test_failures_are_tried_again_or_reported(site: SmsSite) -> None:
    site.api.answers += [
        (429, {"code": 20429}, {"retry-after": "0"}),
        (503, {}, {"retry-after": "0"}),
        (201, {"sid": "SM9", "status": "accepted"}, {}),
        (400, {"code": 21211, "message": "not a number"}, {}),
        (502, {}, {}),
    ]
    site.run("--sends", "1")
    site.layer.send("sms.send", {"to": "+491", "text": "one"})
    assert site.receive("sms.status")["id"] == "SM9"
    assert [call.form["Body"] for call in site.api.calls] == [["one"]] * 3
    site.layer.send("sms.send", {"to": "+492", "text": "two"})
    receipt = site.receive("sms.status")
    assert (receipt["status"], receipt["code"]) == ("failed", "21211")
    assert "not a number" in receipt["reason"]
    site.layer.send("sms.send", {"to": "+493", "text": "three"})
    assert site.receive("sms.status")["status"] == "unknown"
    site.layer.send("sms.send", {"to": "not\r\na number", "text": "four"})
    assert "phone number" in site.receive("sms.status")["reason"]
    assert len(site.api.calls) == 5


def test_a_text_whose_sender_was_killed_is_not_sent_twice(site: SmsSite) -> None:
    gateway = site.run()
    site.api.is_open.clear()
    site.layer.send("sms.send", {"to": "+491", "text": "once", "reference": "r"})
    site.api.wait_for_calls(1)
    gateway.kill()
    site.api.is_open.set()
    site.run()
    receipt = site.receive("sms.status", timeout=40)
    assert (receipt["status"], receipt["reference"]) == ("unknown", "r")
    assert len(site.api.calls) == 1


def test_a_gateway_that_stops_leaves_the_rest_to_others(site: SmsSite) -> None:
    site.api.answers += [(429, {}, {"retry-after": "60"})]
    first = site.run()
    site.layer.send("sms.send", {"to": "+491", "text": "later"})
    site.api.wait_for_calls(1)
    first.wait_for_output("tried again in")
    assert first.terminate() == 0
    assert site.is_empty("sms.status")
    site.run()
    assert site.receive("sms.status")["status"] == "queued"
    assert len(site.api.calls) == 2


def test_an_open_request_is_finished_on_shutdown(site: SmsSite) -> None:
    gateway = site.run()
    site.api.is_open.clear()
    site.layer.send("sms.send", {"to": "+491", "text": "slow"})
    site.api.wait_for_calls(1)
    gateway.signal(signal.SIGTERM)
    gateway.wait_for_output("stopping")
    site.api.is_open.set()
    assert gateway.wait() == 0
    assert site.receive("sms.status")["status"] == "queued"


def test_connections_are_bounded(site: SmsSite) -> None:
    site.run("--max-connections", "2", "--request-timeout", "0.5", "--max-header-size", "1k")
    address = ("127.0.0.1", site.port)
    with socket.create_connection(address) as large:
        large.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 2000)
        assert large.recv(100).startswith(b"HTTP/1.1 431")
    with socket.create_connection(address) as idle, socket.create_connection(address) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        with socket.create_connection(address) as third:
            assert third.recv(100).startswith(b"HTTP/1.1 503")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert idle.recv(100).startswith(b"HTTP/1.1 408")
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{site.port}/-/health/live").status_code == 200, "room")


@pytest.mark.redis
def test_operators_see_it(api: TwilioApi, processes: Processes, tmp_path: Path, redis_url: str) -> None:
    site = SmsSite(api, processes, tmp_path, Servers(redis_url), {})
    gateway = site.run()
    presence = site.layer.presence
    assert presence is not None
    wait_until(lambda: [each.protocol for each in presence.announced()] == ["sms"], "an announcement")
    shown = site.manage("channels")
    assert "PROTOCOL" in shown
    assert "sms.send" in shown
    assert gateway.terminate() == 0
    assert presence.announced() == []
    site.close()


@pytest.mark.parametrize(
    ("args", "settings", "problem"),
    [
        ([], {}, "--public-url is missing"),
        (["--public-url", "texts.example"], {}, "--public-url cannot be 'texts.example'"),
        (["--public-url", PUBLIC], {}, 'CHANNEL_SMS needs "account_sid" and "auth_token"'),
        (["--public-url", PUBLIC], {"CHANNEL_SMS": []}, "CHANNEL_SMS must be a dict"),
        (["--public-url", PUBLIC], {"CHANNEL_SMS": {"nonsense": 1}}, "CHANNEL_SMS does not fit the provider"),
        (["--public-url", PUBLIC], {"CHANNEL_SMS": {"provider": "builtins.dict"}}, "is not a subclass"),
        (
            ["--public-url", PUBLIC],
            {"CHANNEL_LAYERS": {"default": {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": []}}},
            "a gateway needs a channel layer that several processes share",
        ),
    ],
)
def test_settings_that_cannot_be_used(
    processes: Processes, tmp_path: Path, args: list[str], settings: dict[str, Any], problem: str
) -> None:
    site = GatewaySite(processes, tmp_path, Servers(), settings)
    process = processes.start("python", "-m", MODULE, "--port", "0", *args, env=site.env)
    assert process.wait() == 2
    assert problem in process.output
    assert len(process.output.strip().splitlines()) == 1
    site.close()


@pytest.mark.redis
def test_a_number_stays_in_its_group_when_redis_was_killed(
    api: TwilioApi, processes: Processes, tmp_path: Path
) -> None:
    with running_redis(tmp_path / "redis") as server:
        site = SmsSite(api, processes, tmp_path, Servers(server.url), {})
        gateway = site.run()
        assert site.webhook("/sms/receive", TEXT).status_code == 200
        channel = site.receive("sms.receive")["reply_channel"]
        site.layer.group_add("room", channel)
        site.layer.send(channel, {"text": "You have joined"})  # comes behind the note of the membership
        site.api.wait_for_calls(1)
        server.kill()
        server.start()
        gateway.wait_for_output("1 group memberships were restored")
        assert site.layer.group_channels("room") == [channel]
        site.layer.send_group("room", {"text": "Hello all"})
        *_, call = site.api.wait_for_calls(2)
        assert (call.form["To"], call.form["Body"]) == ([TEXT["From"]], ["Hello all"])
        assert gateway.terminate() == 0
        assert site.layer.group_channels("room") == []
        site.layer.close()
