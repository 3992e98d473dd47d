"""A run: processes, sockets, faults; then everything is put right, and accounted for."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import ORDER_TIMEOUT, ROOM, room_of
from tests.chaos.accounts import Accounts
from tests.chaos.clients import Clients
from tests.chaos.faults import Fault, happen, kinds_on, plan
from tests.chaos.site import Site
from tests.support.waiting import wait_until

#: Seconds that everything may take to become quiet after the last fault.
QUIET = 120.0


@dataclass
class Options:
    """The options of a run.

    Args:
        seconds: how long faults come.
        seed: of their sequence.
        sockets: how many.
        rate: messages a second that all sockets send together.
        broadcasts: messages a second to groups.
        scheme: the broker's URL scheme.
        kinds: which faults; all that there are on the broker, if left out.
        tasks: the scheme of Celery's own broker beside that; empty for none.
        pool: the workers'; empty for the usual one.
    """

    seconds: float = 300.0
    seed: int = 1
    sockets: int = 500
    rate: float = 300.0
    broadcasts: float = 15.0
    scheme: str = "redis-streams"
    kinds: Sequence[str] = ()
    tasks: str = ""
    pool: str = ""


class Chaos:
    """One run.

    Args:
        options: what it is like.
        directory: an existing, empty one, for data, logs and journals.
        say: is told what happens.
    """

    def __init__(self, options: Options, directory: Path, say: Callable[[str], None]) -> None:
        self.options = options
        self.rooms = -(-options.sockets // ROOM)
        self.site = Site(directory, options.scheme, self.rooms, options.broadcasts, options.tasks, options.pool)
        self.faults: list[Fault] = []
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._say = say
        self._began = time.monotonic()
        patience = ORDER_TIMEOUT + 15.0
        self.clients = Clients(self.site.ports, options.sockets, options.rate, options.seed, patience)

    def say(self, text: str) -> None:
        """Tell what happens, and when."""
        self._say(f"{time.monotonic() - self._began:7.1f}  {text}")

    def run(self) -> None:
        """Do it all; what was not as promised is in :attr:`problems` afterwards."""
        site, clients = self.site, self.clients
        try:
            site.start()
            before = self.keys()
            site.loop.run(clients.start())
            self._wait(lambda: clients.open == clients.count, f"{clients.count} sockets to be open")
            site.start_process(site.places["publisher"])
            self.say(f"{clients.open} sockets are open")
            self._break()
            site.heal()
            site.end_publisher()
            self.say(f"faults are over; {clients.open} sockets are open, {clients.unanswered} messages unanswered")
            clients.sending = False
            self._wait(lambda: clients.open == clients.count and not clients.unanswered, "every answer")
            site.wait_until_idle()
            self._look_at_groups()
            self._look_at_tasks()
            site.loop.run(clients.finish())
            self.say("all sockets are closed")
            # A server that lost the report about a message waits for it before it publishes the next one.
            self._wait(lambda: not site.untold(), "the workers to be told of the end of every socket")
            site.wait_until_idle()
            self._compare(before)
        except AssertionError as error:
            self.problems.append(str(error))
        finally:
            site.loop.run(clients.finish())
            self._account()
            site.stop()

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        try:
            wait_until(condition, what, QUIET, interval=0.1)
        except AssertionError as error:
            clients = self.clients
            raise AssertionError(
                f"{error} ({clients.open} of {clients.count} open, {clients.unanswered} unanswered: "
                f"{sorted(clients.begun - clients.answered)[:10]})"
            ) from None

    def _break(self) -> None:
        end = time.monotonic() + self.options.seconds
        kinds = self.options.kinds or kinds_on(self.options.scheme, self.options.tasks, self.options.pool)
        with ThreadPoolExecutor() as pool:
            for together, calm in plan(self.options.seed, kinds):
                self.say(" and ".join(map(str, together)))
                self.faults += together
                for done in [pool.submit(happen, self.site, fault) for fault in together]:
                    done.result()
                if time.monotonic() + calm > end:
                    return
                time.sleep(calm)
                self.site.revive()

    # -- at the end

    def _look_at_groups(self) -> None:
        """Members are the sockets that are open, and a message reaches each of them once."""
        layer = self.site.layer()
        try:
            expected: dict[str, set[str]] = {}
            for number, turn in self.clients.current.items():
                expected.setdefault(room_of(number), set()).add(turn.name)

            def members() -> dict[str, set[str]]:
                return {room: set(layer.group_channels(room)) for room in expected}

            try:
                wait_until(lambda: members() == expected, "the groups to be the open sockets", 45, interval=0.2)
            except AssertionError:
                for room, found in members().items():
                    for name in found - expected[room]:
                        self.problems.append(f"{room} has the member {name}, which is no open socket")
                    for name in expected[room] - found:
                        self.problems.append(f"{room} lacks {name}, which is open")
            for room in expected:
                layer.send_group(room, {"text": f"last {room}"})
            turns = list(self.clients.current.values())
            try:
                wait_until(lambda: all(turn.last for turn in turns), "the last message to reach every socket", 20)
            except AssertionError:
                lacking = [f"{turn.number}/{turn.turn}" for turn in turns if not turn.last]
                self.problems.append(f"the last message did not reach {len(lacking)} sockets: {lacking[:10]}")
        finally:
            layer.close()

    def _look_at_tasks(self) -> None:
        """Celery's tasks run as ever."""
        if self.site.tasks is None:
            return
        sent = {f"task {number}" for number in range(50)}
        with self.site.celery() as app:
            for line in sent:
                app.send_task("chaos.write", (line,))
        try:
            wait_until(lambda: sent <= self.site.tasks_done(), "tasks to be done", 60, interval=0.2)
        except AssertionError:
            self.problems.append(f"{len(sent - self.site.tasks_done())} of {len(sent)} tasks were not done")

    def keys(self) -> Counter[str]:
        """Redis's keys; what is named after a process that lives counts as that process's."""
        with self.site.client as client:
            lives = client.smembers("channelsq:interfaces")
            found: Counter[str] = Counter()
            for key in client.scan_iter(count=1000):
                if key == "unacked_mutex":  # of Kombu's own transport, for as long as a sweep lasts
                    continue
                if key.startswith("channelsq:worker:") and client.ttl(key) > 0:  # where a worker is announced
                    continue
                name = key
                for process in lives:
                    name = name.replace(process, "<interface>")
                if name.startswith("stream-lease:"):
                    name = "stream-lease:<consumer>"
                found[name] += 1
            return found

    def _compare(self, before: Counter[str]) -> None:
        """No key is left that was not there before the first socket."""
        # A reply queue is made with the first reply.
        allowed = before + Counter({"stream:websocket.send.<interface>": 2})

        def left() -> Counter[str]:
            return Counter({key: count for key, count in (self.keys() - allowed).items() if not self._ends(key)})

        try:
            wait_until(lambda: not left(), "nothing to be left in Redis", 45, interval=0.5)
        except AssertionError:
            self.problems += [f"left in Redis: {key}" for key in left()]
        self.problems += [f"missing in Redis: {key}" for key in before - self.keys()]
        if self.options.scheme != "redis-streams":
            return
        workers = sum(place.kind == "worker" for place in self.site.places.values())

        def are_gone() -> bool:
            # One that was taken for dead, as it slept, is a consumer again only with the next message that it is given.
            return all(consumers <= workers and not held for consumers, held in self._consumers())

        try:
            wait_until(are_gone, "dead consumers to be gone", 30)
        except AssertionError:
            self.problems.append(f"consumers, and what they hold, of websocket.*: {self._consumers()}")

    def _consumers(self) -> list[tuple[int, int]]:
        """Return the numbers of consumers of each stream of sockets' messages, and of their messages."""
        found = []
        with self.site.client as client:
            for name in ("connect", "receive", "disconnect"):
                groups: Any = client.xinfo_groups(f"stream:websocket.{name}")
                found += [(group["consumers"], group["pending"]) for group in groups]
        return found

    def _ends(self, key: str) -> bool:
        """Return whether a key may stay for a while after its process, and then ends by itself."""
        with self.site.client as client:
            seconds = int(client.ttl(key))
        limit = 3600 if ":buried:" in key else 300 if "websocket.send." in key else 0
        self.counts["keys_that_end"] += 0 < seconds <= limit
        return 0 < seconds <= limit

    def _account(self) -> None:
        site, clients = self.site, self.clients
        accounts = Accounts(list(clients.turns), clients.begun, clients.repeated, self.faults, self.options.scheme)
        accounts.read(
            site.journal,
            [process.output for place in site.places.values() for process in place.processes],
        )
        accounts.check()
        for turn in clients.turns:
            if turn.last > 1:
                accounts.problem(f"socket {turn.number}/{turn.turn} got the last message {turn.last} times")
        self.problems += accounts.problems
        self.counts += accounts.counts
        self.accounts = accounts

    def summary(self) -> dict[str, Any]:
        """Figures."""
        kinds = Counter(fault.kind for fault in self.faults)
        return {
            "faults": len(self.faults),
            "kinds": len(kinds),
            "revived": self.site.revived,
            **dict(self.counts),
            "failed_connects": dict(self.clients.failures),
        }


def shape(problem: str) -> str:
    """A problem without its numbers, to count those of a kind."""
    return re.sub(r"[0-9a-f]{6,}|\d+", "#", problem)[:90]
