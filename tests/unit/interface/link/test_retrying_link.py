"""Publications that wait for room, where a link tries again."""

from __future__ import annotations

import asyncio

import pytest

from channelsq.exceptions import ChannelFull
from channelsq.interface.basis.counters import Counters
from channelsq.interface.link.link_contract import Publication
from channelsq.interface.link.memory_link import DirectLink
from channelsq.interface.link.replies import Replies
from tests.support.fakes.clients import FakePublisher
from tests.support.layers import wrapped


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_is_cancelled_while_it_waits_is_not_sent(cancelled: bool) -> None:
    async def run() -> list[object]:
        layer, stats = wrapped(capacity=1), Counters()
        link, loop = DirectLink(layer, stats), asyncio.get_running_loop()
        await link.start([], Replies(loop, stats, lambda channel, delivery: None))
        layer.send("jobs", {"number": 1})
        first, second = FakePublisher(), FakePublisher()
        waits = Publication(layer.prepare("jobs", {"number": 2}), first, 0, loop.time() + 10, waits_for_broker=False)
        link.submit(waits)
        link.submit(Publication(layer.prepare("jobs", {"number": 3}), second))
        assert isinstance(await second.outcome, ChannelFull)
        waits.cancelled = cancelled
        assert layer.receive(["jobs"])[1] == {"number": 1}
        if not cancelled:
            assert await first.outcome is None
        else:
            link._try_again(waits, 0.05)
        await link.stop()
        return [layer.receive(["jobs"])[1]]

    assert asyncio.run(run()) == [None if cancelled else {"number": 2}]
