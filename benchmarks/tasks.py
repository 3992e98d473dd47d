"""Ordinary Celery tasks beside consumers, and an idle worker, against a stock Celery worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from benchmarks import proc
from benchmarks.frames import WrongAnswer
from benchmarks.measuring import Run
from benchmarks.programs import Talk
from benchmarks.results import REFERENCE
from benchmarks.stacks import Contestant, Ours, Setup, Stock, Working

#: The pools of both kinds of worker, with the same number of threads or processes.
POOLS = {"threads": ("-P", "threads", "-c", "8"), "prefork": ("-P", "prefork", "-c", "2")}

STOCK = "stock Celery"

#: Tasks that are under way at any time.
WIDTH = 16


#: The work of an idle worker.
IDLE = "an idle worker"


@dataclass(frozen=True)
class Beside:
    """The load beside the tasks.

    Attributes:
        work: its name in the tables.
        path: the address of the consumer.
        sockets: the number of sockets.
        interval: seconds between two messages of a socket.
    """

    work: str
    path: str = ""
    sockets: int = 0
    interval: float = 0


ALONE = Beside("tasks alone")
ECHOES = Beside("tasks during 5,000 echoes/s", "/echo/", 100, 0.02)
COMPUTING = Beside("tasks beside a consumer that computes", "/compute/10000/", 10, 0.2)


def named(pool: str, who: str = REFERENCE) -> str:
    """Return the name of the contestant with that pool, of channelsq or ``STOCK``."""
    return f"{who}, -P {pool}"


def tasks(run: Run) -> None:
    """Measure tasks on channelsq's worker, and on a stock one beside which channelsq's worker has the same load."""
    with ExitStack() as guests:
        load = run.join(guests, partial(Ours, run.logs, Setup("load", run.broker)), "/echo/")
        if load is None:
            return
        senders: dict[str, Talk] = {}
        contestants: list[Contestant] = []
        for name, worker in _workers(run, guests, "tasks"):
            senders[name] = worker.tasks()
            guests.callback(senders[name].stop)
            contestants.append(Contestant(name, worker if isinstance(worker, Ours) else load, ""))
        for beside in (ALONE, ECHOES, COMPUTING):
            run.turns("tasks", beside.work, contestants, partial(_tasks, run, senders, beside))


def _workers(run: Run, guests: ExitStack, kind: str) -> Iterator[tuple[str, Working]]:
    """Start channelsq's worker and a stock one with each pool; yield each once it has run a task."""
    for pool, options in POOLS.items():
        if pool not in run.options.pools:
            continue
        setup = Setup(f"{kind}-{pool}", run.broker, worker=options)
        for who, worker in (
            (REFERENCE, run.join(guests, partial(Ours, run.logs, setup), "/echo/")),
            (STOCK, run.join(guests, partial(Stock, run.logs, setup))),
        ):
            if worker and _runs_tasks(run, worker):
                yield named(pool, who), worker


def _runs_tasks(run: Run, worker: Working) -> bool:
    """Send a task; return whether the worker runs it."""
    sender = worker.tasks()
    try:
        sender.ask("once")
    except WrongAnswer as error:
        run.fail(f"{worker.name} runs no tasks: {error}")
        print(worker.tails(), flush=True)
        return False
    finally:
        sender.stop()
    return True


def _tasks(run: Run, senders: dict[str, Talk], beside: Beside, contestant: Contestant) -> dict[str, float]:
    """Count tasks while the sockets of the contestant's interface server have that load."""
    seconds = run.options.seconds
    if beside.sockets:
        run.open(Contestant(contestant.name, contestant.stack, beside.path), beside.sockets)
        # It begins before the count of the tasks, and ends after it.
        run.client.tell("pace", interval=beside.interval, warm=0.3, seconds=seconds + 0.7, pids=[])
    told = senders[contestant.name].ask("load", width=WIDTH, warm=0.6, seconds=seconds)
    values = {"tasks/s": told["rate"], "p50 ms": told["p50"], "p99 ms": told["p99"]}
    if beside.sockets:
        load = run.client.answer()
        run.client.ask("close")
        values |= {"messages/s beside": load["rate"], "p99 ms of the messages beside": load["p99"]}
    return values


def idle(run: Run) -> None:
    """Measure the processor time and memory of a worker without work."""
    with ExitStack() as guests:
        contestants = [Contestant(name, worker, "") for name, worker in _workers(run, guests, "idle")]
        run.turns("idle", IDLE, contestants, partial(_idle, max(3.0, run.options.seconds * 4)))


def _idle(seconds: float, contestant: Contestant) -> dict[str, float]:
    """Observe the contestant's worker for a number of seconds."""
    assert isinstance(contestant.stack, Working)
    pids = contestant.stack.worker.pids()
    before = proc.cpu_seconds(pids)
    time.sleep(seconds)
    return {
        "% of a core": (proc.cpu_seconds(pids) - before) / seconds * 100,
        "MB": proc.rss_kb(pids) / 1024,
    }
