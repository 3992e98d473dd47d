"""Live tasks: how late a browser hears of a task's progress while a thousand of them run at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from contextlib import ExitStack
from functools import partial
from statistics import quantiles
from typing import Any

from websockets.asyncio.client import connect

from benchmarks import proc
from benchmarks.frames import WrongAnswer
from benchmarks.measuring import Run
from benchmarks.results import REFERENCE
from benchmarks.stacks import Contestant, Ours, Setup

#: Sockets, tasks that each of them starts, reports of each task, and seconds between two of these.
SOCKETS, TASKS, REPORTS, PAUSE = 200, 5, 20, 0.5

WORK = f"{SOCKETS * TASKS:,} live tasks at once, {SOCKETS} sockets, {REPORTS} reports each"

#: Seconds for which a socket waits for the next message.
_PATIENCE = 60.0


def live(run: Run) -> None:
    """Let every socket start tasks, and compare what the tasks report with what the sockets hear."""
    with ExitStack() as guests:
        setup = Setup("live", run.broker, worker=("-P", "gevent", "-c", str(SOCKETS * TASKS)))
        stack = run.join(guests, partial(Ours, run.logs, setup), "/echo/")
        if stack is not None:
            contestant = Contestant(f"{REFERENCE}, -P gevent", stack, "/live/")
            run.turns("live", WORK, [contestant], _measure, 1)


def _measure(contestant: Contestant) -> dict[str, float]:
    stack = contestant.stack
    assert isinstance(stack, Ours)
    before = proc.rss_kb(stack.worker.pids()), proc.rss_kb(stack.front.pids())
    begun, cpu = time.monotonic(), proc.cpu_seconds(stack.pids())
    heard = asyncio.run(_follow_all(stack.port))
    seconds = time.monotonic() - begun
    late = sorted(each for latencies, _ in heard for each in latencies)
    ends = sum(count for _, count in heard)
    if ends != SOCKETS * TASKS:
        raise WrongAnswer(f"{ends} of {SOCKETS * TASKS} tasks were told as done")
    cuts = quantiles(late, n=100)
    return {
        "tasks": ends,
        "messages": len(late),
        "p50 ms": cuts[49] * 1000,
        "p99 ms": cuts[98] * 1000,
        "cores": (proc.cpu_seconds(stack.pids()) - cpu) / seconds,
        "worker KB a task": (proc.rss_kb(stack.worker.pids()) - before[0]) / ends,
        "interface KB a socket": (proc.rss_kb(stack.front.pids()) - before[1]) / SOCKETS,
    }


async def _follow_all(port: int) -> list[tuple[list[float], int]]:
    return await asyncio.gather(*[_follow(port) for _ in range(SOCKETS)])


async def _follow(port: int) -> tuple[list[float], int]:
    """Start the tasks of one socket; return the delays of their reports, and the number of tasks that were done.

    Raises:
        WrongAnswer: a task's last report did not come before its end, or nothing came for a while.
    """
    late: list[float] = []
    last: dict[str, Any] = {}
    done = 0
    async with contextlib.AsyncExitStack() as opened:
        socket = await opened.enter_async_context(connect(f"ws://127.0.0.1:{port}/live/", compression=None))
        await socket.send(json.dumps({"tasks": TASKS, "reports": REPORTS, "pause": PAUSE}))
        while done < TASKS:
            try:
                async with asyncio.timeout(_PATIENCE):
                    payload = json.loads(await socket.recv())["payload"]
            except TimeoutError:
                raise WrongAnswer(f"nothing came for {_PATIENCE:g} s, {done} of {TASKS} tasks are done") from None
            if payload["state"] == "success":
                if last.get(payload["id"]) != REPORTS:
                    raise WrongAnswer(f"the last report before a task's end was {last.get(payload['id'])}")
                done += 1
            elif payload["state"] == "started" and payload.get("text"):
                last[payload["id"]] = payload["done"]
                late.append(time.time() - float(payload["text"]))
    return late, done
