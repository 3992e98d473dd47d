"""A gateway as a user runs it, on Redis Streams, RabbitMQ or one machine's own layer; the test is its worker."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from channelsq.layers import IPCChannelLayer, KombuChannelLayer, RedisChannelLayer
from channelsq.layers.contract.layer_contract import BaseChannelLayer
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.waiting import wait_until

#: Seconds until another process gets the messages of a killed one, where no kernel tells of its end.
LEASE = 2.0


class Servers(NamedTuple):
    """The URLs of a layer's servers; without any it is that between the processes of one machine."""

    redis: str | None = None
    rabbitmq: str | None = None


#: The layers of gateways, for :func:`servers`.
LAYERS = ["redis", "ipc", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]


def servers(request: pytest.FixtureRequest, name: str) -> Servers:
    """Return the servers of one of ``LAYERS``."""
    return Servers(
        None if name == "ipc" else request.getfixturevalue("redis_url"),
        request.getfixturevalue("rabbitmq_url") if name == "rabbitmq" else None,
    )


class GatewaySite:
    """A layer, and gateways on it.

    Args:
        processes: starts them.
        folder: an empty one.
        on: the servers of the layer.
        settings: more of Django's settings.
        config: more of the layer's ``CONFIG``.
    """

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        on: Servers,
        settings: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._processes = processes
        prefix = f"gateway-{secrets.token_hex(4)}"
        given: dict[str, Any] = {"prefix": prefix, **(config or {})}
        self.layer: BaseChannelLayer
        if on.rabbitmq is not None:
            given |= {"url": on.rabbitmq, "groups_url": on.redis}
            self.layer = KombuChannelLayer(**given)
        elif on.redis is not None:
            given |= {"url": on.redis, "transport_options": {"lease": LEASE}}
            self.layer = RedisChannelLayer(**given)
        else:
            given["path"] = str(folder / "ipc")
            self.layer = IPCChannelLayer(**given)
        backend = f"channelsq.layers.{type(self.layer).__name__}"
        layers = {"default": {"BACKEND": backend, "CONFIG": given, "ROUTING": []}}
        self.env = {
            "DJANGO_SETTINGS_MODULE": "tests.gateways_project.settings",
            "TEST_SETTINGS": json.dumps({"CHANNEL_LAYERS": layers, **(settings or {})}),
        }

    def start(self, module: str, *args: str, port: int | None = None) -> tuple[Process, int]:
        """Start a gateway, and return it and the port of its HTTP server."""
        port = port or free_port()
        process = self._processes.start("python", "-m", module, "--port", str(port), *args, env=self.env)
        process.wait_for_output("gateway listening on")
        return process, port

    def manage(self, *args: str) -> str:
        """Run a management command of the project, and return its output."""
        process = self._processes.start("python", "-m", "django", *args, env=self.env)
        assert process.wait() == 0, process.output
        return process.output

    def receive(self, channel: str, timeout: float = 15.0) -> dict[str, Any]:
        """Return the next message of a channel."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            _, message = self.layer.receive([channel])
            if message is not None:
                found.append(message)
            return bool(found)

        wait_until(look, f"a message on {channel}", timeout)
        return found[0]

    def is_empty(self, channel: str) -> bool:
        """Return whether nothing is on a channel."""
        return self.layer.receive([channel]) == (None, None)

    def close(self) -> None:
        """Delete what is on the layer."""
        self.layer.flush()
        self.layer.close()
