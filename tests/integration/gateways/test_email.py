"""The email gateway as a real process: mails by smtplib, and a local SMTP server that plays the site's mail server."""

from __future__ import annotations

import signal
import smtplib
import socket
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.certificates import self_signed
from tests.support.gateways import LAYERS, GatewaySite, Servers, servers
from tests.support.mail_server import MailServer
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.waiting import wait_until

MODULE = "channelsq.interface.email"
ROOM = "tea@chat.example"


def a_mail(**headers: str) -> EmailMessage:
    mail = EmailMessage()
    given = {"From": "Ann Ä <ann@home.example>", "To": ROOM, "Subject": "Größe", "Message-ID": "<1@home.example>"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in given.items():
        mail[name] = value
    mail.set_content("Hello,\nwörld")
    return mail


class EmailSite(GatewaySite):
    """A site with an email gateway and its mail server."""

    def __init__(self, server: MailServer, processes: Processes, folder: Path, on: Servers) -> None:
        settings = {
            "CHANNEL_EMAIL": {"domains": ["chat.example"], "addresses": ["Info@Other.example"]},
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": server.port,
            "DEFAULT_FROM_EMAIL": "site@chat.example",
        }
        super().__init__(processes, folder, on, settings, {"capacity": 3})
        self.server = server
        self.port = self.smtp_port = 0

    def run(self, *args: str) -> Process:
        """Start a gateway."""
        self.smtp_port = free_port()
        process, self.port = self.start(MODULE, "--smtp-port", str(self.smtp_port), *args)
        return process

    def mail(self, mail: EmailMessage, sender: str = "ann@home.example", to: str = ROOM) -> tuple[int, bytes]:
        """Send a mail to the gateway; return its answer."""
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=20) as client:
            try:
                client.sendmail(sender, [to], mail.as_bytes())
            except smtplib.SMTPResponseException as error:
                return error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""
            except smtplib.SMTPRecipientsRefused as error:
                return next(iter(error.recipients.values()))
        return 250, b""


@pytest.fixture
def server() -> Iterator[MailServer]:
    made = MailServer()
    yield made
    made.stop()


@pytest.fixture(params=LAYERS)
def on(request: pytest.FixtureRequest) -> Servers:
    """The servers of the layer."""
    return servers(request, request.param)


@pytest.fixture
def site(server: MailServer, processes: Processes, tmp_path: Path, on: Servers) -> Iterator[EmailSite]:
    made = EmailSite(server, processes, tmp_path, on)
    yield made
    processes.stop()
    made.close()


def test_mails_come_in_once_and_are_answered(site: EmailSite) -> None:
    gateway = site.run("--max-attachments", "1k")
    mail = a_mail(In_Reply_To="<0@chat.example>", References="<a@x> <0@chat.example>")
    mail.add_alternative("<p>Hello</p>", subtype="html")
    mail.add_attachment(b"small", maintype="image", subtype="png", filename="a.png")
    mail.add_attachment(b"x" * 2000, maintype="application", subtype="pdf", filename="b.pdf")
    for _ in range(2):
        assert site.mail(mail) == (250, b"")
    message = site.receive("email.receive")
    assert site.is_empty("email.receive")
    reply_channel = message.pop("reply_channel")
    headers = message.pop("headers")
    assert ["Subject", "=?utf-8?q?Gr=C3=B6=C3=9Fe?="] in headers
    assert message.pop("client").startswith("127.0.0.1:")
    assert message == {
        "sender": "ann@home.example",
        "to": [ROOM],
        "from": "Ann Ä <ann@home.example>",
        "subject": "Größe",
        "date": "",
        "message_id": "<1@home.example>",
        "in_reply_to": "<0@chat.example>",
        "references": ["<a@x>", "<0@chat.example>"],
        "text": "Hello,\nwörld\n",
        "html": "<p>Hello</p>\n",
        "attachments": [
            {"name": "a.png", "content_type": "image/png", "size": 5, "content": b"small"},
            {"name": "b.pdf", "content_type": "application/pdf", "size": 2000, "content": None},
        ],
        "tls": False,
    }

    site.layer.send(reply_channel, {"text": "Thänks", "reference": "r1"})
    (answer,) = site.server.wait_for_mails(1)
    assert site.server.envelopes == [(ROOM, ["ann@home.example"])]
    assert (answer["From"], answer["To"], answer["Subject"]) == (ROOM, "ann@home.example", "Re: Größe")
    assert answer["In-Reply-To"] == "<1@home.example>"
    assert answer["References"] == "<a@x> <0@chat.example> <1@home.example>"
    assert answer["Auto-Submitted"] == "auto-replied"
    assert answer.get_content().strip() == "Thänks"
    receipt = site.receive("email.status")
    assert (receipt["status"], receipt["reference"], receipt["id"]) == ("sent", "r1", answer["Message-ID"])
    # Mails of this server do not come in again.
    assert site.mail(answer)[0] == 554
    assert gateway.terminate() == 0


AUTOMATIC = [
    ({"Auto_Submitted": "auto-replied"}, b"Auto-Submitted"),
    ({"Precedence": "bulk"}, b"Precedence"),
    ({"List_Id": "<list.example>"}, b"mailing list"),
    ({"X_Loop": "x"}, b"X-Loop"),
    ({"Return_Path": "<>"}, b"no sender"),
]


