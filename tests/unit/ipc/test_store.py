"""A site's file in one process, and in forks of it: messages, queues, and what dead processes leave."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from channelsq.exceptions import BrokerUnavailable
from channelsq.ipc import database, messages, room
from channelsq.ipc.messages import Message, Taken
from channelsq.ipc.store import Store, store_at
from channelsq.layers import IPCChannelLayer
from channelsq.redis_core.suspects import MOST_DEATHS
from tests.support.fakes.owners import FakeOwners
from tests.support.waiting import wait_until


def put(store: Store, queue: str, payload: bytes, lifetime: float | None = None, rank: int = 0) -> None:
    store.put(queue, Message(payload, lifetime, rank))


def take(store: Store, *queues: str, held: bool = True) -> Taken | None:
    """The next message of any of the queues; None if there is none."""
    taken = store.take(queues, 1, held=held)
    return taken[0] if taken else None


def payloads(taken: list[Taken]) -> list[bytes]:
    return [each.payload for each in taken]


def rows(store: Store, table: str) -> int:
    """Return the number of rows of a table of the file."""
    return int(store.read(lambda connection: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]))


# -- messages -----------------------------------------------------------------------------------


def test_a_process_has_one_store_in_a_directory(place: Store, tmp_path: Path) -> None:
    assert store_at(tmp_path / "ipc") is store_at(tmp_path / "." / "ipc") is place
    assert store_at(tmp_path / "another") is not place


def test_a_queue_is_read_in_the_order_of_ranks_and_sends(place: Store) -> None:
    for number, rank in enumerate((3, 0, 9, 0, 3)):
        put(place, "a", b"%d" % number, None, rank)
    assert payloads(place.take(["a"], 10)) == [b"1", b"3", b"0", b"4", b"2"]


def test_a_batch_has_a_fair_share_of_each_queue(place: Store) -> None:
    place.write(lambda tx: tx.put("flood", [Message(b"f%d" % number, None) for number in range(100)]))
    for queue in ("b", "c"):
        for number in range(3):
            put(place, queue, b"%s%d" % (queue.encode(), number))
    taken = payloads(place.take(["flood", "b", "c"], 9))
    assert sorted(taken) == [b"b0", b"b1", b"b2", b"c0", b"c1", b"c2", b"f0", b"f1", b"f2"]
    put(place, "b", b"b3")
    rest = payloads(place.take(["flood", "b", "c"], 50))
    assert len(rest) == 50  # what the small queue did not need the large one got
    assert b"b3" in rest
    assert [each for each in rest if each[:1] == b"f"] == [b"f%d" % number for number in range(3, 52)]


def test_capacity_is_exact_in_the_transaction(place: Store) -> None:
    sent: list[int] = []

    def fill() -> None:
        sent.extend(place.write(lambda tx: tx.put("a", [Message(b"x", None)], 25)) for _ in range(20))

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(sent) == place.size("a") == 25
    assert len(place.take(["a"], 5)) == 5
    assert place.write(lambda tx: tx.put("a", [Message(b"y", None)] * 8, 25)) == 5


def test_messages_that_have_expired_make_room(place: Store) -> None:
    for number in range(3):
        put(place, "a", b"%d" % number, 0.001 if number else 60)
    wait_until(lambda: place.size("a") == 1, "two messages to expire")
    assert place.write(lambda tx: tx.put("a", [Message(b"new", None)] * 9, 3)) == 2
    assert payloads(place.take(["a"], 9)) == [b"0", b"new", b"new"]


def test_what_is_held_is_given_back_or_gone(place: Store) -> None:
    put(place, "a", b"one")
    put(place, "a", b"two")
    one, two = place.take(["a"], 2)
    assert not one.again
    assert place.state("a")[:2] == (0, 2)
    place.release(one.key)
    again = take(place, "a")
    assert again is not None
    assert (again.payload, again.again, again.key) == (b"one", True, one.key)
    place.remove(again.key)
    place.remove(two.key)
    place.release(two.key)
    assert take(place, "a") is None
    assert place.state("a")[:2] == (0, 0)


def test_a_message_that_a_later_one_follows_goes_back_before_that(place: Store) -> None:
    for number in range(4):
        put(place, "a", b"%d" % number)
    first, second = place.take(["a"], 2)
    place.release(second.key)
    place.release(first.key)
    assert payloads(place.take(["a"], 9)) == [b"0", b"1", b"2", b"3"]


def test_a_queue_that_is_made_again_never_gives_a_key_twice(place: Store) -> None:
    put(place, "a", b"old")
    old = take(place, "a")
    place.delete("a")
    put(place, "a", b"new")
    new = take(place, "a")
    assert old is not None
    assert new is not None
    place.remove(old.key)
    assert place.state("a")[1] == 1


def test_hundreds_of_queues(place: Store) -> None:
    queues = [f"q{number}" for number in range(1200)]
    put(place, "q1100", b"late")
    put(place, "q5", b"later")
    assert sorted(payloads(place.take(queues, 5, held=False))) == [b"late", b"later"]


def test_expired_messages_are_marked_and_swept(place: Store) -> None:
    place.sweep(now=True)  # so that no call below does it by itself
    put(place, "a", b"old", 0.001)
    put(place, "a", b"new", 60)
    wait_until(lambda: place.size("a") == 1, "the message to expire")
    taken = place.write(lambda tx: tx.take(["a"], 2, held=False))
    assert [(each.payload, each.is_expired) for each in taken] == [(b"old", True), (b"new", False)]
    put(place, "b", b"old", 0.001)

    def swept() -> bool:
        place.sweep(now=True)
        return rows(place, "messages") == 0

    wait_until(swept, "the message on the other queue to go")
    assert place.waiting("b") == 0


def test_a_delayed_message_comes_when_it_is_due_and_there_is_room(place: Store) -> None:
    put(place, "a", b"first")

    def delay(name: bytes, seconds: float) -> None:
        assert place.write(lambda tx: tx.delay("a", Message(name, 60), 1, seconds))

    delay(b"later", 3600)
    delay(b"soon", 0.001)

    def looked() -> bool:
        place.sweep(now=True)
        return rows(place, "delayed") == 2 and place.size("a") == 1

    assert looked()  # it is due, and its queue is full
    assert payloads(place.take(["a"], 5)) == [b"first"]

    def came() -> bool:
        place.sweep(now=True)
        return place.size("a") == 1

    wait_until(came, "the delayed message")
    assert payloads(place.take(["a"], 5)) == [b"soon"]
    assert place.purge("a") == 1  # what waits for its time, too


def test_so_many_messages_may_wait_for_their_time(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_DELAYED", 2)
    taken = [place.write(lambda tx: tx.delay("a", Message(b"x", 60), 100, 60)) for _ in range(3)]
    assert taken == [True, True, False]


# -- queues -------------------------------------------------------------------------------------


def test_an_unread_queue_ends_with_its_messages_bindings_and_members(place: Store) -> None:
    place.sweep(now=True)  # so that no call below does it by itself
    place.declare("reply", 0.05)
    place.declare("lasting", None)
    place.bind("exchange", "key", "", "reply")
    put(place, "reply", b"x")
    for member in ("reply!client", "reply", "replying!client", "lasting"):
        row = ("room", member, 4e9)
        place.write(lambda tx, row=row: tx.connection.execute("INSERT INTO members VALUES (?, ?, ?)", row))  # type: ignore[misc]

    def ended() -> bool:
        place.sweep(now=True)
        return not place.has_queue("reply")

    wait_until(ended, "the queue to end")
    assert place.has_queue("lasting")
    assert place.size("reply") == 0
    assert place.bindings("exchange") == []
    found = place.read(lambda connection: connection.execute("SELECT channel FROM members ORDER BY 1").fetchall())
    assert found == [("lasting",), ("replying!client",)]


def test_a_queue_that_nobody_declared_ends_when_it_is_empty(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(place, "sent", b"x")
    monkeypatch.setattr("channelsq.ipc.overdue.UNUSED", 0.0)
    place.sweep(now=True)
    assert place.has_queue("sent")
    held = take(place, "sent")
    assert held is not None
    place.sweep(now=True)
    assert place.has_queue("sent")
    place.remove(held.key)
    place.sweep(now=True)
    assert not place.has_queue("sent")


def test_the_successor_of_a_dead_reader_keeps_its_queue(place: Store) -> None:
    owners = FakeOwners(place)
    place.declare("control", 10)
    take(place, "control")
    place.write(lambda tx: tx.connection.execute("UPDATE queues SET reader = 1"))
    owners.dead.add(1)
    put(place, "control", b"for the dead one")
    place.declare("control", 10)
    place.sweep(now=True)
    assert place.has_queue("control")
    assert place.size("control") == 0


# -- the dead -----------------------------------------------------------------------------------


def test_each_death_is_counted_and_the_last_makes_a_dead_letter(place: Store) -> None:
    owners = FakeOwners(place)
    put(place, "a", b"deadly")
    for number in range(MOST_DEATHS):
        taken = take(place, "a")
        assert taken is not None
        assert (taken.deaths, taken.again) == (number, number > 0)
        owners.hand_over(place, number + 1)
    taken = take(place, "a")
    assert taken is not None
    assert taken.deaths == MOST_DEATHS
    assert place.write(lambda tx: tx.dead_letter(taken.key, "killed five"))
    assert not place.write(lambda tx: tx.dead_letter(taken.key, "again"))
    assert place.state("a")[:4] == (0, 0, None, 1)


def test_the_oldest_dead_letters_of_a_queue_go(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_DEAD_LETTERS", 2)
    for number in range(4):
        place.write(lambda tx, number=number: tx.keep_dead("a", b"%d" % number, 5, ""))  # type: ignore[misc]
        place.write(lambda tx: tx.keep_dead("b", b"other", 5, ""))
    left = place.read(lambda connection: connection.execute("SELECT queue, payload FROM dead_letters").fetchall())
    assert sorted(left) == [("a", b"2"), ("a", b"3"), ("b", b"other"), ("b", b"other")]


def test_suspects_are_left_while_others_are_taken(place: Store) -> None:
    owners = FakeOwners(place)
    for number in range(3):
        put(place, "a", b"%d" % number)
    for dead in (1, 2):
        assert len(place.take(["a"], 2)) == 2
        owners.hand_over(place, dead)
    asked: list[int] = []

    def admits(deaths: int) -> bool:
        asked.append(deaths)
        return len(asked) == 1

    taken = place.take(["a"], 9, admits=admits)
    assert payloads(taken) == [b"0", b"2"]
    assert asked == [2, 2]
    assert place.size("a") == 1


def test_marks_are_bounded(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channelsq.ipc.overdue.MOST_BEGUN", 2)
    layer = IPCChannelLayer(path=place.directory)
    for number in range(4):
        assert layer.begin(f"mark {number}")
    put(place, "a", b"so that something is overdue")
    place.sweep(now=True)
    assert rows(place, "begun") == 2


# -- the file -----------------------------------------------------------------------------------


def test_a_file_that_was_deleted_is_begun_anew(place: Store, caplog: pytest.LogCaptureFixture) -> None:
    put(place, "a", b"lost")
    place.path.unlink()
    place.sweep(now=True)
    assert "was deleted or replaced" in caplog.text
    put(place, "a", b"new")
    taken = take(place, "a", held=False)
    assert taken is not None
    assert taken.payload == b"new"


def test_a_file_of_another_version_is_refused(place: Store) -> None:
    put(place, "a", b"x")
    place.write(lambda tx: tx.connection.execute("PRAGMA user_version = 99"))
    place.close()
    with pytest.raises(
        sqlite3.OperationalError, match=r"tables of version 99, and .* reads version 3: update .* delete the file"
    ):
        place.size("a")


def test_a_file_of_before_a_restart_is_begun_anew_where_nothing_waits_for_the_disk(
    place: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place, "a", b"old")
    place.close()
    monkeypatch.setattr(database, "_boot", lambda: "another")
    assert place.size("a") == 1
    place.close()
    monkeypatch.setattr(database, "is_temporary", lambda directory: True)
    assert place.size("a") == 0
    put(place, "a", b"new")
    place.close()
    assert place.size("a") == 1


def test_a_broken_file_is_begun_anew_where_nothing_waits_for_the_disk(
    place: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "is_temporary", lambda directory: True)
    put(place, "a", b"old")
    place.close()
    place.path.write_bytes(b"no database " * 1000)
    assert place.size("a") == 0
    assert "is begun anew" in caplog.text


def test_a_full_file_says_what_to_do_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LARGEST", 60 * 4096)
    layer = IPCChannelLayer(path=tmp_path / "ipc", capacity=1000)
    sent = 0
    with pytest.raises(BrokerUnavailable, match=r"full; make room on .* MB are free there.*\['path'\]"):  # noqa: PT012
        for _ in range(1000):
            layer.send("a", {"bytes": b"x" * 4000})
            sent += 1
    assert 5 < sent < 60
    assert layer.depth("a") == sent  # the one that failed left nothing
    assert layer.receive(["a"])[0] == "a"
    layer.send("a", {"n": 1})
    layer.close()


def test_a_write_that_fails_fails_alone(place: Store) -> None:
    """Threads share a transaction, but not their errors."""
    results: list[object] = []
    begin = threading.Barrier(5)

    def write(number: int) -> None:
        begin.wait()
        try:
            if number == 2:
                place.write(lambda tx: tx.connection.execute("INSERT INTO nowhere VALUES (1)"))
            else:
                results.append(place.write(lambda tx: tx.put("a", [Message(b"%d" % number, None)])))
        except sqlite3.OperationalError as error:
            results.append(str(error))

    with place._lock:  # so that all of them wait for one transaction
        threads = [threading.Thread(target=write, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(place._jobs) == 5, "five writes to wait")
    for thread in threads:
        thread.join(10)
    assert sorted(map(str, results)) == ["1", "1", "1", "1", "no such table: nowhere"]
    assert sorted(payloads(place.take(["a"], 9))) == [b"0", b"1", b"3", b"4"]


def test_threads_share_it(place: Store) -> None:
    def fill(number: int) -> None:
        for each in range(50):
            put(place, "a", b"%d" % (number * 50 + each))

    got: list[bytes] = []

    def read() -> None:
        waiter = place.waiter(["a"])
        while len(got) < 200:
            waiter.arm()
            taken = place.take(["a"], 7, held=False)
            got.extend(payloads(taken))
            if not taken:
                waiter.sleep(0.01)
        waiter.close()

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    threads += [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(int, got)) == list(range(200))


_FORK = """
import os, sys
from pathlib import Path
from channelsq.ipc.messages import Message
from channelsq.ipc.store import store_at
store = store_at(Path(sys.argv[1]))
held = store.take(["a"])
child = os.fork()
if not child:
    own = store_at(Path(sys.argv[1]))
    own.sweep(now=True)
    print(own is not store, own.me != store._owners.me, own.size("a"), flush=True)
    own.put("b", Message(b"child's", None))
    os._exit(0)
