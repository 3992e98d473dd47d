"""The reply queues of a process that other processes declare dead."""

from __future__ import annotations

import pytest

from tests.contract.conftest import MakeLayer
from tests.contract.test_foreign_content import received


@pytest.mark.parametrize(
    "make_layer",
    [
        *(
            pytest.param(name, marks=pytest.mark.redis)
            for name in ("redis", "redis-streams", "sentinel", "redis-shards")
        ),
        pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.redis]),
    ],
    indirect=True,
)
def test_a_process_that_comes_back_reads_what_was_sent_to_it(make_layer: MakeLayer) -> None:
    """The messages report which of its clients' messages are done: without them each socket waits in vain."""
    asleep, other = make_layer(), make_layer()
    channel = asleep.new_channel("websocket.send!")
    for number in range(3):
        other.send(channel, {"text": str(number)})
    other.end_reply_queues(asleep.process)
    assert [received(asleep, channel)[1] for _ in range(3)] == [{"text": str(number)} for number in range(3)]
