from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channelsq.client import ClientClosed, TaskFailed, TaskReport, TextChange
from channelsq.client.client_tasks import ClientTask, ClientTasks, Request


class Known:
    """The tasks of a client, and what was asked of the server."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, str]] = []
        self.tasks = ClientTasks(lambda request, ticket: self.asked.append((request, ticket)))

    def hear(self, **payload: Any) -> ClientTask | None:
        return self.tasks.receive({"id": "a", **payload})

    def piece(self, at: int, text: str, **more: Any) -> None:
        self.hear(stream="answer", run="r1", at=at, piece=text, **more)

    def state(self, number: int, state: str = "started", **more: Any) -> None:
        self.hear(n=number, state=state, done=0, total=None, **more)


def test_a_gap_is_asked_for_once() -> None:
    known = Known()
    task = known.tasks.get("a:t")
    known.piece(0, "one ", begin=True)
    known.state(1, ticket="a:t")
    known.piece(8, "three ")
    known.piece(14, "four")
    assert known.asked == [("watch", "a:t")] * 2
    assert task.texts == {"answer": "one "}
    known.piece(0, "one two ", begin=True)
    known.state(1, ticket="a:t")
    assert task.texts == {"answer": "one two three four"}
    assert len(known.asked) == 2


def test_text_that_is_not_kept_is_left_out() -> None:
    known = Known()
    task = known.tasks.get("a")
    known.piece(0, "one")
    known.piece(9, "four")  # without a ticket nothing can be asked for
    assert task.texts == {"answer": "four"}
    known.state(1, ticket="a:t")
    known.piece(20, "six")
    known.piece(0, "one", begin=True)
    known.state(1, ticket="a:t")
    assert task.texts == {"answer": "six"}
    assert known.asked == [("watch", "a:t")]


def test_older_states_are_ignored_and_their_tickets_taken() -> None:
    known = Known()
    task = known.tasks.get("a")
    known.state(4)
    known.state(4, "waiting", ticket="a:t")
    assert (task.state, task.ticket) == ("started", "a:t")
    known.state(5, "success", result=7)
    known.state(6)
    assert task.report == TaskReport("success", 0, None, result=7)
    assert asyncio.run(awaited(task)) == 7


async def awaited(task: ClientTask) -> Any:
    return await task


@pytest.mark.parametrize("state", ["unknown", "refused"])
def test_a_task_that_cannot_be_watched_fails(state: str) -> None:
    known = Known()
    task = known.tasks.get("a:t")
    known.hear(ticket="a:t", state=state, error="it has expired")
    with pytest.raises(TaskFailed) as failed:
        asyncio.run(awaited(task))
    assert failed.value.state == state
    assert known.tasks.get("a") is task
    assert known.tasks.get("a:new") is not task


def test_a_refused_cancel_leaves_the_task_alone() -> None:
    async def test() -> None:
        known = Known()
        task = known.tasks.get("a")
        answers = [asyncio.create_task(task.cancel()) for _ in range(2)]
        await asyncio.sleep(0)
        known.state(1, ticket="a:t")
        assert known.asked == [("cancel", "a:t")]
        known.hear(ticket="a:t", state="refused", error="it has expired")
        assert await asyncio.gather(*answers) == [False, False]
        assert task.state == "started"
        answer = asyncio.create_task(task.cancel())
        await asyncio.sleep(0)
        known.tasks.resume()
        assert known.asked[2:] == [("watch", "a:t"), ("cancel", "a:t")]
        known.state(2, "revoked")
        assert await answer is True

    asyncio.run(test())


def test_a_slow_reader_gets_the_newest_state_and_all_text() -> None:
    async def test() -> None:
        known = Known()
        task = known.tasks.get("a")
        known.piece(0, "one ")
        reader = aiter(task)
        assert await anext(reader) == TextChange("answer", "one ", "one ", True, False)
        for number in range(1, 9):
            known.state(number)
            known.piece(3 + number, "x")
        known.hear(stream="answer", run="r1", at=12, end=True)
        known.state(9, "success")
        news = [each async for each in reader]
        assert news == [TextChange("answer", "x" * 8, "one " + "x" * 8, False, True), task.report]

    asyncio.run(test())


def test_the_end_waits_for_text_that_was_asked_for() -> None:
    async def test() -> None:
        known = Known()
        task = known.tasks.get("a:t")
        known.piece(0, "one", begin=True)
        known.state(1, ticket="a:t")
        known.piece(6, "six")
        known.state(2, "success")
        reader = asyncio.create_task(collected(task))
        await asyncio.sleep(0)
        known.tasks.resume()  # the connection was lost with the answer
        assert known.asked == [("watch", "a:t")] * 3
        known.piece(0, "onetwosix", begin=True)
        known.state(2, "success", ticket="a:t")
        assert (await reader)[-1].text == "onetwosix"

    asyncio.run(test())


async def collected(task: ClientTask) -> list[Any]:
    return [news async for news in task]


def test_ignored_tasks_and_bounds() -> None:
    known = Known()
    task = known.tasks.get("a:t")
    task.unwatch()
    known.state(1)
    assert task.state is None
    known.tasks.get("a:t")
    assert [request for request, _ in known.asked] == ["watch", "unwatch", "watch"]
    for number in range(200):
        known.tasks.receive({"id": f"t{number}", "n": 1, "state": "started"})
    assert known.tasks.get("a") is task
    assert known.tasks.get("t199").state == "started"
    assert known.tasks.get("t100").state is None
    with pytest.raises(ValueError, match="ticket"):
        known.tasks.get(":x")
    assert known.tasks.receive(None) is None
    assert known.tasks.receive({"ticket": "x:y", "state": "refused"}) is None


def test_a_closed_client_leaves_nobody_waiting() -> None:
    async def test() -> None:
        known = Known()
        task = known.tasks.get("a:t")
        waiting = [asyncio.create_task(each) for each in (awaited(task), collected(task), task.cancel())]
        await asyncio.sleep(0)
        known.tasks.close(ClientClosed(1000, "close()"))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in results] == [ClientClosed] * 3
        with pytest.raises(ClientClosed):
            await task.cancel()

    asyncio.run(test())
