"""The faults of processes and their network, in a sequence that a seed determines."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.chaos import LEASE, LIFETIME
from tests.chaos.site import Site, freeze
from tests.support.servers import RedisServer

#: Shortest and longest time of each fault, in seconds: of a process that is stopped, of a network that is broken; of
#: one that is killed, until another is started.
FAULTS: dict[str, tuple[float, float]] = {
    "interface kill": (0.2, 3.0),
    "interface terminate": (0.2, 1.0),
    "interface pause": (0.5, LIFETIME * 0.5),
    "interface sleep": (LIFETIME + 1.5, LIFETIME + 4.0),
    "interface cut": (0.3, LIFETIME + 3.0),
    "interface freeze": (0.3, LIFETIME + 3.0),
    "interface lag": (1.0, 4.0),
    "interface forget": (1.0, 3.0),
    "worker kill": (0.2, 3.0),
    "worker terminate": (0.2, 1.0),
    "worker pause": (0.3, LEASE * 0.5),
    "worker sleep": (LEASE + 1.0, LEASE + 3.0),
    "worker cut": (0.3, LEASE + 3.0),
    "worker freeze": (0.3, LEASE + 3.0),
    "worker lag": (1.0, 4.0),
    "worker forget": (1.0, 3.0),
    "redis kill": (0.1, LIFETIME + 3.0),
    "redis pause": (0.5, 3.0),
    "redis sleep": (LIFETIME + 1.0, LIFETIME + 3.0),
    "redis empty": (0.1, LIFETIME + 2.0),
    "rabbitmq pause": (0.5, 3.0),
    "rabbitmq sleep": (LIFETIME + 1.0, LIFETIME + 3.0),
    "tasks kill": (0.1, LIFETIME + 3.0),
    "tasks pause": (0.5, 3.0),
    "tasks sleep": (LIFETIME + 1.0, LIFETIME + 8.0),
    "tasks cut": (0.3, LEASE + 6.0),
    "tasks freeze": (0.3, LEASE + 6.0),
    "tasks forget": (1.0, 3.0),
    "layer cut": (0.3, LEASE + 3.0),
    "layer freeze": (0.3, LEASE + 3.0),
    "layer forget": (1.0, 3.0),
    "channels kill": (0.1, 0.1),
    "publisher cut": (0.3, 3.0),
    "publisher freeze": (0.3, 3.0),
    "publisher forget": (1.0, 2.0),
}

#: How often two come at once.
_TOGETHER = 0.3

#: Seconds between two.
_CALM = 1.0, 4.0

#: What loses a confirmation, or a connection: what was done just then is done again.
_REPEATS = {"cut", "freeze", "forget", "lag"}


@dataclass
class Fault:
    """One fault.  Times by the monotonic clock, once it has come."""

    kind: str
    target: str
    seconds: float
    began: float = 0.0
    ended: float = 0.0

    def __str__(self) -> str:
        who = self.kind.partition(" ")[0]
        part = "" if self.target.startswith(who) else f"'s {who}"
        return f"{self.target}{part} {self.kind.partition(' ')[2]} {self.seconds:.1f} s"

    @property
    def verb(self) -> str:
        """The name of the fault."""
        return self.kind.partition(" ")[2]

    @property
    def repeats(self) -> bool:
        """True if a message that a worker had may run again because of the fault."""
        who, _, verb = self.kind.partition(" ")
        # Celery's own broker has nothing to do with messages of channels.
        return who != "tasks" and (
            who in ("redis", "rabbitmq", "channels")
            or (who == "worker" and verb in {"kill", "sleep", "pause", *_REPEATS})
            or verb in _REPEATS
        )


def kinds_on(scheme: str, tasks: str = "", pool: str = "") -> list[str]:
    """The faults that there are on a broker, by its URL's scheme, and by that of Celery's own, if there is one."""
    absent = set() if scheme == "amqp" else {"rabbitmq"}
    if not tasks:
        absent |= {"tasks", "layer", "channels"}
    elif pool not in ("", "prefork"):
        absent.add("channels")
    return [kind for kind in FAULTS if kind.partition(" ")[0] not in absent]


def plan(seed: int, kinds: Sequence[str]) -> Iterator[tuple[list[Fault], float]]:
    """Without end: faults that come together, and the seconds of calm behind them.  Each kind once in a while."""
    chance = random.Random(seed)
    deck: list[str] = []
    for _ in itertools.count():
        together: list[Fault] = []
        for _ in range(2 if chance.random() < _TOGETHER else 1):
            if not deck:
                deck = list(kinds)
                chance.shuffle(deck)
            kind = deck.pop()
            who = kind.partition(" ")[0]
            target = who
            if who in ("interface", "worker"):
                target = f"{who}-{chance.randrange(2)}"
            elif who in ("layer", "channels") or kind in ("tasks cut", "tasks freeze", "tasks forget"):
                target = f"worker-{chance.randrange(2)}"
            fault = Fault(kind, target, chance.uniform(*FAULTS[kind]))
            if all(other.target != fault.target for other in together):
                together.append(fault)
        yield together, chance.uniform(*_CALM)


def happen(site: Site, fault: Fault) -> None:
    """Have a fault come, last, and be put right; returns when all runs again."""
    fault.began = time.monotonic()
    if fault.target == "redis":
        _redis(site, fault)
    elif fault.target == "rabbitmq":
        assert site.rabbit is not None
        site.rabbit.pause()
        time.sleep(fault.seconds)
        site.rabbit.resume()
    elif fault.target == "tasks":
        _tasks(site, fault)
    else:
        place = site.places[fault.target]
        process = place.process
        match fault.verb:
            case "kill" if fault.kind == "channels kill":
                for pid in place.channel_processes():
                    os.kill(pid, signal.SIGKILL)
            case "kill":
                process.kill()
                time.sleep(fault.seconds)
                site.start_process(place)
            case "terminate":
                code = process.terminate(60)
                assert code == 0, f"{place.name} ended with {code}:\n{process.output}"
                time.sleep(fault.seconds)
                site.start_process(place)
            case "pause" | "sleep":
                process.signal_all(signal.SIGSTOP)
                time.sleep(fault.seconds)
                process.signal_all(signal.SIGCONT)
            case verb:
                ways = place.proxies
                if fault.kind.startswith("layer"):
                    ways = place.to_layer
                elif fault.kind.startswith("tasks"):
                    assert place.to_tasks is not None
                    ways = [place.to_tasks]
                for proxy in ways:
                    site.loop.run(proxy.lag(0.2) if verb == "lag" else getattr(proxy, verb)())
                time.sleep(fault.seconds)
                for proxy in ways:
                    site.loop.run(proxy.heal())
    fault.ended = time.monotonic()


def _tasks(site: Site, fault: Fault) -> None:
    server = site.tasks
    assert server is not None
    if fault.verb == "kill":
        if isinstance(server, RedisServer):
            assert server.process is not None
            server.process.kill()
        else:
            server.stop()
        time.sleep(fault.seconds)
        server.start()
    else:
        freeze(server, frozen=True)
        time.sleep(fault.seconds)
        freeze(server, frozen=False)


def _redis(site: Site, fault: Fault) -> None:
    process = site.redis.process
    assert process is not None
    if fault.verb in ("pause", "sleep"):
        process.signal(signal.SIGSTOP)
        time.sleep(fault.seconds)
        process.signal(signal.SIGCONT)
        return
    process.kill()
    time.sleep(fault.seconds)
    if fault.verb == "empty":
        shutil.rmtree(site.redis.directory / "appendonlydir")
    site.redis.start()
