"""The gateway of docs/how-to/extend/interface-servers.md, between the machine's Mosquitto and a layer."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import httpx
import pytest

from tests.support import needs
from tests.support.gateways import LAYERS, GatewaySite, servers
from tests.support.markdown import doc_page
from tests.support.ports import free_port, is_open
from tests.support.processes import ROOT, Process, Processes
from tests.support.waiting import wait_until

PROGRAM = ROOT / "docs" / "examples" / "mqtt" / "mqtt_gateway.py"
BROKER = os.environ.get("MQTT_URL", "mqtt://127.0.0.1:1883")
HOST, PORT = urlsplit(BROKER).hostname or "127.0.0.1", urlsplit(BROKER).port or 1883


def test_the_page_has_the_whole_program() -> None:
    program = PROGRAM.read_text()
    assert program in doc_page("interface-servers").read_text()
    assert len(program.splitlines()) < 100


@pytest.mark.parametrize("on", LAYERS)
def test_messages_go_both_ways(on: str, processes: Processes, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not is_open(PORT):
        needs.missing(f"no MQTT broker at {BROKER}: apt install mosquitto")
    site = GatewaySite(processes, tmp_path, servers(request, on))
    name = f"channelsq-{secrets.token_hex(4)}"
    port = free_port()

    def start() -> Process:
        options = ("--broker", BROKER, "--topics", f"{name}/in/#", "--client-id", name, "--port", str(port))
        process = processes.start("python", str(PROGRAM), *options, env=site.env)
        process.wait_for_output("gateway listening on")
        ready = f"http://127.0.0.1:{port}/-/health/ready"
        wait_until(lambda: httpx.get(ready).status_code == 200, "a ready gateway", 20)
        return process

    async def send(topic: str, payload: bytes) -> None:
        async with aiomqtt.Client(HOST, PORT) as client:
            await client.publish(f"{name}/{topic}", payload, qos=1)

    async def exchange() -> bytes:
        async with aiomqtt.Client(HOST, PORT) as client:
            await client.subscribe(f"{name}/out", qos=1)
            await asyncio.to_thread(site.layer.send, "mqtt.publish", {"topic": f"{name}/out", "payload": b"on\x00"})
            async with asyncio.timeout(15):
                message = await anext(aiter(client.messages))
            assert isinstance(message.payload, bytes)
            return message.payload

    first = start()
    asyncio.run(send("in/a", b"21.5"))
    assert site.receive("mqtt.receive") == {"topic": f"{name}/in/a", "payload": b"21.5", "retained": False}
    assert asyncio.run(exchange()) == b"on\x00"
    assert first.terminate() == 0

    # The broker keeps what comes while no gateway runs, and the layer what is to leave.
    asyncio.run(send("in/b", b"22"))
    site.layer.send("mqtt.publish", {"topic": f"{name}/in/c", "payload": b"by itself"})
    start()
    topics = {site.receive("mqtt.receive")["topic"] for _ in range(2)}
    assert topics == {f"{name}/in/b", f"{name}/in/c"}
    processes.stop()
    site.close()
