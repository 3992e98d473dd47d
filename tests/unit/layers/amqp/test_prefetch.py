"""The prefetch limit of an AMQP channel."""

from __future__ import annotations

from channelsq.layers.amqp import amqp_frames
from channelsq.layers.amqp.prefetch import Prefetch


def test_a_shared_limit_follows_each_change() -> None:
    prefetch = Prefetch(1, 8, is_shared=True)
    assert prefetch.grant() == (amqp_frames.qos(1, 8, is_global=True), False)
    prefetch.room += 3
    assert prefetch.grant() == (amqp_frames.qos(1, 11, is_global=True), False)
    prefetch.room -= 3
    assert prefetch.grant() == (amqp_frames.qos(1, 8, is_global=True), False)


def test_a_limit_of_each_consumer_grows_in_large_steps_and_restarts_those_that_read() -> None:
    prefetch = Prefetch(1, 8, is_shared=False)
    assert prefetch.grant() == (amqp_frames.qos(1, 8, is_global=False), False)
    assert prefetch.grant() == (b"", False)
    prefetch.answered += 1
    prefetch.room += 1
    assert prefetch.grant() == (amqp_frames.qos(1, 18, is_global=False), True)
    prefetch.room += 9
    assert prefetch.grant() == (b"", False)
    assert prefetch.repeat() == (amqp_frames.qos(1, 18, is_global=False), 3)


def test_credit_is_what_is_not_held() -> None:
    prefetch = Prefetch(1, 2, is_shared=True)
    assert prefetch.has_credit(1)
    assert not prefetch.has_credit(2)
    prefetch.room += 1
    assert prefetch.has_credit(2)
    prefetch.begin()
    assert not prefetch.has_credit(2)
