"""A process with more threads than connections to Redis."""

from __future__ import annotations

import threading

import pytest

from channelsq.layers import RedisChannelLayer
from tests.support.demo import fresh_redis

pytestmark = pytest.mark.redis


def test_threads_wait_for_a_connection_of_the_groups(redis_url: str) -> None:
    """redis-py's own pool refuses the 101st, which workers with a thousand greenlets reach."""
    layer = RedisChannelLayer(url=fresh_redis(redis_url))
    start, errors = threading.Barrier(300), []

    def join(number: int) -> None:
        start.wait()
        try:
            for turn in range(5):
                layer.group_add("room", f"member.{number}.{turn}")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=join, args=[number]) for number in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(layer.group_channels("room")) == 1500
    layer.close()
