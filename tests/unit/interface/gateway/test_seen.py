"""Messages that were published before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channelsq.interface.gateway import TryLater
from channelsq.interface.gateway.seen import Seen
from channelsq.layers import InMemoryChannelLayer


class Forgetful(InMemoryChannelLayer):
    """A layer without marks."""

    @property
    def _begun(self) -> Any:
        return None


def test_repeated_messages_are_published_once_also_at_the_same_time() -> None:
    async def run() -> None:
        seen, published = Seen(InMemoryChannelLayer(), "sms"), 0
        may_end = asyncio.Event()

        async def publish() -> None:
            nonlocal published
            await may_end.wait()
            published += 1

        tasks = [asyncio.ensure_future(seen.once("a", publish)) for _ in range(5)]
        await asyncio.sleep(0)
        may_end.set()
        assert sorted(await asyncio.gather(*tasks)) == [False] * 4 + [True]
        assert published == 1

    asyncio.run(run())


def test_a_failed_publication_may_be_repeated() -> None:
    async def run() -> None:
        seen = Seen(InMemoryChannelLayer(), "sms")

        async def fail() -> None:
            raise TryLater("full")

        async def succeed() -> None:
            """Do nothing."""

        with pytest.raises(TryLater):
            await seen.once("a", fail)
        assert await seen.once("a", succeed)
        assert not await seen.once("a", succeed)

    asyncio.run(run())


def test_the_record_of_a_process_is_bounded() -> None:
    async def run() -> None:
        seen = Seen(Forgetful(), "sms", most=2)

        async def succeed() -> None:
            """Do nothing."""

        for key in "abc":
            assert await seen.once(key, succeed)
        assert len(seen) == 2
        assert not await seen.once("c", succeed)
        assert await seen.once("a", succeed)

    asyncio.run(run())
