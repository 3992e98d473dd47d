"""A layer on a RabbitMQ that is reached by TLS."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import KombuChannelLayer
from tests.support.certificates import self_signed
from tests.support.ports import free_port, is_open
from tests.support.rabbit import RabbitServer
from tests.support.readers import Reader
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq, pytest.mark.timeout(180)]


class Encrypted:
    """A RabbitMQ with a certificate that nobody has signed."""

    def __init__(self, directory: Path, groups_url: str) -> None:
        self.certificate, key = self_signed(directory)
        port = free_port()
        self.url = f"amqps://guest:guest@localhost:{port}//"
        self.groups_url = groups_url
        self.server = RabbitServer(directory)
        (directory / "rabbitmq.conf").write_text(
            f"listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.verify = verify_none\n"
            f"ssl_options.cacertfile = {self.certificate}\nssl_options.certfile = {self.certificate}\n"
            f"ssl_options.keyfile = {key}\nssl_options.fail_if_no_peer_cert = false\n"
        )
        self.server.start()
        wait_until(lambda: is_open(port), "the port for TLS", 30)

    @contextlib.contextmanager
    def layer(self) -> Iterator[KombuChannelLayer]:
        """A layer on it."""
        layer = KombuChannelLayer(url=self.url, groups_url=self.groups_url, prefix=secrets.token_hex(4))
        yield layer
        layer.close()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Encrypted]:
    made = Encrypted(tmp_path_factory.mktemp("tls"), redis_url.rsplit("/", 1)[0] + "/13")
    yield made
    made.server.stop()


def test_messages_large_and_small_arrive_in_their_order(encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL may hold decrypted bytes of which the system's poll knows nothing."""
    ran: list[tuple[int, int]] = []
    sizes = [1, 200_000, 16_384, 5, 70_000, 16_383, 1_000_000, 2]
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.certificate))
    with encrypted.layer() as layer:
        reader = Reader(layer, lambda message: ran.append((message["number"], len(message["bytes"]))), 1)
        for number in range(200):
            layer.send("work", {"number": number, "bytes": b"x" * sizes[number % len(sizes)]})
        expected = [(number, sizes[number % len(sizes)]) for number in range(200)]
        wait_until(lambda: ran == expected, "all messages in their order", 60)
        received: list[int] = []
        prefix = layer.new_channel("websocket.send!").partition("!")[0] + "!"
        listener = layer.listen(prefix, lambda channels, message, group: received.append(len(message["text"])))
        for size in sizes:
            layer.send(prefix + "client", {"text": "y" * size})
        wait_until(lambda: received == sizes, "all replies", 30)
        listener.stop()
        reader.close()


def test_a_certificate_that_nobody_has_signed_is_refused(encrypted: Encrypted) -> None:
    with encrypted.layer() as layer, pytest.raises(BrokerUnavailable, match="certificate verify failed"):
        layer.send("work", {})
