"""IPCChannelLayer's parts in one process, and in forks of it: the file, its directory, and who lives."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Message, Queue

from channelsq import conf
from channelsq.exceptions import BrokerUnavailable, InvalidChannelLayerError
from channelsq.ipc import ipc_url, store
from channelsq.ipc.directory import default_directory, directory_of, make_private, url_of
from channelsq.ipc.owners import Owners
from channelsq.ipc.store import Store, store_at
from channelsq.layers import IPCChannelLayer
from channelsq.transport.suspects import MOST_DEATHS
from tests.support.fakes.owners import FakeOwners
from tests.support.waiting import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Store]:
    found = store_at(tmp_path / "ipc")
    yield found
    found.close()


# -- the directory ------------------------------------------------------------------------------


def test_each_prefix_has_a_directory_of_this_user() -> None:
    one, two = default_directory("one"), default_directory("two")
    assert one != two
    assert one.parent == two.parent == Path(tempfile.gettempdir()).resolve() / f"channelsq-{os.geteuid()}"


@pytest.mark.parametrize("path", ["/srv/my site/ipc", "/tmp/Upper?Case#", "/a"])
def test_urls_name_a_directory(path: str) -> None:
    assert directory_of(ipc_url(path)) == directory_of(url_of(Path(path))) == Path(path)


def test_urls_name_a_prefix() -> None:
    assert directory_of("ipc://mysite") == directory_of(ipc_url("mysite")) == default_directory("mysite")
    with pytest.raises(InvalidChannelLayerError, match="ipc://mysite"):
        directory_of("ipc://")


@pytest.mark.parametrize("prefix", ["", "..", ".hidden", "a/b", "é", "x" * 65, 5, None])
def test_bad_prefixes(prefix: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match="prefix of an IPCChannelLayer"):
        default_directory(prefix)


def test_the_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = make_private(tmp_path / "ipc")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert make_private(made) == made


def test_directories_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "mine").mkdir(mode=0o700)
    for name, says in (
        ("file", "no directory"),
        ("link", "no directory"),
        ("open", "chmod 700"),
        ("no/such", "cannot be used: No such file"),
    ):
        with pytest.raises(InvalidChannelLayerError, match=says) as raised:
            make_private(tmp_path / name)
        assert "['CONFIG']['path']" in str(raised.value)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InvalidChannelLayerError, match=f"belongs to the user with the number {os.getuid()}"):
        make_private(tmp_path / "mine")


def test_the_layer_refuses_a_directory_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    layer = IPCChannelLayer(path=str(tmp_path / "open"))
    with pytest.raises(InvalidChannelLayerError, match="chmod 700"):
        _ = layer.url


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"path": "relative"}, "absolute path, not 'relative'"),
        ({"path": 5}, "absolute path, not 5"),
        ({"prefix": "a/b"}, "'a/b'"),
        ({"url": "redis://x"}, r"no CONFIG\['url'\]"),
        ({"channel_memory": 1000}, r"no CONFIG\['channel_memory'\].*'capacity' bounds"),
    ],
    ids=str,
)
def test_bad_configuration(config: Any, says: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=says):
        IPCChannelLayer(**config)


def test_channels_1_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    layer = IPCChannelLayer(prefix="mysite", expiry=30, group_expiry=500, capacity=10, channel_capacity={"a": 1})
    assert layer.own_url == ipc_url("mysite")
    assert not layer.in_process
    assert layer.is_on("ipc://mysite")
    assert not layer.is_on("ipc://another")
    assert default_directory("mysite").stat().st_mode & 0o777 == 0o700


def test_a_layer_that_chose_nothing_is_where_the_celery_app_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = IPCChannelLayer()
    monkeypatch.setattr(conf, "celery_broker_url", lambda app=None: ipc_url(tmp_path / "app"))
    assert layer.url == ipc_url(tmp_path / "app")
    monkeypatch.setattr(conf, "celery_broker_url", lambda app=None: "redis://elsewhere")
    assert layer.own_url == ipc_url("channelsq")
    assert IPCChannelLayer(path=tmp_path / "mine").is_on(ipc_url(tmp_path / "mine"))


# -- who lives ----------------------------------------------------------------------------------

_OTHER = """
import sys
from pathlib import Path
from channelsq.ipc.owners import Owners
print(Owners(Path(sys.argv[1])).me, flush=True)
sys.stdin.read()
"""


def test_a_killed_process_is_known_to_be_dead(tmp_path: Path) -> None:
    mine = Owners(tmp_path / "owners")
    with subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(tmp_path / "owners")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        number = int(other.stdout.readline())
        assert mine.is_alive(mine.me)
        assert mine.is_alive(number)
        other.kill()
        other.wait()
        assert not mine.is_alive(number)
        assert not mine.is_alive(number)
        assert mine.is_alive(mine.me)


# -- the file -----------------------------------------------------------------------------------


def test_a_process_has_one_store_in_a_directory(place: Store, tmp_path: Path) -> None:
    assert store_at(tmp_path / "ipc") is store_at(tmp_path / "." / "ipc") is place
    assert store_at(tmp_path / "another") is not place


def test_the_oldest_of_several_queues_comes_first(place: Store) -> None:
    for number, queue in enumerate(("a", "b", "a", "c")):
        place.put(queue, b"%d" % number, None)
    taken = [place.take(["c", "b", "a"], set()) for _ in range(5)]
    assert [each.payload if each else None for each in taken] == [b"0", b"1", b"2", b"3", None]


def test_what_is_held_is_given_back_or_gone(place: Store) -> None:
    place.put("a", b"one", None)
    place.put("a", b"two", None)
    one = place.take(["a"], set())
    two = place.take(["a"], set())
    assert one is not None
    assert two is not None
    assert not one.again
    assert place.size("a") == 0
    place.release(one.id)
    again = place.take(["a"], set())
    assert again is not None
    assert (again.payload, again.again) == (b"one", True)
    place.remove(again.id)
    place.remove(two.id)
    place.release(two.id)
    assert place.take(["a"], set()) is None


def test_hundreds_of_queues(place: Store) -> None:
    queues = [f"q{number}" for number in range(1200)]
    place.put("q1100", b"late", None)
    place.put("q5", b"later", None)
    first = place.take(queues, set(queues))
    assert first is not None
    assert first.payload == b"late"


def test_expired_messages_are_not_handed_out_and_swept(place: Store) -> None:
    place.put("a", b"old", 0.001)
    place.put("b", b"old", 0.001)
    place.put("a", b"new", 60)
    wait_until(lambda: place.size("a") == 1, "the message to expire")
    taken = place.take(["a"], {"a"})
    assert taken is not None
    assert taken.payload == b"new"

    def swept() -> bool:
        place.sweep(now=True)
        with place._reading() as connection:
            (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
        return bool(count == 0)

    wait_until(swept, "the message on the other queue to go")


def test_an_unread_queue_ends_with_its_messages_bindings_and_members(place: Store) -> None:
    place.sweep(now=True)  # so that no call below does it by itself
    place.declare("reply", 0.05)
    place.declare("lasting", None)
    place.bind("exchange", "key", "", "reply")
    place.put("reply", b"x", None)
    for member in ("reply!client", "reply", "replying!client", "lasting"):
        place.join("room", member, 60)

    def ended() -> bool:
        place.sweep(now=True)
        return not place.has_queue("reply")

    wait_until(ended, "the queue to end")
    assert place.has_queue("lasting")
    assert place.size("reply") == 0
    assert place.bindings("exchange") == []
    assert sorted(place.members("room")) == ["lasting", "replying!client"]


def test_a_message_that_kills_process_after_process_is_dropped(place: Store, caplog: pytest.LogCaptureFixture) -> None:
    owners = FakeOwners(place)
    place._owners = owners  # type: ignore[assignment]
    place.put("a", b"deadly", None)
    for number in range(1, MOST_DEATHS + 1):
        assert place.take(["a"], set()) is not None
        owners.hand_over(place, number)
    assert place.take(["a"], set()) is None
    assert "queue a: a message was dropped, as 5 processes died with it" in caplog.text


def test_suspects_are_handed_out_one_at_a_time_beside_others(place: Store) -> None:
    owners = FakeOwners(place)
    place._owners = owners  # type: ignore[assignment]
    for payload in (b"1", b"2"):
        place.put("a", payload, None)
        assert place.take(["a"], set()) is not None
    owners.hand_over(place, 1)
    place.put("a", b"3", None)
    suspect = place.take(["a"], set())
    assert suspect is not None
    assert suspect.payload == b"1"
    innocent = place.take(["a"], set())
    assert innocent is not None
    assert innocent.payload == b"3"
    assert place.take(["a"], set()) is None
    place.remove(suspect.id)
    second = place.take(["a"], set())
    assert second is not None
    assert second.payload == b"2"


def test_the_successor_of_a_dead_reader_keeps_its_queue(place: Store) -> None:
    owners = FakeOwners(place)
    place._owners = owners  # type: ignore[assignment]
    place.declare("control", 10)
    place.take(["control"], set())
    with place._reading() as connection:
        connection.execute("UPDATE queues SET reader = 1")
    owners.dead.add(1)
    place.put("control", b"for the dead one", None)
    place.declare("control", 10)
    place.sweep(now=True)
    assert place.has_queue("control")
    assert place.size("control") == 0


def test_a_file_that_was_deleted_is_begun_anew(place: Store, caplog: pytest.LogCaptureFixture) -> None:
    place.put("a", b"lost", None)
    place.path.unlink()
    place.sweep(now=True)
    assert "was deleted or replaced" in caplog.text
    place.put("a", b"new", None)
    taken = place.take(["a"], {"a"})
    assert taken is not None
    assert taken.payload == b"new"


def test_a_file_of_another_version_is_refused(place: Store) -> None:
    place.put("a", b"x", None)
    with place._reading() as connection:
        connection.execute("PRAGMA user_version = 99")
    place.close()
    with pytest.raises(
        sqlite3.OperationalError, match=r"tables of version 99, and .* reads version 1: update .* delete the file"
    ):
        place.size("a")


def test_threads_share_it(place: Store) -> None:
    def fill(number: int) -> None:
        for each in range(50):
            place.put("a", b"%d" % (number * 50 + each), None)

    got: list[bytes] = []

    def read() -> None:
        while len(got) < 200:
            taken = place.take(["a"], {"a"})
            if taken is not None:
                got.append(taken.payload)
            else:
                place.wait(place.mark, 0.01, 0.01)

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
from channelsq.ipc.store import store_at
store = store_at(Path(sys.argv[1]))
held = store.take(["a"], set())
child = os.fork()
if not child:
    own = store_at(Path(sys.argv[1]))
    own.sweep(now=True)
    print(own is not store, own._me != store._owners.me, own.size("a"), flush=True)
    own.put("b", b"child's", None)
    os._exit(0)
os.waitpid(child, 0)
print(store.take(["b"], {"b"}).payload.decode(), store.size("a"), flush=True)
"""


