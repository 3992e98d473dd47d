"""A site whose messages are signed or encrypted."""

from __future__ import annotations

import json

import httpx
from websockets.sync.client import connect

from tests.support.project import Project


def assert_protected_messages_pass(project: Project) -> None:
    """Check that retries, and bodies and responses in parts, are accepted by every process."""
    with connect(f"{project.ws_url}/greet/bob/", open_timeout=30, proxy=None) as socket:
        for failures in (0, 2):
            socket.send(json.dumps({"failures": failures}))
            assert json.loads(socket.recv(timeout=30))["retries"] == failures
    with httpx.Client(base_url=project.url, timeout=60, trust_env=False) as client:
        body = b"x" * 2_000_000
        assert client.post("/own/", content=body).json()["body"] == len(body)
        assert len(client.get(f"/own/{3 * 1024 * 1024}").content) == 3 * 1024 * 1024
    for output in (project.worker_output, project.interface.output):
        assert "was refused" not in output
