"""The line between a worker and a channel process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from channelsq.worker.sources.pipe import Pipe


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_messages_go_both_ways(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = map(Pipe, ends)
    assert one.send(ask="active", number=1)
    assert one.send(stop="warm")
    asked = other.messages()
    assert next(asked) == {"ask": "active", "number": 1}
    assert next(asked) == {"stop": "warm"}
    assert other.send(answer=1, value=["ä", None, {"n": 1.5}])
    assert next(one.messages()) == {"answer": 1, "value": ["ä", None, {"n": 1.5}]}


def test_what_json_does_not_know_is_sent_as_text(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = map(Pipe, ends)
    assert one.send(value={"body": b"bytes"})
    assert next(other.messages()) == {"value": {"body": "b'bytes'"}}


def test_messages_of_many_threads_are_not_mixed(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = map(Pipe, ends)
    threads = [
        threading.Thread(target=lambda n=n: [one.send(thread=n, number=i, text="x" * 5000) for i in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    incoming = other.messages()
    found = [next(incoming) for _ in range(200)]
    for thread in threads:
        thread.join()
    for n in range(4):
        assert [message["number"] for message in found if message["thread"] == n] == list(range(50))


@pytest.mark.parametrize("rest", [b"", b'{"stop": "wa'], ids=["between two", "in the middle of one"])
def test_a_line_that_is_cut(ends: tuple[socket.socket, socket.socket], rest: bytes) -> None:
    one, other = ends
    one.sendall(b'{"ask": "active"}\n' + rest)
    one.close()
    assert list(Pipe(other).messages()) == [{"ask": "active"}]
    assert Pipe(other).send(answer=1) is False
