"""A short run in the suite; ``make chaos`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import Chaos, Options

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]

#: One of each sort, and none that takes a minute to get over.  With this seed: a worker frozen and killed, Redis and
#: an interface server killed, one told to stop, Redis frozen; a slow machine gets through fewer of them.
KINDS = (
    "worker kill",
    "interface kill",
    "redis kill",
    "interface sleep",
    "worker cut",
    "redis pause",
    "interface terminate",
    "worker sleep",
)


def test_every_message_is_accounted_for(tmp_path: Path) -> None:
    said: list[str] = []
    options = Options(seconds=18, seed=367, sockets=120, rate=120, kinds=KINDS)
    chaos = Chaos(options, tmp_path, said.append)
    chaos.run()
    assert not chaos.problems, "\n".join([*said, str(chaos.summary()), *chaos.problems[:20]])
    assert chaos.counts["messages"] > 500
    assert chaos.counts["group_frames"] > 500
    assert len(chaos.faults) >= 3
