"""The sends of a separate process: channelsq's side of :mod:`benchmarks.sender`."""

from __future__ import annotations

import json
import time
from typing import Any

import redis

from benchmarks.sites.common import REDIS, SINK
from channelsq import Channel, Group


class Sending:
    """The sends of a plain script, or of a plain task."""

    def group(self, group: str, text: str) -> None:
        """Send to a group."""
        Group(group).send({"text": text})

    def make_groups(self, names: list[str]) -> None:
        """Create groups of one member, which has no reader."""
        for name in names:
            Group(name).add(SINK)

    def rate(self, kind: str, seconds: float, target: str) -> dict[str, Any]:
        """Send for ``seconds``: ``kind`` is ``channel``, ``group``, or ``task-`` with one of them."""
        if kind.startswith("task-"):
            return self._in_a_task(kind.removeprefix("task-"), seconds, target)
        to: Channel | Group = Channel(target) if kind == "channel" else Group(target)
        content = {"text": "x" * 64}
        sent, begin = 0, time.perf_counter()
        end = begin + seconds
        while time.perf_counter() < end:
            to.send(content)
            sent += 1
        return {"sent": sent, "seconds": time.perf_counter() - begin}

    def _in_a_task(self, kind: str, seconds: float, target: str) -> dict[str, Any]:
        from benchmarks.sites.ours.tasks import ANSWER, publish

        with redis.Redis.from_url(REDIS, socket_timeout=None) as client:
            client.delete(ANSWER)
            publish.delay(kind, seconds, target)
            answer: Any = client.blpop([ANSWER], timeout=30 + int(seconds))
        if answer is None:
            raise RuntimeError(f"the task that sends to {target!r} gave no answer within {30 + int(seconds)} s")
        counted: dict[str, Any] = json.loads(answer[1])
        return counted
