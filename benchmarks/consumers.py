"""What is measured of 100 sockets in other circumstances than those of the part ``echo``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from benchmarks.measuring import Run
from benchmarks.parts import PAGES, count_echoes, count_pages
from benchmarks.results import REFERENCE
from benchmarks.services import Unavailable, postgres
from benchmarks.stacks import BROKERS, Contestant, Ours, Peer, pooled

SOCKETS = "100 sockets"

#: The work of consumers that ask the database.
QUERY = f"{SOCKETS}, a consumer with one SELECT"

#: How long consumers block, in microseconds.
WAITS = (500, 1000, 5000)


def brokers(run: Run) -> None:
    """An echo and a Django view, with each of Celery's brokers; the channels are on Redis streams."""
    with ExitStack() as guests:
        stacks = {
            on_broker(broker): run.join(guests, partial(Ours, run.logs, pooled("threads", broker)), "/echo/")
            for broker in run.options.brokers
        }
        ours = [(name, stack) for name, stack in stacks.items() if stack]
        echoes = [Contestant(name, stack, "/echo/") for name, stack in ours]
        pages = [Contestant(name, stack, "/hello/") for name, stack in ours]
        run.turns("brokers", SOCKETS, [*echoes, *run.peers("/echo/{}/")], partial(count_echoes, run))
        run.turns("brokers", PAGES, [*pages, *run.peer_pages()], partial(count_pages, run))


def on_broker(broker: str) -> str:
    """The contestant whose Celery is on that broker, a key of ``BROKERS``."""
    return f"{REFERENCE}, Celery on {BROKERS[broker]}"


def waiting(run: Run) -> None:
    """Consumers that block for a time, as one that asks another service does."""
    for us in WAITS:
        contestants = [*run.shipped(f"/wait/{us}/"), *run.peers(f"/wait/{us}/{{}}/", "sync")]
        run.turns("waiting", blocked(us), contestants, partial(count_echoes, run))


def blocked(us: int) -> str:
    """The work of a consumer that blocks for so many microseconds."""
    return f"{SOCKETS}, a consumer that blocks for {us / 1000:g} ms"


def database(run: Run) -> None:
    """Consumers with one query of a local PostgreSQL."""
    try:
        env = {"BENCH_DATABASE": postgres()}
    except Unavailable as error:
        run.lack(error)
        return
    setup = replace(pooled("threads", run.broker), name="database", env=env)
    with ExitStack() as guests:
        ours = run.join(guests, lambda: Ours(run.logs, setup), "/query/")
        theirs = run.join(guests, lambda: Peer(run.logs, run.ws, env), "/query/sync/")
        contestants = [Contestant(REFERENCE, ours, "/query/")] if ours else []
        contestants += run.peers("/query/{}/", stack=theirs) if theirs else []
        run.turns("database", QUERY, contestants, partial(count_echoes, run))
