"""Processes that are killed at each step of what they do to a site's file: nothing is lost, done twice, or locked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from channelsq.ipc.messages import Message
from channelsq.ipc.store import Store, store_at

#: For each number that is read, a forked child takes steps, and is killed at the statement with that number.
_KILLED = """
import os, signal, sys
from pathlib import Path
from channelsq.ipc.messages import Message
from channelsq.ipc.store import store_at

directory = Path(sys.argv[1])

def run(number):
    store = store_at(directory)
    {before}
    left = number

    def count(statement):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store.database.open().set_trace_callback(count)
    {steps}

for line in sys.stdin:
    child = os.fork()
    if not child:
        run(int(line))
        os._exit(0)
    print(os.waitpid(child, 0)[1] == signal.SIGKILL, flush=True)
"""

#: A number that no step has.
NEVER = 10_000


@contextmanager
def killer(
    place: Store, steps: str, before: str = "store.me", *, sweeps: bool = True
) -> Iterator[Callable[[int], bool]]:
    """Return a function that has a process take steps, kills it at a numbered statement, and returns whether it did."""
    code = _KILLED.format(steps=steps, before=before)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(place.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, said = process.stdin, process.stdout

        def kill_at(number: int) -> bool:
            told.write(f"{number}\n")
            told.flush()
            outcome = said.readline().strip()
            assert outcome in ("True", "False")
            if sweeps:
                place.sweep(now=True)
            return outcome == "True"

        yield kill_at
        told.close()


def put(place: Store, *payloads: bytes) -> None:
    """Put messages into the queue "a"."""
    place.write(lambda tx: tx.put("a", [Message(payload, 60) for payload in payloads]))


def payloads(place: Store, queue: str) -> list[bytes]:
    """Take the waiting messages of a queue, and return their payloads."""
    return [taken.payload for taken in place.take([queue], 100, held=False)]


def test_a_sender_has_sent_all_or_nothing(place: Store) -> None:
    steps = """store.write(
        lambda tx: (tx.put("a", [Message(b"1", 60), Message(b"2", 60)], 5), tx.put("b", [Message(b"3", 60)], 5))
    )"""
    seen, number = set(), 0
    with killer(place, steps) as kill_at:
        was_killed = True
        while was_killed:
            was_killed = kill_at(number)
            found = payloads(place, "a"), payloads(place, "b")
            assert found in (([], []), ([b"1", b"2"], [b"3"])), number
            assert was_killed or found[0]
            assert place.waiting("a") == place.waiting("b") == 0
            seen.add(bool(found[0]))
            number += 1
    assert seen == {False, True}


def test_a_worker_has_taken_a_batch_or_it_waits_as_before(place: Store) -> None:
    seen = set()
    with killer(place, 'store.write(lambda tx: tx.take(["a"], 2)); os.kill(os.getpid(), signal.SIGKILL)') as kill_at:
        for number in (*range(20), NEVER):
            put(place, b"1", b"2")
            assert kill_at(number)
            taken = place.take(["a"], 9)
            assert [each.payload for each in taken] == [b"1", b"2"], number
            told = {(each.deaths, each.again) for each in taken}
            assert told in ({(0, False)}, {(1, True)}), number
            seen |= told
            for each in taken:
                place.remove(each.key)
    assert seen == {(0, False), (1, True)}


def test_the_end_of_a_message_and_its_sends_are_one(place: Store) -> None:
    """The consumer's message is there and its answer is not, or the other way round; never both, never neither."""
    steps = """store.write(lambda tx: (
        tx.remove([held.key]), tx.put("reply", [Message(b"answer", 60)], 9, 300), tx.take(["a"], 9)
    ))"""
    seen, number = set(), 0
    with killer(place, steps, 'held = store.take(["a"])[0]') as kill_at:
        was_killed = True
        while was_killed:
            put(place, b"question")
            was_killed = kill_at(number)
            found = payloads(place, "a"), payloads(place, "reply")
            assert found in (([b"question"], []), ([], [b"answer"])), number
            seen.add(bool(found[1]))
            number += 1
    assert seen == {False, True}


def test_a_process_that_is_killed_while_it_tidies_up_leaves_the_rest_to_others(place: Store) -> None:
    """Every message that a first process held comes again with one death, however many die over giving it back."""
    number, was_killed = 0, True
    with (
        killer(place, 'store.take(["a"], 3); os.kill(os.getpid(), signal.SIGKILL)', sweeps=False) as hold,
        killer(place, "store.sweep(now=True)") as tidy_up,
    ):
        while was_killed:
            put(place, b"0", b"1", b"2")
            assert hold(NEVER)
            was_killed = tidy_up(number)
            taken = place.take(["a"], 9)
            assert [(each.payload, each.deaths) for each in taken] == [(b"0", 1), (b"1", 1), (b"2", 1)], number
            for each in taken:
                place.remove(each.key)
            number += 1
    assert number > 5


def test_a_process_that_is_killed_while_it_makes_the_file_leaves_that_to_others(tmp_path: Path) -> None:
    place = store_at(tmp_path / "killed")
    code = """
import os, signal, sys
from pathlib import Path
from channelsq.ipc import database
database.Database._set_up = lambda self, connection: os.kill(os.getpid(), signal.SIGKILL)
from channelsq.ipc.store import store_at
store_at(Path(sys.argv[1])).size("a")
"""
    done = subprocess.run([sys.executable, "-c", code, str(place.directory)], timeout=30, check=False)
    assert done.returncode == -9
    assert place.path.exists()
    put(place, b"x")
    assert payloads(place, "a") == [b"x"]
    place.close()
