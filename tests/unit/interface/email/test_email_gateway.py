"""The email gateway between SMTP and a layer, with real mail servers on both sides."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.limits import Limits
from channelsq.interface.email.email_gateway import EmailConfig, EmailGateway
from channelsq.layers import IPCChannelLayer
from tests.support.mail_server import MailServer

LIMITS = Limits(end_begun=0.1)


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[IPCChannelLayer]:
    made = IPCChannelLayer(path=tmp_path / "ipc")
    yield made
    made.close()


@pytest.fixture
def outgoing(settings: Any) -> Iterator[MailServer]:
    """The site's mail server."""
    server = MailServer()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    settings.DEFAULT_FROM_EMAIL = "site@chat.example"
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def recipients(settings: Any) -> None:
    settings.CHANNEL_EMAIL = {"domains": ["Chat.example"], "addresses": ["help@example.com"]}


def serve(layer: IPCChannelLayer, visit: Callable[[EmailGateway], Awaitable[None]]) -> EmailGateway:
    """Run a gateway and a visitor in one loop."""

    async def run() -> EmailGateway:
        config = EmailConfig(port=0, smtp_port=0, limits=LIMITS, rate=0, drain_window=2, retry_time=0.1)
        gateway = EmailGateway(config, ChannelLayerWrapper(layer, "default", []))
        listening = asyncio.Event()
        running = asyncio.ensure_future(gateway.run(on_listening=lambda _: listening.set(), install_signals=False))
        await asyncio.wait([running, asyncio.ensure_future(listening.wait())], return_when=asyncio.FIRST_COMPLETED)
        try:
            async with asyncio.timeout(20):
                await visit(gateway)
        finally:
            gateway.stop()
            await running
        return gateway

    return asyncio.run(run())


async def take(layer: IPCChannelLayer, channel: str) -> dict[str, Any]:
    """Return the next message of a channel."""
    while True:
        _, message = await asyncio.to_thread(layer.receive, [channel], True)
        if message is not None:
            return message


async def mail(gateway: EmailGateway, to: str, *headers: str) -> None:
    text = "\n".join(["From: Ann <ann@example.com>", "Subject: Hello", "Message-ID: <1@example.com>", *headers])

    def send() -> None:
        with smtplib.SMTP("127.0.0.1", gateway.smtp_port, timeout=20) as client:
            client.sendmail("ann@example.com", [to], text + "\n\nHi")

    await asyncio.to_thread(send)


def test_a_mail_comes_in_and_its_answer_is_in_its_thread(layer: IPCChannelLayer, outgoing: MailServer) -> None:
    async def visit(gateway: EmailGateway) -> None:
        await mail(gateway, "room@CHAT.example")
        message = await take(layer, "email.receive")
        assert (message["sender"], message["to"], message["tls"]) == ("ann@example.com", ["room@CHAT.example"], False)
        assert (message["subject"], message["text"].strip()) == ("Hello", "Hi")
        await asyncio.to_thread(layer.send, message["reply_channel"], {"text": "Welcome"})
        (sent,) = await asyncio.to_thread(outgoing.wait_for_mails, 1)
        assert (sent["To"], sent["Subject"], sent["In-Reply-To"]) == ("ann@example.com", "Re: Hello", "<1@example.com>")
        assert outgoing.envelopes[0][1] == ["ann@example.com"]
        receipt = await take(layer, "email.status")
        assert (receipt["status"], receipt["id"]) == ("sent", sent["Message-ID"])

    serve(layer, visit)


def test_mails_of_programs_and_for_others_are_refused(layer: IPCChannelLayer) -> None:
    async def visit(gateway: EmailGateway) -> None:
        with pytest.raises(smtplib.SMTPDataError, match="an automatic mail is not accepted here"):
            await mail(gateway, "help@example.com", "Auto-Submitted: auto-replied")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            await mail(gateway, "other@example.com")
        assert gateway.clients() == 0
        assert await asyncio.to_thread(layer.receive, ["email.receive"]) == (None, None)

    assert serve(layer, visit).stats["gateway.automatic"] == 1


@pytest.mark.parametrize(
    ("answer", "status", "code"), [("550 no such user", "failed", "550"), ("451 busy", "failed", "")]
)
def test_a_refusal_of_the_sites_mail_server_is_in_the_receipt(
    layer: IPCChannelLayer, outgoing: MailServer, answer: str, status: str, code: str
) -> None:
    outgoing.answers = [answer] * 5

    async def visit(gateway: EmailGateway) -> None:
        await gateway.send_later("email.send", {"to": "ann@example.com", "subject": "x", "text": "y"})
        receipt = await take(layer, "email.status")
        assert (receipt["status"], receipt.get("code", "")) == (status, code)
        assert f"the mail server answered {answer[:3]}" in receipt["reason"]

    serve(layer, visit)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, 'names no "domains" and no "addresses"'),
        ({"domain": ["x.example"]}, "unknown key 'domain'"),
        ({"domains": "x.example"}, r"\['domains'\] must be a list of str"),
        ({"domains": ["a@x.example"]}, "cannot have 'a@x.example'"),
        ({"addresses": ["x.example"]}, "cannot have 'x.example'"),
    ],
)
def test_settings_that_cannot_be_used(layer: IPCChannelLayer, settings: Any, given: dict[str, Any], said: str) -> None:
    settings.CHANNEL_EMAIL = given
    with pytest.raises(ConfigError, match=said):
        EmailGateway(EmailConfig(), ChannelLayerWrapper(layer, "default", []))


def test_a_certificate_needs_its_key(layer: IPCChannelLayer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    wrapper = ChannelLayerWrapper(layer, "default", [])
    with pytest.raises(ConfigError, match="belong together"):
        EmailGateway(EmailConfig(tls_certificate=str(broken)), wrapper)
    with pytest.raises(ConfigError, match="cannot be used"):
        EmailGateway(EmailConfig(tls_certificate=str(broken), tls_key=str(broken)), wrapper)
