"""``python -m benchmarks``: channelsq and its peers measured side by side; see README.md here."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import consumers, livetasks, parts, peers, report, resources, tasks
from benchmarks.measuring import Options, Run
from benchmarks.programs import Redis
from benchmarks.stacks import BROKERS, POOLS, WS, raise_limit

PARTS: dict[str, Callable[[Run], None]] = {
    "echo": parts.echo,
    "brokers": consumers.brokers,
    "layers": consumers.layers,
    "waiting": consumers.waiting,
    "database": consumers.database,
    "processes": consumers.processes,
    "observed": consumers.observed,
    "tasks": tasks.tasks,
    "idle": tasks.idle,
    "live": livetasks.live,
    "connect": parts.connect,
    "fanout": parts.fanout,
    "http": parts.http,
    "publish": parts.publish,
    "groups": parts.groups,
    "memory": resources.memory,
    "crowd": resources.crowd,
}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def _pools(text: str) -> tuple[str, ...]:
    return _among(text, "pool", POOLS)


def _brokers(text: str) -> tuple[str, ...]:
    return _among(text, "broker", tuple(BROKERS))


def _among(text: str, kind: str, known: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple(text.split(","))
    if unknown := set(named) - set(known):
        raise argparse.ArgumentTypeError(f"no {kind} {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return named


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures channelsq beside Channels 4, and writes what it found."
    )
    add = made.add_argument
    add("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}, soak; all (without soak) [all]")
    add("--rounds", type=int, default=5, help="turns of each contestant [%(default)s]")
    add("--seconds", type=float, default=1.5, help="how long an echo is counted; others take a share [%(default)s]")
    add("--pools", type=_pools, default=POOLS, help="pools of channelsq's workers [threads,solo,prefork]")
    add(
        "--celery-broker",
        type=_brokers,
        default=("streams",),
        metavar="BROKERS",
        help="Celery's brokers, of streams, redis, amqp; every part uses the first, the part brokers each [streams]",
    )
    add("--sockets", type=_numbers, default=(1, 100, 1000), help="sockets that echo [1,100,1000]")
    add("--members", type=_numbers, default=(100, 1000, 5000), help="sockets that a broadcast goes to [100,1000,5000]")
    add("--crowd", type=int, default=10_000, help="idle sockets beside 200 that talk [%(default)s]")
    add("--ws", choices=("best", *WS), default="best", help="uvicorn's WebSocket implementation [%(default)s]")
    add(
        "--soak",
        type=float,
        default=0,
        metavar="MINUTES",
        help="echo for this long at the end, and observe the memory; alone if no part is named",
    )
    add(
        "--redis-share",
        type=float,
        metavar="CORE",
        help="the share of a core that each Redis gets, such as 0.1; needs root [no limit]",
    )
    add("--output", type=Path, default=report.HERE / "results", help="folder for the results [benchmarks/results]")
    add("--publish", action="store_true", help="also put the table against the targets into benchmarks/README.md")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 1 if a contestant failed."""
    command = parser()
    chosen = command.parse_args(argv)
    wanted = set(chosen.parts) or ({"soak"} if chosen.soak else {"all"})
    if unknown := wanted - {*PARTS, "soak", "all"}:
        command.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}, soak, all")
    if chosen.publish and not chosen.output.resolve().is_relative_to(report.HERE):
        command.error(f"--publish links to the results, so they must go below {report.HERE}, not to {chosen.output}")
    if "soak" in wanted and not chosen.soak:
        chosen.soak = 10
    if raise_limit() < 12000:
        print("Too few files may be open for thousands of sockets: see ulimit -Hn", flush=True)
    peers.make()
    options = Options(
        rounds=chosen.rounds,
        seconds=chosen.seconds,
        pools=chosen.pools,
        brokers=chosen.celery_broker,
        sockets=chosen.sockets,
        members=chosen.members,
        crowd=chosen.crowd,
        soak=chosen.soak,
        redis_share=chosen.redis_share,
    )
    Redis.share = options.redis_share
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="channelsq-benchmarks-") as logs:
        run = Run(options, Path(logs))
        run.results.machine = report.machine()
        run.ws = "" if chosen.ws == "best" else chosen.ws
        try:
            if not run.ws:
                print("uvicorn's WebSocket implementations", flush=True)
                parts.choose_ws(run)
            run.start()
            for name, part in PARTS.items():
                if wanted & {name, "all"}:
                    print(report.TITLES[name], flush=True)
                    part(run)
            if options.soak:
                print(report.TITLES["soak"], flush=True)
                resources.soak(run)
        finally:
            run.stop()
    run.results.notes.append(f"The run took {time.monotonic() - begin:.0f} s.")
    page = report.write(run.results, asdict(options), chosen.output)
    if chosen.publish:
        report.publish(run.results, page)
    print(f"\n{report.targets(run.results)}\n\n{page}")
    return 1 if run.results.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
