"""A process with more threads than connections to Redis."""

from __future__ import annotations

import threading

import pytest
import redis

from channelsq.layers import RedisChannelLayer
from channelsq.redis_io.blocking import take_connection
from channelsq.redis_io.pool_params import url_params
from channelsq.redis_io.waiting_pool import WaitingPool
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


def test_a_pool_gives_up_after_a_while(redis_url: str) -> None:
    pool = WaitingPool(most=1, patience=0.05, **url_params(redis_url))
    first = take_connection(pool)
    with pytest.raises(redis.ConnectionError, match=r"none of 1 connections was free for 0\.05 s"):
        take_connection(pool)
    pool.release(first)
    again = take_connection(pool)
    assert again is first
    pool.reset()  # as in a child process, which has no connection in use
    pool.release(take_connection(pool))
    pool.disconnect()
    again.disconnect()
    first.disconnect()


def test_a_connection_that_fails_frees_its_place(redis_url: str) -> None:
    pool = WaitingPool(most=1, patience=0.05, **{**url_params(redis_url), "port": 1})
    for _ in range(3):
        with pytest.raises(redis.ConnectionError, match="refused"):
            take_connection(pool)
