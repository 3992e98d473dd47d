"""Reply channels: their number and their time are bounded."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from channelsq.interface.basis.counters import Counters
from channelsq.interface.gateway import mailbox as module
from channelsq.interface.gateway.mailbox import Mailbox
from channelsq.interface.link.replies import Delivery, Replies


class Answers:
    """A mailbox, and the answers that it has handled."""

    def __init__(self, limit: int = 10, lifetime: float = 100.0) -> None:
        self.stats = Counters()
        self.unknown: list[str] = []
        loop = asyncio.get_running_loop()
        self.replies = Replies(loop, self.stats, lambda channel, _: self.unknown.append(channel))
        numbers = itertools.count()
        self.mailbox = Mailbox(self.replies, lambda: f"gateway.send.p!{next(numbers)}", self.stats, limit, lifetime)
        self.handled: list[str] = []

    async def answer(self, content: dict[str, Any]) -> None:
        """Handle an answer."""
        if content["text"] == "fail":
            raise RuntimeError("the client is gone")
        self.handled.append(content["text"])

    async def send(self, channel: str, text: str) -> None:
        """Send an answer, as the application does."""
        self.replies.deliver([channel], {"text": text})
        while self.replies._waiting or not self.mailbox.is_idle:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        while not self.mailbox.is_idle:
            await asyncio.sleep(0)


def test_the_oldest_end_first() -> None:
    async def run() -> None:
        answers = Answers(limit=2)
        first, second, third = (answers.mailbox.open(answers.answer) for _ in range(3))
        assert len(answers.mailbox) == 2
        for channel, text in ((first, "1"), (second, "2"), (third, "3"), (third, "fail"), (third, "4")):
            await answers.send(channel, text)
        assert answers.handled == ["2", "3", "4"]
        assert answers.unknown == [first]
        assert answers.stats["gateway.reply_channels_dropped"] == 1
        assert answers.stats["gateway.answers_failed"] == 1

    asyncio.run(run())


def test_they_end_in_time() -> None:
    async def run() -> None:
        answers = Answers()
        channel = answers.mailbox.open(answers.answer)
        now = asyncio.get_running_loop().time()
        answers.mailbox.on_tick(now + 99)
        assert len(answers.mailbox) == 1
        answers.mailbox.on_tick(now + 101)
        assert len(answers.mailbox) == 0
        answers.mailbox.drop(channel)
        await answers.send(channel, "late")
        assert answers.unknown == [channel]

    asyncio.run(run())


def test_answers_that_are_handled_at_once_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_ANSWERS", 1)

    async def run() -> None:
        answers = Answers()
        for text in "ab":
            answers.mailbox.take("gateway.send.p!0", answers.answer, Delivery([], {"text": text}, None).message)
        while not answers.mailbox.is_idle:
            await asyncio.sleep(0)
        assert answers.handled == ["a"]
        assert answers.stats["gateway.answers_dropped"] == 1

    asyncio.run(run())
