"""``channelsq.client`` with a real interface server and worker, and with a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from channelsq.client import Client, ClientClosed, ClientTask, QueueFull, TaskFailed, TaskReport, TextChange
from tests.support.live import live_project
from tests.support.peers import Peer
from tests.support.ports import free_port
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.timeout(120)]


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, with a deadline."""
    asyncio.run(asyncio.wait_for(test, 60))


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait in a thread, so that the client goes on."""
    await asyncio.to_thread(wait_until, condition, what, 20.0)


# -- with a real interface server and a real worker


@pytest.fixture(scope="module")
def project(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with live_project(redis_url, tmp_path_factory.mktemp("client")) as project:
        yield project


@pytest.fixture
def client(project: Project) -> Client:
    return Client(f"{project.ws_url}/live/", min_delay=0.01, max_delay=0.1)


async def start(client: Client, name: str, *args: Any) -> ClientTask:
    """Start a task."""
    await client.send({"start": name, "args": args})
    return client.task((await client.receive())["started"])


@pytest.mark.redis
def test_a_task_is_followed_to_its_result(project: Project, client: Client) -> None:
    async def test() -> None:
        async with client:
            task = await start(client, "count", 100, "count-on")
            reports = []
            async for news in task:
                assert isinstance(news, TaskReport)
                reports.append(news)
                if news.done == 50:
                    assert (news.state, news.total, news.text) == ("started", 100, "rows")
                    project.let_go("count-on")
            assert reports[-1] == task.report
            assert reports[-1].has_ended
            assert await task == 100
            assert client.task(task.id) is task
            assert client.task(str(task.ticket)) is task
            assert [news async for news in task] == [task.report]  # what is known, for one who comes late

    run(test())


@pytest.mark.redis
def test_text_is_read_while_the_task_writes(project: Project, client: Client) -> None:
    words = [f"word {number} ✓ 🙂 " for number in range(2000)]

    async def test() -> None:
        async with client:
            task = await start(client, "write", words, "write-on")
            pieces = []
            async for news in task:
                if isinstance(news, TextChange):
                    pieces.append(news.piece)
                    if "word 999 " in news.text:
                        project.let_go("write-on")
            assert "".join(pieces) == task.texts["answer"] == "".join(words)
            assert await task is None

    run(test())


@pytest.mark.redis
def test_a_client_that_comes_later_follows_by_the_ticket(project: Project, client: Client) -> None:
    words = [f"word {number} " for number in range(2000)]

    async def test() -> None:
        async with client:
            task = await start(client, "write", words, "later-on")
            await until(lambda: "word 900 " in task.texts.get("answer", ""), "the first words")
            async with Client(f"{project.ws_url}/live/") as other:
                same = other.task(str(task.ticket))
                await until(lambda: "word 900 " in same.texts.get("answer", ""), "the first words")
                project.let_go("later-on")
                assert await same is None
                assert same.texts == {"answer": "".join(words)}

    run(test())


@pytest.mark.redis
def test_failures_and_cancelled_tasks_raise(project: Project, client: Client) -> None:
    async def test() -> None:
        async with client:
            with pytest.raises(TaskFailed, match="Row 7 has no date") as failed:
                await (await start(client, "fail", "secret", "Row 7 has no date."))
            assert failed.value.state == "failure"
            task = await start(client, "endless", "client-cancels")
            await until(lambda: project.recorded("client-cancels"), "the begin")
            assert await task.cancel() is True
            with pytest.raises(TaskFailed) as failed:
                await task
            assert failed.value.state == "revoked"
            assert await task.cancel() is False
            with pytest.raises(TaskFailed, match="ticket") as failed:
                await client.task("forged:default:c~x")
            assert failed.value.state == "refused"

    run(test())


@pytest.mark.redis
def test_a_task_outlives_the_interface_server(project: Project, client: Client) -> None:
    words = [f"word {number} " for number in range(2000)]

    async def test() -> None:
        reconnected = asyncio.Event()
        client.on_reconnect = reconnected.set
        async with client:
            task = await start(client, "write", words, "outlive-on")
            await until(lambda: "word 900 " in task.texts.get("answer", ""), "the first words")
            assert await asyncio.to_thread(project.interface.terminate) == 0
            await until(lambda: client.retries > 1, "attempts")
            await client.send({"join": "those-who-wait"})
            assert client.queued == 1
            project.let_go("outlive-on")  # the rest is written while there is no server
            await asyncio.to_thread(project.start_interface)
            await reconnected.wait()
            assert await client.receive() == {"joined": "those-who-wait"}
            assert await task is None
            assert task.texts == {"answer": "".join(words)}

    run(test())


# -- with a server of the test's own


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    peer.start()
    yield peer
    peer.stop()


def test_streams_json_and_bytes(peer: Peer) -> None:
    async def test() -> None:
        async with Client(peer.url, max_inbox=3) as client:
            cards = client.stream("cards")
            await cards.send({"action": "delete", "pk": 7})
            await client.send(["ä", None])
            await client.send(b"\0\1")
            expected = ['{"stream":"cards","payload":{"action":"delete","pk":7}}', '["ä",null]', b"\0\1"]
            await until(lambda: peer.received == expected, "what was sent")
            socket = peer.socket()
            for frame in ('{"stream":"cards","payload":1}', '{"stream":"others","payload":2}', "no json", b"\2", "7"):
                socket.send(frame)
            assert await cards.receive() == 1
            received = [await client.receive() for _ in range(3)]
            assert received == [{"stream": "others", "payload": 2}, b"\2", 7]
            for number in range(5):
                socket.send(json.dumps(number))
            socket.send('{"stream":"cards","payload":"last"}')
            assert await cards.receive() == "last"
            assert client.dropped == 2
            await asyncio.to_thread(socket.close, 1000)
            assert [content async for content in client] == [2, 3, 4]
            with pytest.raises(ClientClosed):
                await client.send("late")
            with pytest.raises(ClientClosed):
                await client.task("a:t")

    run(test())


def test_messages_wait_in_order_and_their_number_is_bounded(peer: Peer) -> None:
    async def test() -> None:
        client = Client(peer.url, min_delay=0.01, max_delay=0.02, max_queue=2)
        await client.send(1)
        await client.send(2)
        with pytest.raises(QueueFull):
            await client.send(3)
        async with client:
            await client.send(4)
            await until(lambda: peer.received == ["1", "2", "4"], "all of them")

    run(test())


def test_it_stays_away_after_a_code_that_says_so(peer: Peer) -> None:
    async def test() -> None:
        async with Client(peer.url, min_delay=0.01, max_delay=0.02) as client:
            await asyncio.to_thread(peer.socket().close, 1012)
            await until(lambda: len(peer.sockets) == 2, "another connection")
            task = client.task("a:t")
            await asyncio.to_thread(peer.socket(1).close, 1008, "go away")
            with pytest.raises(ClientClosed, match="go away") as closed:
                await task
            assert closed.value.code == 1008
            with pytest.raises(ClientClosed):
                async for _ in client:
                    pass
            assert client.state == "closed"
        assert len(peer.sockets) == 2

    run(test())


def test_a_refused_handshake_and_the_last_attempt_end_it(peer: Peer) -> None:
    async def test() -> None:
        peer.refuse = True
        with pytest.raises(ClientClosed, match="403") as refused:
            await Client(peer.url).connect()
        assert isinstance(refused.value.__cause__, InvalidStatus)
        with pytest.raises(ClientClosed, match="after 3 attempts") as away:
            await Client(f"ws://127.0.0.1:{free_port()}/", min_delay=0.01, max_retries=2).connect()
        assert isinstance(away.value.__cause__, OSError)
        with pytest.raises(ClientClosed):
            await Client("http://127.0.0.1/").connect()

    run(test())


def test_each_attempt_has_its_url_and_token(peer: Peer) -> None:
    async def test() -> None:
        tokens = iter(["", "abc"])
        numbers = iter(range(9))

        async def token() -> str:
            return next(tokens)

        async with Client(lambda: f"{peer.url}?{next(numbers)}", min_delay=0.01, token=token):
            await asyncio.to_thread(peer.socket().close, 1012)
            await until(lambda: len(peer.sockets) == 2, "another connection")
        requests = [socket.request for socket in peer.sockets]
        assert [request and request.path for request in requests] == ["/?0", "/?1"]
        offered = [request.headers.get("Sec-WebSocket-Protocol") for request in requests if request]
        assert offered == [None, "channelsq, channelsq.token.abc"]

    run(test())


def test_tasks_are_watched_again_in_frames_of_fifty(peer: Peer) -> None:
    tickets = [f"t{number}:x" for number in range(70)]

    async def test() -> None:
        seen: list[ClientTask] = []
        client = Client(peer.url, min_delay=0.01, max_delay=0.02)
        client.on_task = seen.append
        for ticket in tickets:
            client.task(ticket)
        async with client:
            frames = [{"watch": tickets[:50]}, {"watch": tickets[50:]}]
            await until(lambda: [json.loads(each)["payload"] for each in peer.received] == frames, "the requests")
            first = {"id": "t0", "n": 1, "state": "success", "done": 1, "total": 1, "result": [1], "ticket": "t0:x"}
            other = {"id": "other", "n": 0, "state": "waiting", "done": 0, "total": None, "ticket": "other:x"}
            for payload in (first, other):
                peer.socket().send(json.dumps({"stream": "channelsq.task", "payload": payload}))
            assert await client.task("t0") == [1]
            await until(lambda: seen, "the task of another")
            assert client.task("other") is seen[0]
            await asyncio.to_thread(peer.socket().close, 1012)
            again = [{"watch": tickets[1:51]}, {"watch": [*tickets[51:], "other:x"]}]
            await until(lambda: [json.loads(each)["payload"] for each in peer.received[2:]] == again, "the requests")
            assert str(peer.received[0]).startswith('{"stream":"channelsq.task","payload":{"watch":["t0:x","t1:x"')

    run(test())