def test_a_forked_child_opens_the_file_for_itself(place: Store) -> None:
    place.put("a", b"parent's", None)
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
    ):
        with pytest.raises(BrokerUnavailable, match="not a database"):
            call()
    layer.close()


# -- as Kombu has it ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_exchanges_reach_queues_that_another_connection_bound(tmp_path: Path, kind: str) -> None:
    got: list[Any] = []
    url = ipc_url(tmp_path / "ipc")
    exchange = Exchange(f"my-{kind}", kind)

    def take(body: Any, message: Message) -> None:
        got.append(body)
        message.ack()

    queues = [Queue(f"q{n}", exchange, routing_key="news.*" if kind == "topic" else "news.tea") for n in range(2)]
    with Connection(url) as reader, Connection(url) as writer:
        with Consumer(reader.channel(), queues, callbacks=[take]):
            producer = writer.Producer(exchange=exchange)
            producer.publish({"n": 1}, routing_key="news.tea")
            producer.publish({"n": 2}, routing_key="nothing.at.all", declare=[])
            while len(got) < (4 if kind == "fanout" else 2):
                reader.drain_events(timeout=5)
            with pytest.raises(TimeoutError):
                reader.drain_events(timeout=0.05)
        for queue in queues:
            bound = queue(writer.channel())
            bound.delete()
        channel: Any = writer.default_channel
        assert channel.get_table(exchange.name) == []
    expected = [{"n": 1}, {"n": 1}] + ([{"n": 2}, {"n": 2}] if kind == "fanout" else [])
    assert got == expected
    store.store_at(tmp_path / "ipc").close()


