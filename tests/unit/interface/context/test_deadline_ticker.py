"""Every socket has its turn to look for what is overdue, and none of them has to wait for all the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.context import deadline_ticker
from channelsq.interface.context.deadline_ticker import DeadlineTicker, period_of
from tests.support.fakes.clients import RecordingTicker


def go_round(watched: set[RecordingTicker], looks: list[RecordingTicker], turns: int) -> list[int]:
    """Return the numbers of looks in each turn."""

    async def run() -> list[int]:
        sizes: list[int] = []
        done = asyncio.Event()

        def also(now: float) -> None:
            sizes.append(len(looks) - sum(sizes))
            if len(sizes) == turns:
                made.stop()
                done.set()

        made = DeadlineTicker(watched, 0.02, also)
        made.start()
        async with asyncio.timeout(20):
            await done.wait()
        return sizes

    return asyncio.run(run())


def test_few_look_at_a_time_and_all_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline_ticker, "AT_ONCE", 3)
    looks: list[RecordingTicker] = []
    watched = {RecordingTicker(looks) for _ in range(8)}
    assert go_round(watched, looks, 6) == [3, 3, 2, 3, 3, 2]
    assert set(looks[:8]) == set(looks[8:]) == watched


def test_who_has_left_has_no_turn_and_who_came_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline_ticker, "AT_ONCE", 1)
    looks: list[RecordingTicker] = []
    watched = {RecordingTicker(looks) for _ in range(3)}
    for each in watched:
        each.leaves = watched  # all leave, in the turn of whoever comes first
    assert go_round(watched, looks, 4) == [1, 0, 0, 0]
    looks.clear()
    watched |= {RecordingTicker(looks) for _ in range(2)}
    assert go_round(watched, looks, 2) == [1, 1]


@pytest.mark.parametrize(
    ("changes", "period"),
    [({}, 1.0), ({"accept_timeout": 10.0}, 0.5), ({"ping_timeout": 1.0}, 0.25), ({"ping_interval": 0.0}, 1.0)],
)
def test_the_shorter_the_timeouts_the_more_often_it_is_looked(changes: dict[str, float], period: float) -> None:
    assert period_of(replace(InterfaceConfig(), **changes)) == pytest.approx(period)  # type: ignore[arg-type]
