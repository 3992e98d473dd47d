"""``--workers`` of gateways: several processes on the same ports, replaced one after another while they serve."""

from __future__ import annotations

import os
import signal
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateways import GatewaySite, Servers
from tests.support.metrics import Metrics
from tests.support.ports import free_port, is_open
from tests.support.processes import Process, Processes
from tests.support.twilio_api import TwilioApi, signature
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

PUBLIC, TOKEN = "https://texts.example", "a secret"

#: A whole gateway of a user's own, without ``serves_together``.
MINE = """
from channelsq.interface.gateway import Gateway, run_gateway


class Mine(Gateway):
    protocol = "mine"


raise SystemExit(run_gateway(Mine))
"""


@pytest.fixture
def api() -> Iterator[TwilioApi]:
    server = TwilioApi()
    yield server
    server.stop()


@pytest.fixture
def site(api: TwilioApi, processes: Processes, tmp_path: Path, redis_url: str) -> Iterator[GatewaySite]:
    sms = {"account_sid": "AC1", "auth_token": TOKEN, "sender": "+15550001111", "api_url": api.url}
    settings = {"CHANNEL_SMS": sms, "CHANNEL_EMAIL": {"domains": ["chat.example"]}}
    made = GatewaySite(processes, tmp_path, Servers(redis_url), settings)
    yield made
    processes.stop()
    made.close()


def children(process: Process) -> set[int]:
    """Return the processes that a supervisor has now."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return set(map(int, text.split()))


def text(port: int, number: int) -> int:
    """Send a text to the site, as the provider does, and return the status."""
    fields = {"MessageSid": f"SM{number}", "From": "+4915112345678", "To": "+15550001111", "Body": str(number)}
    headers = {"X-Twilio-Signature": signature(TOKEN, f"{PUBLIC}/sms/receive", fields)}
    return httpx.post(f"http://127.0.0.1:{port}/sms/receive", data=fields, headers=headers, timeout=20).status_code


def test_texts_come_through_all_processes_while_these_are_replaced(site: GatewaySite, api: TwilioApi) -> None:
    port = free_port()
    args = ("--public-url", PUBLIC, "--workers", "2", "--metrics", "--drain-window", "1")
    supervisor, _ = site.start("channelsq.interface.sms", *args, port=port)
    supervisor.wait_for_output("2 processes serve")
    before = children(supervisor)
    assert len(before) == 2
    supervisor.signal(signal.SIGHUP)
    sent = 0

    def replaced() -> bool:
        nonlocal sent
        sent += 1
        assert text(port, sent) == 200
        assert site.receive("sms.receive")["text"] == str(sent)
        return "replaced 2 processes" in supervisor.output

    wait_until(replaced, "other processes", 60)
    assert not children(supervisor) & before

    for _ in range(20):
        sent += 1
        assert text(port, sent) == 200
        message = site.receive("sms.receive")
        site.layer.send(message["reply_channel"], {"text": message["text"]})
    calls = api.wait_for_calls(20)
    assert len({call.form["Body"][0] for call in calls}) == 20
    scrape = Metrics(f"http://127.0.0.1:{port}")
    assert scrape.values("gateway_processes") == [2]
    assert sum(scrape("gateway_events_total", event="published", process=each) for each in "12") >= 20
    assert min(scrape("gateway_reply_channels", process=each) for each in "12") > 0  # the kernel shares out connections

    assert supervisor.terminate() == 0
    assert not is_open(port)


def test_mails_come_in_on_one_port_and_a_killed_process_is_replaced(site: GatewaySite) -> None:
    port, smtp_port = free_port(), free_port()
    args = ("--smtp-port", str(smtp_port), "--workers", "2", "--no-receipts")
    supervisor, _ = site.start("channelsq.interface.email", *args, port=port)
    supervisor.wait_for_output("2 processes serve")
    before = children(supervisor)

    def mail(number: int) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "ann@example.com", "room@chat.example", str(number)
        message.set_content("Hello")
        with smtplib.SMTP("127.0.0.1", smtp_port, timeout=20) as client:
            client.send_message(message)
        assert site.receive("email.receive")["subject"] == str(number)

    for number in range(10):
        mail(number)
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    supervisor.wait_for_output("killed by SIGKILL; restarting it")
    wait_until(lambda: len(children(supervisor) - {killed}) == 2, "another process", 30)
    for number in range(10, 20):
        mail(number)
    assert httpx.get(f"http://127.0.0.1:{port}/-/health/live").status_code == 200
    assert supervisor.terminate() == 0
    assert not is_open(port)
    assert not is_open(smtp_port)


@pytest.mark.parametrize(
    ("more", "env", "said"),
    [
        ([], {}, "--public-url is missing"),
        (["--public-url", PUBLIC], {"DJANGO_SETTINGS_MODULE": "no.such.settings"}, "no.such.settings"),
    ],
)
def test_settings_that_cannot_be_used_are_reported_once(
    site: GatewaySite, processes: Processes, more: list[str], env: dict[str, Any], said: str
) -> None:
    command = ["python", "-m", "channelsq.interface.sms", "--port", str(free_port()), "--workers", "2", *more]
    process = processes.start(*command, env={**site.env, **env})
    assert process.wait(30) == 2
    assert process.output.count(said) == 1
    assert "Traceback" not in process.output


def test_a_port_that_is_taken_is_not_shared_with_another_program(site: GatewaySite, processes: Processes) -> None:
    first, port = site.start("channelsq.interface.email", "--smtp-port", "0")
    smtp_port = free_port()
    other, _ = site.start("channelsq.interface.email", "--smtp-port", str(smtp_port))
    command = ["python", "-m", "channelsq.interface.email", "--workers", "2"]
    for ports, option in (((port, 0), "--port"), ((0, smtp_port), "--smtp-port")):
        given = ["--port", str(ports[0]), "--smtp-port", str(ports[1])]
        process = processes.start(*command, *given, env=site.env)
        assert process.wait(30) == 2
        assert f"choose another with {option}" in process.output
    assert first.terminate() == other.terminate() == 0


def test_a_gateway_that_serves_alone_refuses_several_processes(
    site: GatewaySite, processes: Processes, tmp_path: Path
) -> None:
    program = tmp_path / "mine.py"
    program.write_text(MINE)
    process = processes.start("python", str(program), "--workers", "2", env=site.env)
    assert process.wait(30) == 2
    assert "channelsq mine gateway: --workers 2 cannot be used: this gateway serves in one process" in process.output

    together = MINE.replace('protocol = "mine"', 'protocol = "mine"\n    serves_together = True')
    program.write_text(together)
    port = free_port()
    supervisor = processes.start("python", str(program), "--workers", "2", "--port", str(port), env=site.env)
    supervisor.wait_for_output("2 processes serve")
    assert len(children(supervisor)) == 2
    assert httpx.get(f"http://127.0.0.1:{port}/-/health/live", timeout=20).status_code == 200
    assert supervisor.terminate() == 0
