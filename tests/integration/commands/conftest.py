"""A Redis server as hosting providers have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.ports import free_port
from tests.support.servers import running_redis


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[str]:
    """The rediss:// URL of a Redis like Heroku's: a password, and a certificate that nobody has signed."""
    certificate, key = self_signed(tmp_path, "redis.invalid")
    port = free_port()
    options = (
        "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no",
        "--requirepass", "p4ss",
    )  # fmt: skip
    with running_redis(tmp_path / "redis", [str(option) for option in options]):
        yield f"rediss://:p4ss@127.0.0.1:{port}"
