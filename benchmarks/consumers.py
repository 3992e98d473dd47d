"""What is measured of 100 sockets in other circumstances than those of the part ``echo``."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from benchmarks.measuring import Run
from benchmarks.parts import PAGES, count_echoes, count_pages
from benchmarks.results import REFERENCE
from benchmarks.stacks import BROKERS, Contestant, Ours, pooled

SOCKETS = "100 sockets"


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
