"""The layer of one machine on a file system without space: filled by the site itself, or by another program."""

from __future__ import annotations

import contextlib
import itertools
import signal
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from channelsq.exceptions import BrokerUnavailable
from channelsq.ipc.messages import Key, Transaction
from channelsq.layers import IPCChannelLayer
from tests.support.processes import Process
from tests.support.sites import Site, ask, socket_on
from tests.support.small_disks import SmallDisk, small_disk
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

IPC = "channelsq.layers.IPCChannelLayer"
FULL = r"{0}/queues.sqlite3: database or disk is full; make room on the file system of {0} \(0 MB .*\['path'\]"


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(request, folder, 3) as made:
        yield made


@pytest.fixture
def layer(disk: SmallDisk) -> Iterator[IPCChannelLayer]:
    made = IPCChannelLayer(path=disk.folder / "ipc", capacity=100_000)
    yield made
    made.close()


def content(number: int, size: int) -> dict[str, Any]:
    return {"number": number, "padding": bytes([number % 251]) * size}


def fill(layer: IPCChannelLayer, disk: SmallDisk, size: int, channel: str = "work") -> int:
    """Send until the layer refuses; return the number of sent messages."""
    for number in itertools.count():
        try:
            layer.send(channel, content(number, size))
        except BrokerUnavailable as error:
            with pytest.raises(BrokerUnavailable, match=FULL.format(disk.folder / "ipc")):
                raise error from None
            return number
    raise AssertionError


def freeze(worker: Process, layer: IPCChannelLayer) -> None:
    """Stop a process at a moment at which it does not write."""

    def is_frozen() -> bool:
        worker.signal(signal.SIGSTOP)
        try:
            layer.store.database.write(lambda connection: None, 0.1)
        except sqlite3.OperationalError:
            worker.signal(signal.SIGCONT)
            return False
        return True

    wait_until(is_frozen, "a worker that does not write")


def removed(keys: list[Key], tx: Transaction) -> int:
    return tx.remove(keys)


def is_whole(disk: SmallDisk) -> bool:
    with contextlib.closing(sqlite3.connect(disk.folder / "ipc" / "queues.sqlite3", timeout=10)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
        return bool(found == "ok")


@pytest.mark.parametrize("size", [100, 1000, 20_000])
def test_a_site_that_fills_it_reads_all_that_it_accepted(layer: IPCChannelLayer, disk: SmallDisk, size: int) -> None:
    for _ in range(2):  # with the space that the first messages leave
        sent = fill(layer, disk, size)
        assert layer.depth("work") == sent
        assert sent * (size + 40) > 500_000  # its space is for messages, and not for the log
        # As a worker: taken, held, and acknowledged, some in a transaction.
        done = 0
        while taken := layer.store.take([layer.queue("work").name], 10):
            done += layer.store.write(partial(removed, [each.key for each in taken]))
            if done >= sent // 2:
                break
        for number in range(done, sent):
            assert layer.receive(["work"])[1] == content(number, size)
        assert layer.depth("work") == 0
    assert is_whole(disk)


def test_another_program_that_fills_it_stops_senders_and_not_readers(layer: IPCChannelLayer, disk: SmallDisk) -> None:
    for number in range(200):
        layer.send("work", content(number, 1000))
    disk.fill()
    layer.store.sweep(now=True)  # as the site's processes do every second
    others = fill(layer, disk, 1000, "other")
    assert others < 100  # in what was free in the file
    store, queue = layer.store, layer.queue("work").name
    for _ in range(100):
        (taken,) = store.take([queue], 1)
        store.remove(taken.key)
    for number in range(100, 200):
        assert layer.receive(["work"])[1] == content(number, 1000)
    for number in range(others):
        assert layer.receive(["other"])[1] == content(number, 1000)
    disk.make_room()
    layer.send("work", content(1, 1000))
    assert layer.receive(["work"])[1] == content(1, 1000)
    assert is_whole(disk)


def test_a_site_answers_what_it_accepted_and_goes_on_when_there_is_room(disk: SmallDisk, tmp_path: Path) -> None:
    layers = {
        "default": {"BACKEND": IPC, "CONFIG": {"path": str(disk.folder / "ipc")}},
        "other": {"BACKEND": "channelsq.layers.InMemoryChannelLayer"},
    }
    site = Site(layers, tmp_path / "logs", TEST_MARKS=str(tmp_path))
    layer = IPCChannelLayer(path=disk.folder / "ipc", capacity=100_000, expiry=600)
    try:
        _, url = site.interface()
        ready = url.replace("ws:", "http:") + "-/health/ready"
        worker = site.worker("-P", "threads")
        told = f"default default {worker.pid}"
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket_on(url)) for _ in range(20)]
            assert {ask(each, "where") for each in sockets} == {told}
            freeze(worker, layer)
            for each in sockets:
                each.send("where")
            wait_until(lambda: layer.depth("websocket.receive") == 20, "the messages")
            disk.fill()
            fill(layer, disk, 1000)
            worker.signal(signal.SIGCONT)
            assert {str(each.recv(timeout=30)) for each in sockets} == {told}
            wait_until(lambda: layer.channel_state("websocket.receive").held == 0, "the acknowledgements", 20)

            freeze(worker, layer)
            for size in (1000, 0):
                fill(layer, disk, size)  # where the answered messages were
            wait_until(lambda: httpx.get(ready, trust_env=False).status_code == 503, "a server that says so", 20)
            for each in sockets:  # these wait in the interface server
                each.send("where")
            disk.make_room()
            worker.signal(signal.SIGCONT)
            assert {str(each.recv(timeout=30)) for each in sockets} == {told}
            wait_until(lambda: httpx.get(ready, trust_env=False).status_code == 200, "a ready server", 20)
        layer.send("work", {"padding": b"x" * 1000})
        assert is_whole(disk)
    finally:
        worker.signal(signal.SIGCONT)
        layer.close()
        site.processes.stop()
