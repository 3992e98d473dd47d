"""A RabbitMQ that is killed and started again: all that it had confirmed is still there."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from channelsq.exceptions import BrokerUnavailable
from channelsq.layers import KombuChannelLayer
from tests.support.rabbit import RabbitServer
from tests.support.readers import Reader
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.rabbitmq, pytest.mark.timeout(240)]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_what_was_confirmed_survives_the_broker(redis_url: str, tmp_path: Path, queue_type: str) -> None:
    server = RabbitServer(tmp_path)
    server.start()
    layer = KombuChannelLayer(
        url=server.url, groups_url=redis_url.rsplit("/", 1)[0] + "/13", queue_type=queue_type, capacity=100_000
    )
    ran: list[int] = []
    lock = threading.Lock()

    def run(message: dict[str, int]) -> None:
        with lock:
            ran.append(message["number"])

    reader = Reader(layer, run, 4)
    sent: list[int] = []
    unsure: list[int] = []
    enough, ends = threading.Event(), threading.Event()

    def send() -> None:
        number = 0
        begin = time.monotonic()
        while not ends.is_set():
            try:
                layer.send("work", {"number": number})
                sent.append(number)
            except BrokerUnavailable:
                unsure.append(number)  # it may have arrived all the same
            number += 1
            # RabbitMQ 3.10 never elects a leader again if it is killed within a second after it has declared a quorum
            # queue, whoever its client is.
            if len(sent) > 500 and time.monotonic() - begin > 3:
                enough.set()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert enough.wait(60), (len(sent), len(unsure), len(ran))
        server.process.kill()  # type: ignore[union-attr]
        before = len(sent)
        server.start()
        wait_until(lambda: len(sent) > before + 100, "sends to go on", 60)
        ends.set()
        sender.join(60)
        wait_until(lambda: set(sent) <= set(ran), "every confirmed message to run", 60)
        assert set(ran) <= {*sent, *unsure}
        assert unsure  # while it was away
        reader.close()
    finally:
        ends.set()
        sender.join(60)
        server.stop()
