"""The run: the running stacks, the load client, and the way of one measurement."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.frames import WrongAnswer
from benchmarks.programs import Talk
from benchmarks.results import REFERENCE, Results
from benchmarks.services import Unavailable
from benchmarks.stacks import Contestant, Ours, Peer, Stack, pooled

Joined = TypeVar("Joined", bound=Stack)


@dataclass(frozen=True)
class Options:
    """The options of the command line.

    Attributes:
        rounds: the number of each contestant's turns.
        seconds: the time of one echo; other parts take a share of it.
        pools: the Celery pools of channelsq's workers.
        brokers: Celery's brokers; every part uses the first, and the part ``brokers`` each of them.
        sockets: the numbers of sockets that echo.
        members: the numbers of sockets that get a broadcast.
        crowd: the number of idle sockets besides the active ones.
        soak: minutes.
        redis_share: the share of a core of each Redis; None for no limit.
    """

    rounds: int
    seconds: float
    pools: tuple[str, ...]
    brokers: tuple[str, ...]
    sockets: tuple[int, ...]
    members: tuple[int, ...]
    crowd: int
    soak: float
    redis_share: float | None = None


class Run:
    """One run of the benchmarks.

    Args:
        options: the options of the command line.
        logs: the folder for the programs' output.
    """

    def __init__(self, options: Options, logs: Path) -> None:
        self.options = options
        self.logs = logs
        self.results = Results()
        self.ours: dict[str, Ours] = {}
        self.peer: Peer | None = None
        self.ws = ""
        self.broken: set[tuple[str, str]] = set()
        self._client: Talk | None = None

    @property
    def client(self) -> Talk:
        """The load client; a new one after a failure."""
        if self._client is None:
            self._client = Talk([sys.executable, "-m", "benchmarks.client"], {})
        return self._client

    @property
    def broker(self) -> str:
        """Celery's broker in all parts except ``brokers``."""
        return self.options.brokers[0]

    def start(self) -> None:
        """Start every stack, and wait until each has answered."""
        assert self.ws
        try:
            for pool in self.options.pools:
                self.ours[pool] = Ours(self.logs, pooled(pool, self.broker))
        except Unavailable as error:
            raise SystemExit(f"benchmarks: {error}") from None
        self.peer = Peer(self.logs, self.ws)
        for contestant in self.echoes():
            self.wait_for(contestant.stack, contestant.path)

    def wait_for(self, stack: Stack, path: str) -> None:
        """Wait until a stack's workers answer."""
        try:
            self._first_echo(stack, path)
        except WrongAnswer as error:
            raise SystemExit(f"benchmarks: {stack.name} does not start: {error}\n{stack.tails()}") from None

    def _first_echo(self, stack: Stack, path: str) -> None:
        self.client.ask("open", port=stack.port, path=path, count=1)
        self.client.ask("echo_once")
        self.client.ask("close")
        stack.settle()

    def join(self, guests: ExitStack, make: Callable[[], Joined], path: str = "") -> Joined | None:
        """Start one more stack for a part, until ``guests`` ends.

        Args:
            guests: stops the stack in the end.
            make: starts the stack.
            path: the address of its echo, which must answer; empty for none.

        Returns:
            The stack; None if it cannot run here or does not answer, which is printed and recorded.
        """
        try:
            stack = make()
        except Unavailable as error:
            self.lack(error)
            return None
        except WrongAnswer as error:
            self.fail(str(error))
            return None
        guests.callback(stack.stop)
        try:
            if path:
                self._first_echo(stack, path)
        except WrongAnswer as error:
            self.fail(f"{stack.name} does not answer: {error}")
            print(stack.tails(), flush=True)
            return None
        return stack

    def fresh(self, stack: Stack) -> Stack:
        """Start another stack of the same kind."""
        return Ours(self.logs, stack.setup) if isinstance(stack, Ours) else Peer(self.logs, self.ws)

    def lack(self, error: Unavailable) -> None:
        """Print and record why a row cannot be measured."""
        print(f"  left out: {error}", flush=True)
        self.results.missing[error.need] = str(error)

    def stop(self) -> None:
        """Stop everything."""
        if self._client:
            self._client.stop()
        for stack in [*self.ours.values(), *([self.peer] if self.peer else [])]:
            stack.stop()

    # -- contestants -----------------------------------------------------------------------------

    def _named(self, pool: str) -> str:
        return REFERENCE if pool == "threads" else f"{REFERENCE}, {pool} pool"

    def _ours(self, path: str) -> list[Contestant]:
        return [Contestant(self._named(pool), stack, path, "ours") for pool, stack in self.ours.items()]

    def shipped(self, path: str) -> list[Contestant]:
        """Return the worker of threads, at ``path``; none if its pool was not chosen."""
        return [each for each in self._ours(path) if each.name == REFERENCE]

    def echoes(self) -> list[Contestant]:
        """Return the contestants that echo."""
        return [*self._ours("/echo/"), *self.peers("/echo/{}/")]

    def peers(self, path: str, *kinds: str, stack: Stack | None = None) -> list[Contestant]:
        """Return Channels 4 with its kinds of consumers, ``sync`` and ``async``, inserted into ``path``."""
        stack = stack or self.peer
        assert stack
        return [
            Contestant(f"Channels 4, {kind} consumer", stack, path.format(kind)) for kind in kinds or ("sync", "async")
        ]

    def rooms(self) -> list[Contestant]:
        """Return the contestants that broadcast."""
        assert self.peer
        return [
            *self.shipped("/fan/{group}/"),
            Contestant("Channels 4, core layer", self.peer, "/fan/core/{group}/", "peer:core"),
            Contestant("Channels 4, pubsub layer", self.peer, "/fan/pubsub/{group}/", "peer:pubsub"),
        ]

    def pages(self) -> list[Contestant]:
        """Return the contestants that serve a Django view."""
        return [*self._ours("/hello/"), *self.peer_pages()]

    def peer_pages(self) -> list[Contestant]:
        """Return Django's own ASGI handler."""
        assert self.peer
        return [
            Contestant("Django's ASGI handler, sync view", self.peer, "/hello/"),
            Contestant("Django's ASGI handler, async view", self.peer, "/hello-async/"),
        ]

    # -- taking turns ----------------------------------------------------------------------------

    def turns(
        self,
        part: str,
        work: str,
        contestants: Sequence[Contestant],
        measure: Callable[[Contestant], dict[str, float]],
        rounds: int | None = None,
    ) -> None:
        """Let each contestant do the work once a round, every second round in reverse order.

        Args:
            part: the part's name.
            work: the name of the work.
            contestants: the contestants.
            measure: does the work; returns ``{metric: value}``. If it raises WrongAnswer, that is printed, and this
                contestant no longer does this work.
            rounds: the number of rounds, if not the chosen one.
        """
        for number in range(rounds or self.options.rounds):
            for contestant in contestants if number % 2 == 0 else contestants[::-1]:
                key = (f"{part}, {work}", contestant.name)
                if key in self.broken:
                    continue
                try:
                    contestant.stack.settle()
                    values = measure(contestant)
                except WrongAnswer as error:
                    self.broken.add(key)
                    self.fail(f"{key[0]}, {contestant.name}: {error}")
                    print(contestant.stack.tails(), flush=True)
                    continue
                for metric, value in values.items():
                    self.results.add(part, work, contestant.name, metric, value)
                shown = ", ".join(f"{value:,.4g} {metric}" for metric, value in values.items())
                print(f"  {work}, {contestant.name}: {shown}", flush=True)

    def fail(self, what: str) -> None:
        """Print and record a failure; replace the load client, whose sockets may be in any state."""
        print(f"  FAILED: {what}", flush=True)
        self.results.failures.append(what)
        if self._client:
            self._client.stop()
            self._client = None

    def open(self, contestant: Contestant, count: int, group: str = "", deflate: bool = False) -> float:
        """Open sockets; return the seconds until the last accept."""
        path = contestant.path.format(group=group)
        told = self.client.ask("open", port=contestant.stack.port, path=path, count=count, deflate=deflate)
        return float(told["seconds"])
