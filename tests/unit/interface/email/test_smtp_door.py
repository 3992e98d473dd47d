"""The SMTP server of the email gateway, with Python's own client."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from channelsq.interface.basis.counters import Counters
from channelsq.interface.basis.sockets import bind
from channelsq.interface.email import smtp_door as module
from channelsq.interface.email.smtp_door import Received, SmtpDoor
from channelsq.interface.gateway.outcomes import Rejected, TryLater


class Site:
    """A server, and the mails that it was given."""

    def __init__(self) -> None:
        self.stats = Counters()
        self.received: list[Received] = []
        self.raises: Exception | None = None
        self.port = 0
        self.door: SmtpDoor

    async def deliver(self, received: Received) -> None:
        if self.raises is not None:
            raise self.raises
        self.received.append(received)

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.port, timeout=20)


def serve(visit: Callable[[Site], object], **options: Any) -> Site:
    """Run a server in an event loop, and a client in a thread."""

    async def run() -> Site:
        site = Site()
        given: dict[str, Any] = {"connections": 10, "mail_size": 10_000, "seconds": 20.0, **options}
        site.door = SmtpDoor(
            site.deliver, lambda to: to.endswith("@chat.example"), site.stats, hostname="mx.example", **given
        )
        sockets = bind("127.0.0.1", 0)
        site.port = sockets[0].getsockname()[1]
        await site.door.listen(sockets)
        try:
            await asyncio.to_thread(visit, site)
        finally:
            await site.door.close()
        return site

    return asyncio.run(run())


def test_a_mail_comes_with_its_envelope() -> None:
    def visit(site: Site) -> None:
        with site.client() as client:
            assert client.sendmail("ann@example.com", ["a@chat.example", "b@chat.example"], "Subject: x\n\nHello") == {}

    (mail,) = serve(visit).received
    assert (mail.sender, mail.recipients) == ("ann@example.com", ("a@chat.example", "b@chat.example"))
    assert mail.data == b"Subject: x\r\n\r\nHello\r\n"
    assert mail.client.startswith("127.0.0.1:")
    assert not mail.is_encrypted


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        (TryLater("the channel is full"), 451, "try_later"),
        (Rejected("an automatic mail", "automatic"), 554, "automatic"),
        (Rejected("a wrong mail"), 554, "rejected"),
    ],
)
def test_what_the_site_does_not_take_is_answered(raised: Exception, code: int, reason: str) -> None:
    def visit(site: Site) -> None:
        site.raises = raised
        with site.client() as client, pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("ann@example.com", ["a@chat.example"], "x")
        assert refused.value.smtp_code == code
        assert str(raised) in str(refused.value)

    assert dict(serve(visit).stats.refused) == {("smtp", code, reason): 1}


def test_a_fault_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    def visit(site: Site) -> None:
        site.raises = RuntimeError("a secret")
        with site.client() as client, pytest.raises(smtplib.SMTPDataError, match="the server failed") as refused:
            client.sendmail("ann@example.com", ["a@chat.example"], "x")
        assert refused.value.smtp_code == 451

    serve(visit)
    assert "a mail failed" in caplog.text


def test_senders_and_recipients_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RECIPIENTS", 1)

    def visit(site: Site) -> None:
        with site.client() as client:
            client.ehlo()
            assert client.mail("")[0] == 550
            assert client.mail("no-address")[0] == 501
            assert client.mail("x" * 250 + "@example.com")[0] == 501
            assert client.mail("ann@example.com")[0] == 250
            assert client.rcpt("someone@elsewhere.example")[0] == 550
            assert client.rcpt("a@chat.example")[0] == 250
            assert client.rcpt("b@chat.example")[0] == 452

    refused = serve(visit).stats.refused
    assert dict(refused) == {("smtp", 550, "null_sender"): 1, ("smtp", 550, "unknown_recipient"): 1}


def test_connections_are_bounded() -> None:
    def visit(site: Site) -> None:
        with site.client(), pytest.raises(smtplib.SMTPConnectError) as refused:
            site.client()
        assert refused.value.smtp_code == 421

    assert dict(serve(visit, connections=1).stats.refused) == {("smtp", 421, "too_many_connections"): 1}


def test_a_line_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMMANDS", 1000)

    def visit(site: Site) -> None:
        with socket.create_connection(("127.0.0.1", site.port), 20) as client:
            assert client.recv(1000).startswith(b"220 mx.example channelsq")
            client.sendall(b"x" * 3000)
            with client.makefile("rb") as answers:
                assert answers.readline().startswith(b"552 5.3.4")
                assert answers.read() == b""

    assert dict(serve(visit, mail_size=1000).stats.refused) == {("smtp", 552, "mail_too_large"): 1}


def test_a_closing_server_takes_no_more_mails() -> None:
    def visit(site: Site) -> None:
        with site.client() as client:
            client.ehlo()
            site.door.is_closing = True
            assert client.mail("ann@example.com")[0] == 421

    assert serve(visit).received == []