def test_what_a_closed_channel_held_comes_again_first_and_marked(tmp_path: Path) -> None:
    with Connection(ipc_url(tmp_path / "ipc")) as connection:
        queue = Queue("q", Exchange(""), routing_key="q")
        producer = connection.Producer()
        for number in range(3):
            producer.publish(number, exchange="", routing_key="q", declare=[queue])
        with connection.channel() as channel:
            first = queue(channel).get()
            second = queue(channel).get()
            assert first is not None
            assert second is not None
            second.ack()
        again = queue(connection.channel()).get()
        assert again is not None
        assert again.payload == 0
        assert again.delivery_info["redelivered"]
        again.reject()
        last = queue(connection.channel()).get(no_ack=True)
        assert last is not None
        assert last.payload == 2
        assert not last.delivery_info.get("redelivered")
        assert queue(connection.channel()).get() is None
    store.store_at(tmp_path / "ipc").close()


def test_a_channel_takes_no_more_than_its_prefetch_count(tmp_path: Path) -> None:
    held: list[Any] = []
    with Connection(ipc_url(tmp_path / "ipc")) as connection:
        queue = Queue("q", Exchange(""), routing_key="q")
        for number in range(3):
            connection.Producer().publish(number, exchange="", routing_key="q", declare=[queue])
        channel: Any = connection.channel()
        channel.basic_qos(0, 2, False)
        with Consumer(channel, [queue], callbacks=[lambda body, message: held.append(message)]):
            for _ in range(2):
                connection.drain_events(timeout=5)
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.05)
            held[0].ack()
            connection.drain_events(timeout=5)
            for message in held[1:]:
                message.ack()
        assert [message.payload for message in held] == [0, 1, 2]
    store.store_at(tmp_path / "ipc").close()