def test_automatic_mails_and_other_recipients_are_refused(site: EmailSite) -> None:
    site.run("--metrics")
    for headers, reason in AUTOMATIC:
        code, text = site.mail(a_mail(**headers))
        assert code == 554
        assert reason in text
    assert site.mail(a_mail(), sender="")[0] == 550
    assert site.mail(a_mail(), sender="MAILER-DAEMON@x.example")[0] == 554
    assert site.mail(a_mail(), to="someone@elsewhere.example")[0] == 550
    assert site.mail(a_mail(), to="else@other.example")[0] == 550
    assert site.is_empty("email.receive")
    assert site.mail(a_mail(Auto_Submitted="no"), to="info@OTHER.example")[0] == 250
    assert site.receive("email.receive")["to"] == ["info@OTHER.example"]
    metrics = httpx.get(f"http://127.0.0.1:{site.port}/-/metrics").text
    assert 'channelsq_gateway_events_total{event="automatic"} 6.0' in metrics
    assert 'channelsq_gateway_refused_total{protocol="smtp",reason="null_sender",status="550"} 1.0' in metrics
    assert 'reason="unknown_recipient",status="550"} 2.0' in metrics


def test_a_full_channel_makes_the_mail_server_try_again(site: EmailSite) -> None:
    site.run("--publish-timeout", "0.2")
    mails = [a_mail(Message_ID=f"<{number}@x>") for number in range(5)]
    waiting = [mail for mail in mails if site.mail(mail)[0] == 451]
    assert waiting
    got = {site.receive("email.receive")["message_id"] for _ in range(5 - len(waiting))}
    for mail in waiting:
        wait_until(lambda mail=mail: site.mail(mail)[0] == 250, "room")  # type: ignore[misc]
        got.add(site.receive("email.receive")["message_id"])
    assert got == {f"<{number}@x>" for number in range(5)}


def test_failures_are_tried_again_or_reported(site: EmailSite) -> None:
    site.server.answers += ["451 4.7.1 grey", "250 OK", "550 5.1.1 unknown"]
    site.run("--sends", "1")
    site.layer.send("email.send", {"to": "a@x.example", "subject": "one", "text": "t"})
    assert site.receive("email.status")["status"] == "sent"
    assert [mail["Auto-Submitted"] for mail in site.server.mails] == ["auto-generated"] * 2
    site.layer.send("email.send", {"to": ["a@x.example"], "subject": "two", "text": "t"})
    receipt = site.receive("email.status")
    assert (receipt["status"], receipt["code"]) == ("failed", "550")
    # Lines in a header would be headers of their own.
    site.layer.send("email.send", {"to": "a@x.example", "subject": "a\nBcc: b@x.example", "text": "t"})
    assert '"subject" must be one line' in site.receive("email.status")["reason"]
    assert len(site.server.mails) == 3


def test_a_mail_server_that_is_away_is_waited_for(site: EmailSite) -> None:
    port = site.server.port
    site.server.stop()
    gateway = site.run()
    site.layer.send("email.send", {"to": "a@x.example", "subject": "later", "text": "t"})
    gateway.wait_for_output("tried again in")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert site.is_empty("email.status")
    back = MailServer(port)
    site.run()
    assert site.receive("email.status")["status"] == "sent"
    back.stop()


def test_connections_are_bounded(site: EmailSite) -> None:
    site.run("--max-connections", "1", "--smtp-timeout", "0.5", "--max-mail-size", "10k")
    address = ("127.0.0.1", site.smtp_port)
    with socket.create_connection(address) as first:
        assert first.recv(1000).startswith(b"220")
        with socket.create_connection(address) as second:
            assert second.recv(1000).startswith(b"421")
        assert first.recv(1000) == b""  # it was silent for too long
    large = a_mail()
    large.set_content("line\n" * 5000)
    wait_until(lambda: site.mail(large)[0] == 552, "a place for the next connection")
    with socket.create_connection(address) as flood, pytest.raises(OSError):  # noqa: PT012 - the server cuts it
        flood.settimeout(10)
        while True:
            flood.sendall(b"x" * 65536)
    assert site.is_empty("email.receive")


def test_starttls(server: MailServer, processes: Processes, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "localhost")
    site = EmailSite(server, processes, tmp_path, Servers())
    site.run("--tls-certificate", str(certificate), "--tls-key", str(key))
    with smtplib.SMTP("localhost", site.smtp_port, timeout=20) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(certificate)))
        client.sendmail("ann@home.example", [ROOM], a_mail().as_bytes())
    assert site.receive("email.receive")["tls"] is True
    site.close()


@pytest.mark.parametrize(
    ("args", "value", "problem"),
    [
        ([], {}, 'CHANNEL_EMAIL names no "domains"'),
        ([], {"domains": "chat.example"}, "CHANNEL_EMAIL['domains'] must be a list"),
        ([], {"domains": ["a@b"]}, "CHANNEL_EMAIL cannot have 'a@b'"),
        ([], {"domain": ["b"]}, "unknown key 'domain'"),
        (["--tls-key", __file__], {"domains": ["b"]}, "belong together"),
        (["--tls-key", "/nowhere"], {"domains": ["b"]}, "--tls-key cannot be '/nowhere'"),
    ],
)
def test_settings_that_cannot_be_used(
    processes: Processes, tmp_path: Path, args: list[str], value: dict[str, Any], problem: str
) -> None:
    site = GatewaySite(processes, tmp_path, Servers(), {"CHANNEL_EMAIL": value})
    process = processes.start("python", "-m", MODULE, "--port", "0", *args, env=site.env)
    assert process.wait() == 2
    assert problem in process.output
    site.close()
