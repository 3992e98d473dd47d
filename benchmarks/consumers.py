"""Echoes of 100 sockets with other brokers, consumers and options of the worker than in the part ``echo``."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from benchmarks.measuring import Run
from benchmarks.parts import PAGES, count_echoes, count_pages
from benchmarks.results import REFERENCE
from benchmarks.services import Unavailable, postgres, worker_option
from benchmarks.stacks import BROKERS, LAYERS, THREADS, Contestant, Ours, Peer, Setup

#: The work of most of these parts.
SOCKETS = "100 sockets"

#: The work of one socket alone.
SOCKET = "1 socket"

#: The work of consumers that ask the database.
QUERY = f"{SOCKETS}, a consumer with one SELECT"

#: The option of the worker for consumers in processes of their own, and the contestants with it.
PROCESSES = "--channel-processes"
ONE_PROCESS, TWO_PROCESSES = (f"{REFERENCE}, prefork for tasks, {PROCESSES} {count}" for count in (1, 2))

#: The contestants with a time limit, and with a receiver of their events.
TIME_LIMIT, EVENTS = f"{REFERENCE}, task_time_limit 300", f"{REFERENCE}, -E and celery events"

#: The contestants that Flower watches, and that report errors to Sentry.
FLOWER, SENTRY = f"{REFERENCE}, Flower attached", f"{REFERENCE}, Sentry's Celery integration"

#: How long consumers block, in microseconds.
WAITS = (500, 1000, 5000)


def brokers(run: Run) -> None:
    """Measure echoes and a Django view with each of Celery's brokers; the channels are on Redis streams."""
    with ExitStack() as guests:
        stacks = {
            on_broker(broker): run.join(guests, partial(Ours, run.logs, Setup(f"on-{broker}", broker)), "/echo/")
            for broker in run.options.brokers
        }
        ours = [(name, stack) for name, stack in stacks.items() if stack]
        echoes = [Contestant(name, stack, "/echo/") for name, stack in ours]
        pages = [Contestant(name, stack, "/hello/") for name, stack in ours]
        run.turns("brokers", SOCKETS, [*echoes, *run.peers("/echo/{}/")], partial(count_echoes, run))
        run.turns("brokers", PAGES, [*pages, *run.peer_pages()], partial(count_pages, run))


def on_broker(broker: str) -> str:
    """Return the name of the contestant whose Celery is on ``broker``, a key of ``BROKERS``."""
    return f"{REFERENCE}, Celery on {BROKERS[broker]}"


def layers(run: Run) -> None:
    """Measure echoes with each channel layer."""
    with ExitStack() as guests:
        contestants = []
        for layer in LAYERS:
            setup = Setup(f"layer-{layer}", run.broker, layer)
            if stack := run.join(guests, partial(Ours, run.logs, setup), "/echo/"):
                contestants.append(Contestant(on_layer(layer), stack, "/echo/"))
        run.turns("layers", SOCKETS, [*contestants, *run.peers("/echo/{}/")], partial(count_echoes, run))
        ipc = [each for each in contestants if each.name == on_layer("ipc")]
        run.turns("layers", SOCKET, [*ipc, *run.peers("/echo/{}/", "sync")], partial(count_echoes, run, count=1))
        pages = [Contestant(each.name, each.stack, "/hello/") for each in ipc]
        run.turns("layers", PAGES, [*pages, *run.peer_pages()], partial(count_pages, run))


def on_layer(layer: str) -> str:
    """Return the name of the contestant whose channel layer is ``layer``, a key of ``LAYERS``."""
    return f"{REFERENCE}, channels on {LAYERS[layer]}"


def waiting(run: Run) -> None:
    """Measure echoes of consumers that block first, as a call of another service does."""
    for us in WAITS:
        contestants = [*run.shipped(f"/wait/{us}/"), *run.peers(f"/wait/{us}/{{}}/", "sync")]
        run.turns("waiting", blocked(us), contestants, partial(count_echoes, run))


def blocked(us: int) -> str:
    """Return the name of the work of consumers that block for ``us`` microseconds."""
    return f"{SOCKETS}, a consumer that blocks for {us / 1000:g} ms"


def database(run: Run) -> None:
    """Measure echoes of consumers with one query of a local PostgreSQL."""
    try:
        env = {"BENCH_DATABASE": postgres()}
    except Unavailable as error:
        run.lack(error)
        return
    setup = Setup("database", run.broker, env=env)
    with ExitStack() as guests:
        ours = run.join(guests, lambda: Ours(run.logs, setup), "/query/")
        theirs = run.join(guests, lambda: Peer(run.logs, run.ws, env), "/query/sync/")
        contestants = [Contestant(REFERENCE, ours, "/query/")] if ours else []
        contestants += run.peers("/query/{}/", stack=theirs) if theirs else []
        run.turns("database", QUERY, contestants, partial(count_echoes, run))


def processes(run: Run) -> None:
    """Measure echoes with a prefork pool for tasks and consumers in processes of their own."""
    try:
        worker_option(PROCESSES)
    except Unavailable as error:
        run.lack(error)
        return
    _against_shipped(
        run,
        "processes",
        {
            name: Setup(f"processes-{count}", run.broker, worker=("-P", "prefork", PROCESSES, str(count)))
            for count, name in ((1, ONE_PROCESS), (2, TWO_PROCESSES))
        },
    )


def observed(run: Run) -> None:
    """Measure echoes with a time limit for tasks, and with tools that watch workers."""
    _against_shipped(
        run,
        "observed",
        {
            TIME_LIMIT: Setup("time-limit", run.broker, env={"BENCH_TIME_LIMIT": "300"}),
            EVENTS: Setup("events", run.broker, worker=(*THREADS, "-E"), events=True),
            FLOWER: Setup("flower", run.broker, flower=True),
            SENTRY: Setup("sentry", run.broker, env={"BENCH_SENTRY": "1"}),
        },
    )


def _against_shipped(run: Run, part: str, setups: dict[str, Setup]) -> None:
    """Echo with these setups, by name, and with the worker of the other parts."""
    with ExitStack() as guests:
        contestants = run.shipped("/echo/")
        for name, setup in setups.items():
            if stack := run.join(guests, partial(Ours, run.logs, setup), "/echo/"):
                contestants.append(Contestant(name, stack, "/echo/"))
        run.turns(part, SOCKETS, contestants, partial(count_echoes, run))