# -- processes wake each other ------------------------------------------------------------------


_WAITER = """
import sys
from pathlib import Path
from channelsq.ipc.store import store_at
store = store_at(Path(sys.argv[1]))
mark = store.mark
store.wait(mark, 0.001, 0.001)
print("waits", flush=True)
while True:
    mark = store.mark
    taken = store.take(["a"], {"a"})
    if taken is not None:
        break
    store.wait(mark, 60, 60)
print(taken.payload.decode(), flush=True)
"""


def test_a_waiting_process_is_woken_by_another(place: Store) -> None:
    place.put("b", b"nothing of its business", None)
    code = _WAITER.replace("store = ", "import channelsq.ipc.file as it; it.LOOK_EVERY = 60; store = ", 1)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(place.directory)], stdout=subprocess.PIPE, text=True
    ) as waiter:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "waits\n"
        place.put("b", b"nor this", None)
        place.put("a", b"this", None)
        assert waiter.stdout.readline() == "this\n"
        assert waiter.wait(10) == 0


def test_the_bell_of_a_dead_process_is_taken_away(place: Store) -> None:
    place.put("b", b"x", None)
    dead = place.directory / "bell-1"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(dead))
    left.close()
    assert dead.exists()
    place.put("b", b"y", None)
    assert not dead.exists()


def test_closing_takes_the_own_bell_away(place: Store) -> None:
    place.wait(place.mark, 0.001, 0.001)
    assert [path for path in place.directory.iterdir() if path.name.startswith("bell-")]
    place.close()
    assert not [path for path in place.directory.iterdir() if path.name.startswith("bell-")]


def test_a_path_too_long_for_a_bell_is_looked_at_now_and_then(tmp_path: Path) -> None:
    place = store_at(tmp_path / ("long" * 40))
    place.put("a", b"x", None)
    before = time.monotonic()
    place.wait(place.mark, 60, 0.01)
    assert time.monotonic() - before < 10
    assert not [path for path in place.directory.iterdir() if path.name.startswith("bell-")]
    place.close()


_WRITER = """
import sys
from pathlib import Path
from channelsq.ipc.store import store_at
store = store_at(Path(sys.argv[1]))
for number in range(200):
    store.put(sys.argv[2], b"%d" % number, None)
"""


def test_several_processes_write_and_read_at_once(place: Store) -> None:
    queues = ["a", "b", "c"]
    place.put("other", b"x", None)
    got: dict[str, list[int]] = {queue: [] for queue in queues}
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(place.directory), queue]) for queue in queues]
    try:
        deadline = time.monotonic() + 60
        while sum(map(len, got.values())) < 600 and time.monotonic() < deadline:
            mark = place.mark
            taken = place.take(queues, set())
            if taken is None:
                place.wait(mark, 1, 0.01)
            else:
                place.remove(taken.id)
                got[taken.queue].append(int(taken.payload))
    finally:
        assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    assert got == {queue: list(range(200)) for queue in queues}
