"""A channel's message that kills its workers: its socket goes on, and `manage.py deadletters` shows it."""

from __future__ import annotations

import io
import json
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.core.management import CommandError, call_command
from django.test import override_settings
from websockets.sync.client import connect

from channelsq import Channel, conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.layers import RedisChannelLayer
from channelsq.layers.wire import codec
from channelsq.redis_core.compact import encode_compact
from channelsq.redis_core.entries import DEAD_PREFIX
from channelsq.redis_core.operations import ask
from channelsq.transport.dead_letter_store import DeadLetter, DeadLetters
from tests.support.layers import installed
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis


@pytest.mark.ways("prefork")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_socket_goes_on_after_a_message_that_kills(redis_url: str, tmp_path: Path, pool: str) -> None:
    url = redis_url.replace("redis:", "redis-streams:").rsplit("/", 1)[0] + "/5"
    project = Project(tmp_path, url, {"TEST_VISIBILITY": "1", "TEST_DEATHS": "2"})
    try:
        project.start_interface("--order-timeout", "300")
        options = ("-P", pool, "-c", "2", "-Q", "websocket.connect,websocket.receive,websocket.disconnect")
        project.start_worker(*options)
        with connect(f"{project.ws_url}/deadly/", compression=None) as socket:
            socket.send("before")
            assert socket.recv(timeout=15) == "before"
            socket.send("kill")
            socket.send("after")
            if pool != "prefork":  # there only a channel process ends
                project.worker.wait()
                project.start_worker(*options, waits=False)  # a source reads before its worker is ready
                project.worker.wait()
                project.start_worker(*options)
            assert socket.recv(timeout=30) == "after"
        killed = [line for line in project.recorded("deadly") if line.startswith("kill ")]
        assert len(killed) == 2
        assert len(set(killed)) == 1  # the same id each time
        with Celery(broker=url, set_as_current=False) as app, app.connection_for_write() as connection:
            letters = DeadLetters(connection)
            (letter,) = letters.all("websocket.receive")
            assert killed == [f"kill {letter.task_id}"] * 2
            assert letter.id in project.processes.manage("deadletters", env=project.env)
            assert letters.delete(letter)
    finally:
        project.stop()


@pytest.mark.timeout(120)
def test_what_its_process_held_besides_is_not_buried(redis_url: str, tmp_path: Path) -> None:
    """A channel process holds several messages at once, and dies with all of them."""
    url = redis_url.replace("redis:", "redis-streams:").rsplit("/", 1)[0] + "/8"
    layer = ChannelLayerWrapper(RedisChannelLayer(url=url, capacity=1000), "default", [])
    project = Project(tmp_path, url, {"TEST_FAST": "1", "TEST_DEATHS": "2", "TEST_VISIBILITY": "30"})

    def send(numbers: range, killer: int = -1) -> None:
        channel = Channel("kills", channel_layer=layer)
        layer.dispatch([channel.prepare({"number": number, "kill": number == killer}) for number in numbers])

    try:
        worker = project.new_worker("-P", "prefork", "-c", "1", "-Q", "kills")
        send(range(300))  # by which it learns to ask for many
        wait_until(lambda: len(project.recorded("kills")) == 300, "the first ones")
        send(range(300, 400), killer=350)
        worker.wait_for_output("it is a dead letter now", timeout=60)
        wait_until(lambda: len(set(project.recorded("kills"))) == 400, "the others")
        assert project.recorded("kills").count("350") == 2
        with Celery(broker=url, set_as_current=False) as app, app.connection_for_write() as connection:
            letters = DeadLetters(connection)
            (letter,) = letters.all()
            assert letters.delete(letter)
    finally:
        layer.close()
        project.stop()


# -- manage.py deadletters ----------------------------------------------------------------------------

Run = Callable[..., str]


