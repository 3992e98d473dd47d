"""The line between a worker and a channel process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from channelsq.worker.processes.pipe import MOST, PatientPipe, Pipe
from tests.support.waiting import wait_until


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


@pytest.fixture
def patient(ends: tuple[socket.socket, socket.socket]) -> Iterator[PatientPipe]:
    pipe = PatientPipe(ends[0])
    yield pipe
    pipe.close()


def test_an_end_that_does_not_read_holds_nobody_up(
    patient: PatientPipe, ends: tuple[socket.socket, socket.socket]
) -> None:
    sent = [patient.send(number=number, text="x" * 5000) for number in range(2 * MOST)]
    number = sent.index(False)
    assert number >= MOST
    incoming = Pipe(ends[1]).messages()
    assert [next(incoming)["number"] for _ in range(number)] == list(range(number))


def test_an_end_that_is_gone_is_noticed(patient: PatientPipe, ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].close()
    wait_until(lambda: not patient.send(stop="warm"), "the other end to be missed")


@pytest.mark.parametrize("sends", [False, True], ids=["idle", "sending"])
def test_a_patient_end_that_is_closed_ends_its_thread(ends: tuple[socket.socket, socket.socket], sends: bool) -> None:
    before = set(threading.enumerate())
    pipe = PatientPipe(ends[0])
    while sends and pipe.send(text="x" * 5000):
        pass
    (thread,) = set(threading.enumerate()) - before
    pipe.close()
    thread.join(10)
    assert not thread.is_alive()
