"""Tasks report to the sockets that follow them, through real workers and a real interface server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live import Page, live_project
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120), pytest.mark.ways("threads")]


@pytest.fixture(scope="module")
def project(pool: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The layer on Redis Streams, Celery's own broker beside it."""
    with live_project(
        redis_url, tmp_path_factory.mktemp("live"), "-P", pool, "-c", "1" if pool == "solo" else "4"
    ) as project:
        yield project


def test_a_page_sees_progress_and_result(project: Project, page: Page) -> None:
    task = page.start("count", 1000)
    end = page.end(task)
    assert end["result"] == 1000
    states = page.of(task)
    assert [each["n"] for each in states] == sorted(each["n"] for each in states)
    assert states[0]["state"] == "waiting"
    assert states[0]["ticket"].startswith(task)
    assert any(each["state"] == "started" for each in states)
    before_end = states[-2]
    assert (before_end["done"], before_end["total"], before_end["text"]) == (
        1000,
        1000,
        "rows",
    )  # the last one is never lost
    assert len(states) < 20  # a thousand reports in a moment


def test_text_comes_while_the_task_writes(project: Project, page: Page) -> None:
    words = [f"word {number} ✓ 🙂 " for number in range(400)]
    task = page.start("write", words, "write-on")
    page.until(lambda: page.text(task, "answer")[0].startswith("word 0"), "the first words")
    assert not page.text(task, "answer")[1]
    project.let_go("write-on")
    page.end(task)
    # Python's len counts one character where JavaScript counts two: the page of this test compares texts alone.
    pieces = [each["piece"] for each in page.payloads if each.get("stream") == "answer" and "piece" in each]
    assert "".join(pieces) == "".join(words)
    assert [each for each in page.payloads if each.get("stream") == "answer"][-1]["at"] == len(
        "".join(words).encode("utf-16-le")
    ) // 2


def test_a_page_that_comes_later_gets_all_so_far_and_all_that_follows(project: Project, page: Page) -> None:
    words = [f"word {number} " for number in range(3000)]
    task = page.start("write", words, "later-on")
    page.until(lambda: page.text(task, "answer")[0], "the first words")
    with Page(f"{project.ws_url}/live/") as other:
        other.ask("watch", page.ticket(task))
        assert other.state(task, "started")["ticket"] == page.ticket(task)
        assert other.text(task, "answer")[0].startswith("word 0 word 1 ")
        project.let_go("later-on")
        other.end(task)
        assert other.text(task, "answer") == ("".join(words), True)
    with Page(f"{project.ws_url}/live/") as late:  # when all is over
        late.ask("watch", page.ticket(task))
        late.end(task)
        assert late.text(task, "answer") == ("".join(words), True)


def test_a_failure_tells_nothing_that_is_secret(project: Project, page: Page) -> None:
    assert page.end(page.start("fail", "password=hunter2"))["error"] == "The task failed."
    task = page.start("fail", "password=hunter2", "Row 7 has no date.")
    assert page.end(task)["error"] == "Row 7 has no date."
    assert "hunter2" not in str(page.payloads)


def test_a_retry_writes_its_text_anew(project: Project, page: Page) -> None:
    task = page.start("flaky", 2)
    assert page.end(task)["result"] == "done"
    assert page.text(task, "answer") == ("try 2", True)
    assert "retry" in [each["state"] for each in page.of(task)]


@pytest.mark.parametrize(
    ("name", "parts", "result"), [("chain", 3, 10), ("chord", 11, 55), ("group", 10, None), ("nested", 5, None)]
)
def test_the_parts_of_a_canvas_count_together(
    project: Project, page: Page, name: str, parts: int, result: int | None
) -> None:
    task = page.start(name)
    end = page.end(task)
    assert end["state"] == "success"
    assert end["parts"] == {"total": parts, "done": parts, "failed": 0}
    assert (end["done"], end["total"]) == (parts, parts)
    if result is not None:
        assert end["result"] == result
    done = [each["done"] for each in sorted(page.of(task), key=lambda each: int(each["n"]))]
    assert done == sorted(done)


@pytest.mark.parametrize(
    ("name", "done", "failed"), [("group-fails", 4, 1), ("chord-fails", None, 2), ("chain-fails", 0, 2)]
)
def test_a_part_that_fails_is_told(project: Project, page: Page, name: str, done: int | None, failed: int) -> None:
    end = page.end(page.start(name))
    assert (end["state"], end["error"]) == ("failure", "3 is bad")
    assert end["parts"]["failed"] == failed
    assert done is None or end["parts"]["done"] == done


