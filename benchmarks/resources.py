"""Memory: of idle sockets, and over a long time."""

from __future__ import annotations

import statistics
import time
from functools import partial

from benchmarks import proc
from benchmarks.measuring import Run
from benchmarks.results import REFERENCE
from benchmarks.stacks import Contestant

#: The number of sockets for the memory of one.
IDLE = 2000

#: Sockets that send in a crowd, and their interval (seconds).
ACTIVE, EVERY = 200, 0.2

#: Seconds between two readings of the memory in a soak, and the life of its sockets.
LOOK, REPLACE = 5.0, 20.0


def memory(run: Run) -> None:
    """Measure how much an idle socket, which has echoed once, adds to the memory of a fresh interface process.

    Growth counts after 100 sockets that were opened and closed before, so that modules loaded with the first ones are
    left out. One round, as memory varies little.
    """

    def measure(contestant: Contestant, deflate: bool) -> dict[str, float]:
        fresh = run.fresh(contestant.stack)
        try:
            run.wait_for(fresh, contestant.path)
            there = Contestant(contestant.name, fresh, contestant.path)
            grown: list[int] = []
            for count in (100, IDLE):
                before = proc.rss_kb(fresh.front.pids())
                run.open(there, count, deflate=deflate)
                run.client.ask("echo_once")
                fresh.settle()
                grown.append(proc.rss_kb(fresh.front.pids()) - before)
                run.client.ask("close")
                fresh.settle()
        finally:
            fresh.stop()
        return {"KB a socket": grown[-1] / IDLE}

    contestants = [each for each in run.echoes() if each.name == REFERENCE or each.path == "/echo/async/"]
    for work, deflate in (("uncompressed", False), ("permessage-deflate negotiated", True)):
        run.turns("memory", work, contestants, partial(measure, deflate=deflate), rounds=1)


def crowd(run: Run) -> None:
    """Measure sockets that send at a modest rate, alone and beside a crowd of idle ones, in one interface process.

    Afterwards every socket of the crowd echoes, so that a lost one is noticed. One round, in fresh processes.
    """

    def measure(contestant: Contestant) -> dict[str, float]:
        fresh = run.fresh(contestant.stack)
        there = Contestant(contestant.name, fresh, contestant.path)
        seconds = max(5.0, run.options.seconds * 10)
        found: dict[str, float] = {}
        try:
            run.wait_for(fresh, contestant.path)
            before = 0
            for name, idle in (("alone", 0), ("in the crowd", run.options.crowd)):
                if idle:
                    before = proc.rss_kb(fresh.front.pids())
                    found["s to open the crowd"] = run.open(there, idle)
                    run.client.ask("set_aside")
                    fresh.settle()
                run.open(there, ACTIVE)
                told = run.client.ask("pace", interval=EVERY, warm=2, seconds=seconds, pids=fresh.pids())
                found |= {f"messages/s, {name}": told["rate"], f"p50 ms, {name}": told["p50"],
                          f"p99 ms, {name}": told["p99"]}  # fmt: skip
                if idle:
                    grown = proc.rss_kb(fresh.front.pids()) - before
                    found |= {"MB of the interface": (before + grown) / 1024, "KB a socket": grown / idle}
                    run.client.ask("bring_back")
                    run.client.ask("echo_once")
                run.client.ask("close")
        finally:
            fresh.stop()
        return found

    work = f"{ACTIVE} sockets, a message every {EVERY:g} s, and {run.options.crowd} idle ones"
    run.turns("crowd", work, [each for each in run.echoes() if "pool" not in each.name], measure, rounds=1)


def soak(run: Run) -> None:
    """Echo for minutes, on sockets that are replaced regularly; print the memory."""
    contestant = run.echoes()[0]
    stack = contestant.stack
    names = [program.log.stem for program in stack.programs]
    samples: list[list[int]] = []
    end = time.monotonic() + run.options.soak * 60
    while time.monotonic() < end:
        run.open(contestant, 200)
        for _ in range(int(REPLACE / LOOK)):
            run.client.ask("echo", warm=0, seconds=min(LOOK, max(0.5, end - time.monotonic())), pids=stack.pids())
            samples.append([proc.rss_kb(program.pids()) for program in stack.programs])
        run.client.ask("close")
    for name, values in zip(names, zip(*samples, strict=True), strict=True):
        third = max(1, len(values) // 3)
        early, late = statistics.median(values[third : 2 * third] or values), statistics.median(values[-third:])
        work = f"{run.options.soak:g} minutes, 200 sockets"
        run.results.add("soak", work, name, "MB in the middle third", early / 1024)
        run.results.add("soak", work, name, "MB in the last third", late / 1024)
        run.results.add("soak", work, name, "growth %", (late - early) / early * 100)
        print(f"  {name}: {early / 1024:.1f} MB, then {late / 1024:.1f} MB", flush=True)