os.waitpid(child, 0)
print(store.take(["b"], held=False)[0].payload.decode(), store.size("a"), flush=True)
"""


def test_a_forked_child_opens_the_file_for_itself(place: Store) -> None:
    put(place, "a", b"parent's")
    done = subprocess.run(
        [sys.executable, "-c", _FORK, str(place.directory)], capture_output=True, text=True, timeout=30, check=True
    )
    # What the parent holds the child leaves alone.
    assert done.stdout.splitlines() == ["True True 0", "child's 0"]
    place.sweep(now=True)
    assert place.size("a") == 1  # now that it is dead


def test_a_file_that_cannot_be_read_is_a_broker_that_is_away(tmp_path: Path) -> None:
    layer = IPCChannelLayer(path=tmp_path / "ipc")
    assert layer.url
    (tmp_path / "ipc" / "queues.sqlite3").write_bytes(b"no database " * 1000)
    for call in (
        lambda: layer.send("a", {}),
        lambda: layer.receive(["a"]),
        lambda: layer.group_add("room", "a"),
        lambda: layer.send_group("room", {}),
        lambda: layer.begin("mark"),
    ):
        with pytest.raises(BrokerUnavailable, match="not a database; stop the site's processes and delete the file"):
            call()
    layer.close()


def test_files_are_for_their_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        place = store_at(tmp_path / "ipc")
        put(place, "a", b"x")
        waiter = place.waiter(["a"])
        waiter.arm()
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in place.directory.iterdir()}
    assert {"queues.sqlite3", "queues.sqlite3-wal", "owners", "opening", "waiting", "wake-0"} <= found.keys()
    assert set(found.values()) == {0o600}
    place.close()


def test_a_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    place = store_at(tmp_path / "ipc")
    put(place, "a", b"x")
    place.close()
    for name in ("waiting", "opening"):
        (place.directory / name).unlink()
        (place.directory / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="symbolic links"):
            place.size("a")
        place.close()
        assert not (tmp_path / "elsewhere").exists()
        (place.directory / name).unlink()
    assert place.size("a") == 1
    place.close()
