"""The queues of a virtual transport: their size, which capacity needs, and the messages that have expired there."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection
from kombu.transport.pyamqp import Channel as AmqpChannel

from channelsq.layers.kombu_broker import kombu_queue_internals
from tests.support.servers import RedisServer


def publish(connection: Connection, *bodies: int) -> Any:
    channel: Any = connection.default_channel
    channel.queue_declare("jobs")
    for body in bodies:
        connection.Producer().publish(body, routing_key="jobs")
    return channel


def test_an_empty_queue_and_one_that_does_not_exist_have_no_messages() -> None:
    with Connection("memory://") as connection:
        channel = publish(connection, 1, 2)
        assert kombu_queue_internals.size(channel, "jobs") == 2
        channel.queue_purge("jobs")
        assert kombu_queue_internals.size(channel, "jobs") == 0
        assert kombu_queue_internals.size(channel, "elsewhere") == 0


@pytest.mark.redis
def test_a_queue_in_redis_has_its_size(redis_server: RedisServer) -> None:
    with Connection(redis_server.url, transport_options={"global_keyprefix": "sizes-"}) as connection:
        channel = publish(connection, 1, 2, 3)
        assert kombu_queue_internals.size(channel, "jobs") == 3
        channel.queue_purge("jobs")


def test_a_channel_of_amqp_is_asked_in_amqps_way() -> None:
    channel = AmqpChannel.__new__(AmqpChannel)
    assert kombu_queue_internals.size(channel, "jobs") is None


def test_some_messages_are_deleted_and_the_others_keep_their_order() -> None:
    with Connection("memory://") as connection:
        channel = publish(connection, *range(6))
        assert kombu_queue_internals.drop(channel, "jobs", lambda payload: payload["body"] in ("MQ==", "NA==")) == 2
        assert [channel.basic_get("jobs", no_ack=True).payload for _ in range(4)] == [0, 2, 3, 5]
        assert kombu_queue_internals.size(channel, "jobs") == 0
