"""The benchmarks' load client counts exactly: what is wrong, doubled or missing is a failure, not a number."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks import client, frames, httpload, peers, services
from benchmarks.__main__ import PARTS, parser
from benchmarks.client import Load
from benchmarks.consumers import on_broker
from benchmarks.frames import CLOSE, PING, PONG, TEXT, WrongAnswer, client_frame, server_frame, take_frame
from benchmarks.programs import free_port
from benchmarks.results import Results
from benchmarks.services import Unavailable
from benchmarks.sites.tasks import answer
from benchmarks.targets import TARGETS, Target
from benchmarks.taskload import TaskLoad
from benchmarks.tasks import IDLE, STOCK, named
from benchmarks.windows import percentile

PIDS = [os.getpid()]

#: What a server writes for the n-th frame that it was sent.
Answers = Callable[[int, bytes], bytes]


@asynccontextmanager
async def serving(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A server whose connections end with it; gives its port."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            for writer in writers:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


@asynccontextmanager
async def websockets(answers: Answers) -> AsyncIterator[int]:
    """A server that accepts every handshake."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: " + frames.ACCEPT + b"\r\n\r\n")
        while head := await reader.read(2):
            mask = await reader.readexactly(4)
            masked = await reader.readexactly(head[1] & 0x7F)
            payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(masked))
            if head[0] & 0x0F == CLOSE:
                writer.write(server_frame(payload, CLOSE))
                return
            if head[0] & 0x0F == PONG:
                continue
            count += 1
            writer.write(answers(count, payload))

    async with serving(serve) as port:
        yield port


@asynccontextmanager
async def loaded(answers: Answers, sockets: int) -> AsyncIterator[Load]:
    """Open sockets to such a server."""
    async with websockets(answers) as port:
        load = Load()
        try:
            await load.open(port, "/", sockets)
            yield load
        finally:
            load.end()


def echo(answers: Answers, sockets: int = 3) -> dict[str, float]:
    """Echo for a moment against such a server."""

    async def measure() -> dict[str, float]:
        async with loaded(answers, sockets) as load:
            told = await load.echo(0.01, 0.05, PIDS)
            await load.close()
            return told

    return asyncio.run(measure())


def test_an_exact_echo_is_counted() -> None:
    told = echo(lambda n, text: server_frame(text))
    assert told["count"] > 3
    assert 0 < told["p50"] <= told["p99"]


def test_pings_do_not_count() -> None:
    told = echo(lambda n, text: server_frame(b"", PING) + server_frame(text) if n % 2 else server_frame(text))
    assert told["count"] > 3


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param(lambda n, text: server_frame(text if n < 9 else text[::-1]), "heard", id="wrong"),
        pytest.param(lambda n, text: server_frame(text) * (2 if n == 9 else 1), "heard", id="doubled"),
        pytest.param(lambda n, text: server_frame(text) if n < 9 else b"\x01\x01x", "must not", id="fragment"),
        pytest.param(lambda n, text: server_frame(b"\x03\xf0bye", CLOSE), "closed with 1008", id="closed"),
        pytest.param(lambda n, text: server_frame(text) if n != 9 else b"", "1 echoes did not come", id="missing"),
    ],
)
def test_what_is_not_exact_fails(answers: Answers, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.2)
    with pytest.raises(WrongAnswer, match=said):
        echo(answers)


def test_a_broadcast_must_reach_every_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.2)

    async def measure() -> None:
        async with loaded(lambda n, text: server_frame(text), 3) as load:  # the sender alone hears it
            await load.fan("room", 0, 0, PIDS)

    with pytest.raises(WrongAnswer, match="2 of 3 members heard nothing"):
        asyncio.run(measure())


def test_sockets_that_are_set_aside_are_left_alone_and_counted_when_they_are_back() -> None:
    heard: list[bytes] = []

    def answer(n: int, text: bytes) -> bytes:
        heard.append(text)
        return server_frame(text)

    async def measure() -> dict[str, float]:
        async with websockets(answer) as port:
            load = Load()
            try:
                await load.open(port, "/", 2)
                await load.set_aside()
                await load.open(port, "/", 1)
                told = await load.pace(0.02, 0.01, 0.2, PIDS)
                assert {text[:6] for text in heard} == {b"000000"}
                await load.bring_back()
                await load.echo_once()
                assert {text[:6] for text in heard} == {b"000000", b"000001", b"000002"}
                await load.close()
                return told
            finally:
                load.end()

    told = asyncio.run(measure())
    assert 0 < told["rate"] < 60  # one every 0.02 s, however quickly the echo comes


def test_an_idle_socket_that_hears_something_fails() -> None:
    async def measure() -> None:
        async with loaded(lambda n, text: server_frame(text) * n, 1) as load:
            await load.set_aside()
            load.idle[0].write(client_frame(b"x"))
            await load.hold(5)

    with pytest.raises(WrongAnswer, match="heard b'x' and not b''"):
        asyncio.run(measure())


