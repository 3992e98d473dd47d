"""The rate of what is sent out."""

from __future__ import annotations

import pytest

from channelsq.interface.gateway.outbound import Rate


def test_messages_leave_one_after_another() -> None:
    rate = Rate(2.0)
    assert [rate.pause(10.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert rate.pause(11.0) == pytest.approx(0.5)
    assert rate.pause(20.0) == 0.0


def test_without_a_limit_nothing_waits() -> None:
    rate = Rate(0.0)
    assert [rate.pause(10.0) for _ in range(3)] == [0.0] * 3
