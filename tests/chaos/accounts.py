"""The check of the promises: clients' records against the consumers' journals and the faults.  No I/O but the reading
of these."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import ORDER_TIMEOUT, room_of
from tests.chaos.clients import Turn
from tests.chaos.faults import Fault

#: Seconds after a fault within which it explains what runs again: a lease and a third, and the start of a worker.
GRACE = 15.0

#: The order of the disconnects that an interface server publishes for another that is dead.
UNORDERED = -1

Key = tuple[int, int]


@dataclass
class Run:
    """A message in the hands of a consumer.  Times by the monotonic clock."""

    begin: float
    kind: str
    key: Key
    order: int
    what: str
    id: str
    end: float | None = None


@dataclass
class Broadcast:
    """A message to a group."""

    number: int
    room: str
    begin: float
    end: float = float("inf")
    outcome: str = "unknown"


@dataclass
class Accounts:
    """Everything that is known.

    Args:
        turns: every connection.
        begun: every message that a client wanted to send.
        repeated: messages that were sent again on an open socket, with times.
        faults: what happened.
        scheme: ``"redis-streams"``, ``"redis"`` or ``"amqp"``.
        given_up: connections of which a message was given up, as the interface servers said.
    """

    turns: Sequence[Turn]
    begun: set[str]
    repeated: Sequence[tuple[str, float]]
    faults: Sequence[Fault]
    scheme: str
    runs: list[Run] = field(default_factory=list)
    broadcasts: list[Broadcast] = field(default_factory=list)
    given_up: set[Key] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _read: dict[tuple[int, float], float] = field(default_factory=dict)

    def read(self, journal: Path, outputs: Iterable[str]) -> None:
        """Read what consumers and publisher wrote down, and what interface servers logged."""
        for path in sorted(journal.glob("worker-*")):
            self._read_worker(path)
        self.runs.sort(key=lambda run: run.begin)
        publisher = journal / "publisher"
        for line in publisher.read_text().splitlines() if publisher.exists() else ():
            match line.split(" "):
                case ["begin", number, room, begin]:
                    self.broadcasts.append(Broadcast(int(number), room, float(begin)))
                case ["end", number, end, outcome]:
                    one = self.broadcasts[int(number)]
                    one.end, one.outcome = float(end), outcome
        for output in outputs:
            for number, turn in re.findall(
                r"/chaos/(\d+)/(\d+)/: (?:no worker reported|message \d+ to \S+ was given up)", output
            ):
                self.given_up.add((int(number), int(turn)))

    def _read_worker(self, path: Path) -> None:
        begun: dict[tuple[str, ...], list[Run]] = defaultdict(list)
        for line in path.read_text().splitlines():
            at, state, *words = line.split(" ")
            kind, number, turn, order, what, identity = words
            if state == "begin":
                run = Run(float(at), kind, (int(number), int(turn)), int(order), what, identity)
                self.runs.append(run)
                begun[tuple(words)].append(run)
            else:
                begun[tuple(words)].pop(0).end = float(at)

    # -- what excuses what

    def _excused(self, moment: float, faults: Iterable[Fault]) -> bool:
        return any(fault.began <= moment <= fault.ended + GRACE for fault in faults)

    def _of(self, *kinds: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.kind in kinds]

    @property
    def losing(self) -> list[Fault]:
        """Faults that may lose what was published: an empty Redis; on Kombu's stock transport a worker that dies."""
        lossy = self._of("redis empty")
        return lossy if self.scheme != "redis" else [*lossy, *(each for each in self.faults if each.repeats)]

    def problem(self, text: str) -> None:
        """A promise was not kept."""
        self.problems.append(text)

    # -- the promises

    def check(self) -> None:
        """Look at every promise."""
        self._by_key: dict[Key, list[Run]] = defaultdict(list)
        for run in self.runs:
            self._by_key[run.key].append(run)
        known = {(turn.number, turn.turn) for turn in self.turns}
        for run in self.runs:
            if run.key not in known:
                self.problem(f"{run} is of no socket")
        self._all_was_consumed()
        for turn in self.turns:
            runs = self._by_key[turn.number, turn.turn]
            self._nothing_strange(turn, runs)
            self._identity(turn, runs)
            self._order(turn, runs)
            self._disconnect(turn, runs)
            self._answers(turn, runs)
            self._clean_end(turn, runs)
        self._groups()
        self.counts.update(
            connections=len(self.turns),
            accepted=sum(turn.opened is not None for turn in self.turns),
            messages=len(self.begun),
            runs=len(self.runs),
            answers=sum(len(turn.answers) for turn in self.turns),
            broadcasts=len(self.broadcasts),
            group_frames=sum(len(turn.group) for turn in self.turns),
            repeated=len(self.repeated),
        )

    def _all_was_consumed(self) -> None:
        consumed = {run.what for run in self.runs if run.kind == "receive"}
        answered = {what for turn in self.turns for what, _ in turn.answers}
        for what in sorted(self.begun - consumed):
            self.problem(f"message {what} was never consumed")
        for what in sorted(self.begun - answered):
            self.problem(f"message {what} was never answered")
        patience = ORDER_TIMEOUT + 60.0  # it may have been sent some time before it was lost
        for what, moment in self.repeated:
            if not any(fault.began < moment and fault.ended > moment - patience for fault in self.losing):
                self.problem(f"message {what} had no answer on an open socket at {moment:.3f}")

    def _nothing_strange(self, turn: Turn, runs: list[Run]) -> None:
        for text in turn.strange:
            self.problem(f"socket {turn.number}/{turn.turn} was sent {text!r}")
        sent = {what for what, _ in turn.sent}
        for run in runs:
            if run.kind == "receive" and run.what not in sent:
                self.problem(f"{run}: its socket never sent that")

    def _identity(self, turn: Turn, runs: list[Run]) -> None:
        """A message that runs again is the same one, and a fault explains it."""
        seen: dict[int, Run] = {}
        for run in runs:
            if run.order == UNORDERED:
                continue
            first = seen.setdefault(run.order, run)
            if first is run:
                continue
            if first.id != run.id:
                self.problem(f"{run} has another id than {first}")
            self.counts["run_again"] += 1
            if not self._excused(run.begin, (fault for fault in self.faults if fault.repeats)):
                self.problem(f"{run} ran again, and nothing explains it; first {first}")

    def _order(self, turn: Turn, runs: list[Run]) -> None:
        """One after another, and none is left out."""
        key = turn.number, turn.turn
        if key in self.given_up:
            self.counts["given_up"] += 1
            near = (turn.began, turn.closed or float("inf"))
            if not any(fault.began - 60 < near[1] and fault.ended > near[0] - 60 for fault in self.losing):
                self.problem(f"socket {key}: an interface server waited in vain for a worker")
            return
        stopped = [each for each in self._of("interface terminate") if each.target == f"interface-{turn.interface}"]
        until = max((run.begin for run in runs), default=0.0)
        if any(fault.began - 1 < until and fault.ended > turn.began for fault in stopped):
            return  # at its end a server waits for workers only so long
        first: dict[int, Run] = {}
        done: dict[int, float] = {}
        for run in runs:
            if run.order != UNORDERED:
                first.setdefault(run.order, run)
                if run.end is not None:
                    done[run.order] = min(run.end, done.get(run.order, run.end))
        for order, run in sorted(first.items()):
            if order == 0:
                continue
            if order - 1 not in first:
                if not self.losing:
                    self.problem(f"{run} ran, and message {order - 1} of its socket did not")
            elif done.get(order - 1, float("inf")) > run.begin:
                self.problem(f"{run} began before message {order - 1} was done: {first[order - 1]}")

    def _disconnect(self, turn: Turn, runs: list[Run]) -> None:
        """The application is told of the end, last of all and once, unless the server was taken for dead."""
        told = any(run.kind == "connect" for run in runs)
        ends = [run for run in runs if run.kind == "disconnect"]
        ordered = {run.id for run in ends if run.order != UNORDERED}
        swept = {run.id for run in ends if run.order == UNORDERED}
        key = turn.number, turn.turn
        noted = not self._killed_in_the_making(turn)
        if told and not ends and noted and not self._near(turn, self._of("redis empty"), 60):
            self.problem(f"socket {key} ended with {turn.code} at {turn.closed or 0:.3f} and nobody was told")
        if len(ordered) > 1:
            self.problem(f"socket {key}: {len(ordered)} disconnects")
        deadly = [fault for fault in self.faults if fault.target == f"interface-{turn.interface}"]
        # Who tidies up may lose Redis, or its life, between telling some and writing that down.
        others = [each for each in self.faults if each.target == "redis" or each.target.startswith("interface")]
        again = len(swept) > 1 and not self._excused(min(run.begin for run in ends if run.id in swept), others)
        if again or (swept and not self._near(turn, deadly, 30)):
            self.problem(f"socket {key}: taken for dead {len(swept)} times: {ends}")
        self.counts["disconnects_of_the_dead"] += len(swept)
        last = max((run.order for run in runs if run.kind != "disconnect"), default=0)
        for run in ends:
            if UNORDERED < run.order < last:
                self.problem(f"{run} came before message {last}")

    def _killed_in_the_making(self, turn: Turn) -> bool:
        """Return whether its server was killed before it can have noted the socket for others."""
        return any(
            fault.target == f"interface-{turn.interface}"
            and abs(fault.began - (turn.closed or 0)) < 1
            and (turn.opened is None or turn.opened > fault.began - 0.5)
            for fault in self._of("interface kill")
        )

    def _near(self, turn: Turn, faults: Sequence[Fault], seconds: float) -> bool:
        """Return whether a fault came while a connection lasted, or so many seconds before or after."""
        end = turn.closed or float("inf")
        return any(fault.began < end + seconds and fault.ended > turn.began - seconds for fault in faults)

    def _answers(self, turn: Turn, runs: list[Run]) -> None:
        began: dict[str, float] = {}
        for run in runs:
            began.setdefault(run.what, run.begin)
        seen: Counter[str] = Counter()
        repeated = {what for what, _ in self.repeated}
        for what, moment in turn.answers:
            if began.get(what, float("inf")) > moment:
                self.problem(f"socket {turn.number}/{turn.turn}: {what} was answered and not consumed")
            seen[what] += 1
            if seen[what] > 1:
                self.counts["answered_again"] += 1
                excused = what in repeated or self._excused(moment, (each for each in self.faults if each.repeats))
                if not excused:
                    self.problem(f"socket {turn.number}/{turn.turn}: {what} was answered again, nothing explains it")

    def _clean_end(self, turn: Turn, runs: list[Run]) -> None:
        """Check that all that a client sent before it closed is consumed, unless the server died with it."""
        if not turn.own_end or turn.code != 1000 or turn.opened is None or (turn.number, turn.turn) in self.given_up:
            return
        kills = [*self._of("interface kill"), *self.losing]
        if any(fault.began - 30 < (turn.closed or 0) < fault.ended for fault in kills):
            return
        consumed = {run.what for run in runs}
        for what, _ in turn.sent:
            if what not in consumed:
                self.problem(f"socket {turn.number}/{turn.turn} closed by itself, and its {what} was lost")

    def _groups(self) -> None:
        """Each socket has all messages of its group from its welcome on, in order; of what was sent, none is missing
        between two that came."""
        rooms: dict[str, list[Broadcast]] = defaultdict(list)
        for broadcast in self.broadcasts:
            rooms[broadcast.room].append(broadcast)
            self.counts[f"broadcasts_{broadcast.outcome}"] += 1
        networks = [fault for fault in self.faults if fault.target in ("publisher", "redis", "rabbitmq")]
        for turn in self.turns:
            if turn.opened is None:
                continue
            name = f"socket {turn.number}/{turn.turn}"
            if turn.group != sorted(turn.group):
                self.problem(f"{name}: its group's messages came in disorder: {turn.group}")
            got = Counter(turn.group)
            known = {broadcast.number: broadcast for broadcast in rooms[room_of(turn.number)]}
            for number, times in got.items():
                if times > 1:
                    self.counts["group_frames_again"] += times - 1
                    one = known[number]
                    # It may have begun just before the fault that its confirmation was lost in.
                    if not any(each.began <= one.end and one.begin <= each.ended + GRACE for each in networks):
                        self.problem(f"{name} got message {number} of its group {times} times")
            until = float("inf") if turn.last else max((known[number].begin for number in got), default=0.0)
            for broadcast in known.values():
                if (
                    turn.opened < broadcast.begin <= until
                    and broadcast.outcome == "sent"
                    and broadcast.number not in got
                ):
                    self.counts["group_frames_lost"] += 1
                    if not self._may_be_lost(broadcast, turn):
                        self.problem(f"{name} missed {broadcast}")

    def _may_be_lost(self, broadcast: Broadcast, turn: Turn) -> bool:
        """Return whether Redis was emptied before the memberships were back, or while the message waited there for the
        socket's interface server.
        """
        for fault in self._of("redis empty"):
            if fault.began <= broadcast.end <= fault.ended + GRACE:
                return True
            waited = self.scheme != "amqp" and broadcast.end < fault.began
            if waited and self._read_to(turn.interface, fault.began) < broadcast.end:
                return True
        return False

    def _read_to(self, interface: int, moment: float) -> float:
        """Return when the last message was sent that an interface server is known to have read by a moment.

        It reads what is sent to it in order, so all that was sent before that one was read as well.
        """
        key = interface, moment
        if key not in self._read:
            begins = {broadcast.number: broadcast.begin for broadcast in self.broadcasts}
            self._read[key] = max(
                (
                    begins[number]
                    for turn in self.turns
                    if turn.interface == interface
                    for number, came in zip(turn.group, turn.group_times, strict=True)
                    if came < moment
                ),
                default=0.0,
            )
        return self._read[key]