@pytest.fixture
def app(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The project's Celery app, with dead letters of its own."""
    options = {"global_keyprefix": f"{secrets.token_hex(4)}:"}
    broker = redis_url.replace("redis:", "redis-streams:")
    with Celery("dead", broker=broker, set_as_current=False, broker_transport_options=options) as app:
        monkeypatch.setattr(conf, "_celery_app", app)
        yield app


@pytest.fixture
def letters(app: Celery) -> Iterator[DeadLetters]:
    with app.connection_for_write() as connection:
        yield DeadLetters(connection)
        for letter in (dead := DeadLetters(connection)).all():
            dead.delete(letter)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> str:
        out = io.StringIO()
        call_command("deadletters", *args, stdout=out, stderr=out)
        return out.getvalue()

    return run


def bury(letters: DeadLetters, queue: str, data: bytes, identity: str = "*") -> DeadLetter:
    """Put a message among the dead letters, as a channel does."""
    channel: Any = letters._channel
    key = channel.streams.prefix + DEAD_PREFIX + queue
    fields = ("m", data, "s", queue, "d", 5, "r", "WorkerLostError: signal 9")
    channel.carry_out(ask(("XADD", key, identity, *fields)))
    return list(letters.all(queue))[-1]


def message(channel: str, identity: str = "id-1", **content: Any) -> bytes:
    """A channel's message in the short form."""
    return encode_compact(channel, identity, codec.dumps([[channel, content], {}, {}]), 60_000)


def task(name: str) -> bytes:
    """A task's message as Celery writes it."""
    return codec.dumps(
        {
            "body": json.dumps([[1, 2], {"x": 3}, {}]).encode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": name, "id": "id-2"},
            "properties": {"delivery_info": {"exchange": "", "routing_key": "celery"}},
        }
    )


def test_list(letters: DeadLetters, run: Run) -> None:
    assert run() == "no dead letters\n"
    first = bury(letters, "websocket.receive", message("websocket.receive", text="secret", path="/a/"))
    second = bury(letters, "celery", task("shop.tasks.pay"))
    head, *rows = run("list").splitlines()
    assert head.split() == ["ID", "CHANNEL", "WHEN", "DEATHS", "KEYS"]
    assert [row.split()[0] for row in rows] == [second.id, first.id]
    assert rows[0].endswith("5       (task shop.tasks.pay)")
    assert rows[1].endswith("5       path, text")
    assert "secret" not in run()
    assert [row.split()[0] for row in run("--queue", "celery").splitlines()[1:]] == [second.id]
    assert run("--queue", "nothing") == "no dead letters\n"


def test_show(letters: DeadLetters, run: Run) -> None:
    letter = bury(letters, "tick", message("tick", text="x" * 5000, n=1, data=b"\x00"))
    shown = run("show", letter.id)
    assert "message id: id-1\n" in shown
    assert "reason:     WorkerLostError: signal 9\n" in shown
    assert "  n: 1\n" in shown
    assert "  data: b'\\x00'\n" in shown
    assert "... (4002 characters more)" in shown
    assert "  args: [1, 2]\n" in run("show", bury(letters, "celery", task("shop.tasks.pay")).id)


def test_show_of_a_layer_with_a_prefix(letters: DeadLetters, run: Run) -> None:
    body = codec.dumps([["tick", {"n": 1}], {}, {}])
    letter = bury(letters, "mysite:tick", encode_compact("mysite:tick", "id-1", body, 60_000))
    assert "  n: 1\n" in run("show", letter.id)
    assert re.search(r"mysite:tick .* n$", run("list"), re.MULTILINE)


def test_show_what_cannot_be_read(letters: DeadLetters, run: Run) -> None:
    pickled = task("shop.tasks.pay").replace(b"application/json", b"application/xxxx")
    assert "cannot be read: " in run("show", bury(letters, "celery", pickled).id)
    assert "cannot be read: " in run()
    broken = encode_compact("tick", "id", b"\xc1", None)
    assert "cannot be read: " in run("show", bury(letters, "tick", broken).id)
    assert "is no Celery task's" in run("show", bury(letters, "reply", encode_compact(None, None, b"\x90", None)).id)


def test_replay_and_delete(letters: DeadLetters, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [bury(letters, "tick", message("tick", f"id-{n}")) for n in range(5)]
    other = bury(letters, "other", message("other"), "1700000000000-0")  # ids of one moment may be alike
    assert run("replay", found[0].id) == f"replayed {found[0].id} of tick\n"
    assert run("replay", found[1].id, found[2].id).endswith("2 dead letters replayed\n")
    channel: Any = letters._channel
    assert [channel.basic_get("tick").headers["id"] for _ in range(3)] == ["id-0", "id-1", "id-2"]
    assert run("delete", found[3].id) == f"deleted {found[3].id} of tick\n"
    for answer, left in (("no", 2), ("yes", 1)):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        run("delete", "--all", "--queue", "tick")
        assert len(list(letters.all())) == left
    assert list(letters.all()) == [other]
    assert run("replay", "--all") == f"replayed {other.id} of other\n"
    assert run("delete", "--all", "--noinput") == "0 dead letters deleted\n"
    channel.queue_purge("other")


def test_one_id_in_two_channels(letters: DeadLetters, run: Run) -> None:
    for channel in ("tick", "other"):
        bury(letters, channel, message(channel), "1700000000000-0")
    with pytest.raises(CommandError, match=r"of several channels \(other, tick\); add --queue"):
        run("show", "1700000000000-0")
    assert "channel:    tick" in run("show", "1700000000000-0", "--queue", "tick")


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("list", "1-1"), "list takes no ID"),
        (("list", "--all"), "list takes no ID and no --all"),
        (("show",), "show takes one ID"),
        (("show", "1-1", "1-2"), "show takes one ID"),
        (("replay",), "replay takes either IDs.* or --all"),
        (("delete", "1-1", "--all"), "delete takes either IDs.* or --all"),
        (("show", "1-1"), "there is no dead letter '1-1'; `manage.py deadletters` lists"),
        (("replay", "x", "--queue", "tick"), "there is no dead letter 'x' of tick"),
        (("bury",), "invalid choice: 'bury'"),
    ],
)
def test_wrong_arguments(letters: DeadLetters, run: Run, args: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        run(*args)


@pytest.mark.parametrize(
    ("broker", "problem"),
    [
        ("memory://", "memory://.* keeps no dead letters; they are for brokers on redis-streams://"),
        ("amqp://guest:secret@127.0.0.1/", r"amqp://guest:\*\*@127.0.0.1.* keeps no dead letters"),
        ("redis-streams://:secret@127.0.0.1:1/0", "does not answer: .*refused"),
    ],
)
@pytest.mark.timeout(timedelta(seconds=20).total_seconds())
def test_brokers_without(run: Run, monkeypatch: pytest.MonkeyPatch, broker: str, problem: str) -> None:
    with Celery("none", broker=broker, set_as_current=False) as app:
        monkeypatch.setattr(conf, "_celery_app", app)
        with pytest.raises(CommandError, match=problem) as caught:
            run()
    assert "secret" not in str(caught.value)


def test_letters_of_a_layer_that_is_not_on_celerys_broker(
    run: Run, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, queue = redis_url.replace("redis:", "redis-streams:"), f"tick-{secrets.token_hex(4)}"
    layers = {
        "default": {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": {"url": url}, "ROUTING": []},
        "memory": {"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": []},
    }
    with (
        Celery("tasks", broker="memory://", set_as_current=False) as app,
        override_settings(CHANNEL_LAYERS=layers),
        installed(None),
    ):
        monkeypatch.setattr(conf, "_celery_app", app)
        with channel_layers["default"].channel_layer.open_connection() as connection:  # type: ignore[attr-defined]
            letters = DeadLetters(connection)
            letter = bury(letters, queue, encode_compact(queue, "an id", codec.dumps([[queue, {}], {}, {}]), None))
            try:
                assert letter.id in run("--queue", queue)
                assert letter.id in run("--queue", queue, "--layer", "default")
            finally:
                letters.delete(letter)
        with pytest.raises(CommandError, match="'memory' is on no broker"):
            run("--layer", "memory")
        with pytest.raises(CommandError, match="'nowhere'"):
            run("--layer", "nowhere")