def test_what_a_task_calls_reports_to_the_same_page(project: Project, pool: str, page: Page) -> None:
    task = page.start("calls", "called-on")
    if pool == "solo":  # the called task runs when its caller has ended
        project.let_go("called-on")
    page.until(lambda: page.text(task, "called")[1], "the text of the called task")
    assert page.text(task, "called") == ("text of the called task", True)
    if pool != "solo":
        assert any(each.get("text") == "from the called task" for each in page.of(task))
        project.let_go("called-on")
    assert page.end(task)["state"] == "success"


def test_a_task_that_is_called_as_a_function_reports_for_its_caller(project: Project, page: Page) -> None:
    task = page.start("calls_function", "function")
    assert page.end(task)["state"] == "success"
    assert any((each.get("done"), each.get("text")) == (7, "from the called task") for each in page.of(task))
    page.until(lambda: page.text(task, "called")[1], "the text of the called task")
    assert page.text(task, "called") == ("text of the called task", True)


def test_a_group_follows_a_task_and_may_not_cancel_it(project: Project, page: Page) -> None:
    with Page(f"{project.ws_url}/live/") as member, Page(f"{project.ws_url}/live/") as other:
        member.send(join="crew")
        member.until(lambda: member.others, "to be a member")
        task = page.start("count", 10, "crew-on", to="crew")
        member.state(task, "started")
        member.ask("cancel", member.ticket(task))
        member.until(lambda: any(each.get("cancel") == "refused" for each in member.payloads), "the refusal")
        project.let_go("crew-on")
        assert member.end(task)["result"] == 10
        for stranger in (page, other):
            stranger.send(join="anything")  # whatever was sent before has come by then
            stranger.until(lambda who=stranger: {"joined": "anything"} in who.others, "the answer")
            assert stranger.payloads == []


def test_tickets_of_others_open_nothing(project: Project, page: Page) -> None:
    task = page.start("count", 2, "forged-on")
    ticket = page.ticket(task)
    with Page(f"{project.ws_url}/live/") as thief:
        forged = [task, ticket[:-1] + ("A" if ticket[-1] != "A" else "B"), ticket.replace(":c~", ":w~"), "", "x" * 5000]
        for asked in ("watch", "cancel", "unwatch"):
            thief.payloads.clear()
            thief.ask(asked, *forged)
            thief.until(lambda: len(thief.payloads) == len(forged), "every refusal")
            assert {each["state"] for each in thief.payloads} == {"refused"}
        project.let_go("forged-on")
        assert page.end(task)["state"] == "success"
        thief.send(join="anything")
        thief.until(lambda: thief.others, "the answer")
        assert not thief.of(task)


@pytest.mark.parametrize("kind", ["endless", "endless_text", "endless_wait"])
def test_a_page_cancels_its_task(project: Project, page: Page, kind: str) -> None:
    name = f"{kind}-{page.socket.local_address[1]}"
    task = page.start(kind, name)
    project.wait_for_record(name, "began")
    page.ask("cancel", page.ticket(task))
    assert page.end(task)["state"] == "revoked"
    project.wait_for_record(name, "Cancelled")


def test_the_project_decides_who_may_cancel(project: Project) -> None:
    with Page(f"{project.ws_url}/live/refused/") as page:
        task = page.start("count", 2, "refused-on")
        page.ask("cancel", page.ticket(task))
        page.until(lambda: any(each.get("cancel") == "refused" for each in page.payloads), "the refusal")
        project.let_go("refused-on")
        assert page.end(task)["state"] == "success"


def test_a_task_ends_when_nobody_listens(project: Project) -> None:
    name = "left"
    with Page(f"{project.ws_url}/live/") as page:
        page.state(page.start("until_left", name), "started")
        assert project.recorded(name) == []
    project.wait_for_record(name, "left alone")


def test_frames_of_another_form_are_refused(project: Project) -> None:
    for frame in ('{"stream":"channelsq.task",}', '{"stream":"channelsq.task","payload":{"watch":7}}'):
        with Page(f"{project.ws_url}/live/") as page:
            page.socket.send(frame)
            wait_until(lambda: closed(page.socket), "the socket to be closed")


def closed(socket: Any) -> bool:
    """Return whether a socket is closed, for a frame that no consumer can read."""
    try:
        socket.recv(0.1)
    except TimeoutError:
        return False
    except Exception:
        return bool(socket.close_code == 1007 or socket.close_code == 1008 or socket.close_code == 1003)
    return False