def test_a_refused_handshake_fails() -> None:
    with pytest.raises(WrongAnswer, match="503"):
        frames.check_handshake(b"HTTP/1.1 503 Service Unavailable", deflate=False)
    with pytest.raises(WrongAnswer, match="not negotiated"):
        frames.check_handshake(b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: " + frames.ACCEPT, deflate=True)


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_frames_of_every_length_are_taken_whole(length: int) -> None:
    frame = server_frame(b"x" * length)
    assert take_frame(bytearray(frame[:-1]), deflate=False) is None
    buffer = bytearray(frame + b"rest")
    assert take_frame(buffer, deflate=False) == (TEXT, b"x" * length)
    assert buffer == b"rest"


def test_a_compressed_frame_is_a_masked_one_that_unpacks() -> None:
    frame = client_frame(b"text" * 20, deflate=True)
    mask, masked = frame[2:6], frame[6:]
    plain = bytes(byte ^ mask[n % 4] for n, byte in enumerate(masked))
    buffer = bytearray(bytes((frame[0], len(plain))) + plain)
    assert take_frame(buffer, deflate=True) == (TEXT, b"text" * 20)


@pytest.mark.parametrize(
    ("page", "right"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhallo", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhellohello", False),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nhello", False),
    ],
)
def test_every_page_is_compared(page: bytes, right: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(page)

    async def measure() -> dict[str, float]:
        async with serving(serve) as port:
            return await httpload.requests(port, "/", b"hello", 3, 0.01, 0.05, PIDS)

    if right:
        assert asyncio.run(measure())["count"] > 3
    else:
        with pytest.raises(WrongAnswer, match="not the right one"):
            asyncio.run(measure())


def test_percentiles() -> None:
    values = list(range(1, 101))
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7], 0.99)) == (51, 100, 7)


def test_targets_compare_medians() -> None:
    results = Results()
    for rate in (300.0, 800.0, 700.0):
        results.add("brokers", "100 sockets", on_broker("streams"), "messages/s", rate)
        results.add("brokers", "100 sockets", "Channels 4, sync consumer", "messages/s", 100.0)
    assert TARGETS[0].row(results)[2:] == ["7 x", "met"]
    assert TARGETS[1].row(results)[2:] == ["not measured", ""]


def test_a_row_that_could_not_be_measured_says_why() -> None:
    results = Results(missing={"RabbitMQ": "no RabbitMQ: connection refused"})
    rows = [target.row(results) for target in TARGETS if target.needs == "RabbitMQ"]
    assert rows
    assert {(*row[2:],) for row in rows} == {("not measured", "no RabbitMQ: connection refused")}


def test_a_target_without_a_limit_is_only_told() -> None:
    target = Target("what", None, True, "x", lambda results: 1.5)
    assert target.row(Results()) == ["what", "", "1.5 x", ""]


class Answering:
    """A task that runs at once, in place, and answers as often as it is told to."""

    def __init__(self, answers: Callable[[int], int]) -> None:
        self.answers = answers

    def delay(self, port: int, number: int) -> None:
        for _ in range(self.answers(number)):
            answer(port, number)


def test_tasks_are_counted() -> None:
    with contextlib.closing(TaskLoad(Answering(lambda number: 1))) as load:
        assert load.once()["latency"] > 0
        told = load.load(width=4, warm=0.01, seconds=0.05)
        assert told["count"] > 3
        assert not load.begun


@pytest.mark.parametrize(
    ("times", "said"),
    [pytest.param(2, "answered twice", id="doubled"), pytest.param(0, "1 tasks did not answer", id="missing")],
)
def test_a_task_that_does_not_answer_once_fails(times: int, said: str) -> None:
    with contextlib.closing(TaskLoad(Answering(lambda number: times if number == 9 else 1))) as load:
        load.socket.settimeout(0.2)
        with pytest.raises(WrongAnswer, match=said):
            load.load(width=1, warm=0, seconds=0.3)


def test_a_difference_is_of_medians() -> None:
    results = Results()
    results.add("idle", IDLE, named("threads"), "MB", 90.0)
    results.add("idle", IDLE, named("threads", STOCK), "MB", 70.0)
    rows = [target.row(results) for target in TARGETS]
    assert [row[2:] for row in rows if row[2] != "not measured"] == [["20 MB", "met"]]


def test_an_absent_postgres_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PYTHON", sys.executable)
    monkeypatch.setenv("BENCH_POSTGRES", f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(Unavailable, match=r"no PostgreSQL: .+BENCH_POSTGRES"):
        services.postgres()


def test_an_absent_rabbitmq_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RABBITMQ", f"amqp://guest:guest@127.0.0.1:{free_port()}//")
    with pytest.raises(Unavailable, match=r"no RabbitMQ: .+refused"):
        services.Vhost()


def test_an_option_that_the_worker_does_not_know_is_told() -> None:
    services.worker_option("--concurrency")
    with pytest.raises(Unavailable, match=r"no --channel-nonsense: .*No such option"):
        services.worker_option("--channel-nonsense")


@pytest.mark.parametrize(("given", "brokers"), [("redis", ("redis",)), ("amqp,streams", ("amqp", "streams"))])
def test_brokers_are_chosen_by_name(given: str, brokers: tuple[str, ...]) -> None:
    assert parser().parse_args(["--celery-broker", given]).celery_broker == brokers


def test_an_unknown_broker_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--celery-broker", "sqs"])
    assert "no broker sqs; there are streams, redis, amqp" in capsys.readouterr().err


def test_the_readme_names_every_part_and_option() -> None:
    from tests.support.processes import ROOT

    text = (ROOT / "benchmarks" / "README.md").read_text()
    for part in PARTS:
        assert f"`{part}`" in text
    for action in parser()._actions:
        for flag in action.option_strings:
            assert flag in {"-h", "--help"} or flag in text, flag
