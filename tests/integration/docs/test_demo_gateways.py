"""Texts and mails in the demo's room: real gateways and a real worker."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from tests.support.demo import Demo, fresh_redis
from tests.support.mail_server import MailServer
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.twilio_api import signature
from tests.support.waiting import wait_until

PUBLIC = "https://texts.example"


@pytest.mark.redis
@pytest.mark.timeout(120)
def test_a_room_shows_texts_and_mails_and_answers_them(
    demo_template: Path, tmp_path: Path, processes: Processes, redis_url: str
) -> None:
    server = MailServer()
    env = {
        "REDIS_URL": fresh_redis(redis_url),
        "GATEWAY_ROOM": "lobby",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "secret",
        "TWILIO_SENDER": "+1555",
        "EMAIL_DOMAINS": "chat.example",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(server.port),
    }
    demo = Demo(demo_template, tmp_path, env)
    sms, mails, smtp = free_port(), free_port(), free_port()
    options = ("--no-receipts", "--port")

    def texts() -> dict[str, str]:
        """The messages of the room that texts and mails made, by their text."""
        query = "SELECT text, username FROM app_message JOIN auth_user ON auth_user.id = author_id"
        found = {str(text): str(name) for text, name in demo.query(query)}
        return {text: name for text, name in found.items() if name.startswith(("sms-", "email-"))}

    try:
        demo.start_worker()
        module = "channelsq.interface"
        started = [
            processes.start("python", "-m", f"{module}.sms", *options, str(sms), "--public-url", PUBLIC, env=demo.env),
            processes.start(
                "python", "-m", f"{module}.email", *options, str(mails), "--smtp-port", str(smtp), env=demo.env
            ),
        ]
        for each in started:
            each.wait_for_output("gateway listening on")
        fields = {"MessageSid": "SM1", "From": "+49151", "To": "+1555", "Body": "Hello from a phone"}
        signed = {"X-Twilio-Signature": signature("secret", f"{PUBLIC}/sms/receive", fields)}
        response = httpx.post(f"http://127.0.0.1:{sms}/sms/receive", data=fields, headers=signed)
        assert response.status_code == 200
        wait_until(lambda: "Hello from a phone" in texts(), "the text in the room", 20)
        assert "49151" not in texts()["Hello from a phone"]
        mail = EmailMessage()
        mail["Subject"], mail["Message-ID"] = "Tea", "<1@x.example>"
        mail.set_content("Hello from a mail")
        with smtplib.SMTP("127.0.0.1", smtp) as client:
            client.sendmail("bob@x.example", ["lobby@chat.example"], mail.as_bytes())
        wait_until(lambda: "Tea\nHello from a mail" in texts(), "the mail in the room", 20)
        sources = demo.query("SELECT text, source FROM app_message WHERE source <> '' ORDER BY id")
        assert sources == [("Hello from a phone", "sms"), ("Tea\nHello from a mail", "email")]
        name = texts()["Tea\nHello from a mail"]
        demo.manage(
            "shell", "-c",
            "from app import gateways, models\n"
            f"gateways.answer(models.Room.objects.get(slug='lobby'), '@{name} Come in')",
        )  # fmt: skip
        (answer,) = server.wait_for_mails(1)
        assert (answer["To"], answer["Subject"]) == ("bob@x.example", "Re: Tea")
        assert answer.get_content().strip() == "Come in"
        assert "Auto-Submitted" not in answer
    finally:
        processes.stop()
        demo.stop()
        server.stop()
