"""Answers and bodies of several runs of one request, at the interface server."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest

from channelsq.interface.basis.config import InterfaceConfig
from channelsq.interface.basis.limits import Limits
from tests.support.interfaces import Call, Site, running
from tests.support.waiting import wait_until

HEAD: dict[str, Any] = {"status": 200, "headers": []}

#: Bytes of a body that does not fit in the request's message.
LARGE = 1_000_000


def config(**limits: Any) -> InterfaceConfig:
    return InterfaceConfig(limits=replace(Limits(), **limits))


def ask(call: Call, run: str = "second") -> dict[str, Any]:
    """Ask whether another run may answer; gives the answer."""
    channel = call.layer.new_channel("http.response.credit?")
    call.now(again=True, credit_channel=channel, attempt={"m": run})
    _, answer = call.layer.receive([channel], block=True)
    assert answer is not None
    return answer


def parts_of(call: Call, channel: str | None) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    while channel and not (parts and not parts[-1]["more_content"]):
        _, part = call.layer.receive([channel], block=True)
        if part is not None:
            parts.append(part)
    return parts


def test_a_request_says_what_the_server_understands() -> None:
    with running({"http.request": lambda call: call.reply(**HEAD, content=b"", more_content=False)}) as site:
        httpx.get(site.url)
        (message,) = site.application.messages("http.request")
    assert message["channelsq.wire"] == 1


def test_the_parts_of_a_body_are_numbered() -> None:
    seen: list[Any] = []

    def handler(call: Call) -> None:
        seen.extend(part["part"] for part in parts_of(call, call["body_channel"]))
        call.reply(**HEAD, content=b"", more_content=False)

    with running({"http.request": handler}) as site:
        httpx.post(site.url, content=b"x" * LARGE)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("read", [0, 1, 3])
def test_another_run_gets_the_whole_body_again(read: int) -> None:
    content = os.urandom(LARGE)

    def handler(call: Call) -> None:
        for _ in range(read):  # by a worker that dies
            call.layer.receive([call["body_channel"]], block=True)
        answer = ask(call)
        assert answer["credit"] is True
        assert answer["body_channel"] != call["body_channel"]
        parts = parts_of(call, answer["body_channel"])
        assert [part["part"] for part in parts] == list(range(len(parts)))
        whole = call["body"] + b"".join(part["content"] for part in parts)
        call.reply(**HEAD, content=b"%d" % (whole == content), more_content=False, attempt={"m": "second"})

    with running({"http.request": handler}) as site:
        assert httpx.post(site.url, content=content, timeout=20).content == b"1"
        assert site.application.errors == []


def test_another_run_gets_a_body_that_still_comes() -> None:
    content, go_on = os.urandom(LARGE), threading.Event()

    def body() -> Any:
        yield content[:600_000]
        assert go_on.wait(20)
        yield content[600_000:]

    def handler(call: Call) -> None:
        call.layer.receive([call["body_channel"]], block=True)
        for run in ("second", "third"):
            answer = ask(call, run)
        go_on.set()
        whole = call["body"] + b"".join(part["content"] for part in parts_of(call, answer["body_channel"]))
        call.reply(**HEAD, content=b"%d" % (whole == content), more_content=False)

    with running({"http.request": handler}) as site:
        assert httpx.post(site.url, content=body(), timeout=20).content == b"1"


def test_a_body_without_parts_is_in_the_message() -> None:
    answers: list[dict[str, Any]] = []

    def handler(call: Call) -> None:
        answers.append(ask(call))
        call.reply(**HEAD, content=call["body"], more_content=False)

    with running({"http.request": handler}) as site:
        assert httpx.post(site.url, content=b"small").content == b"small"
    assert answers == [{"credit": True, "body_channel": None}]


def kept(site: Site) -> int:
    return site.server.context.bodies_kept


def test_bodies_are_kept_until_their_answer_begins_and_no_more_than_so_many_bytes() -> None:
    answers: list[dict[str, Any]] = []
    go = threading.Event()

    def handler(call: Call) -> None:
        parts_of(call, call["body_channel"])
        answers.append(ask(call))
        if answers[-1]["body_channel"]:
            parts_of(call, answers[-1]["body_channel"])
        assert go.wait(20)
        call.reply(**HEAD, content=b"ok", more_content=False)

    with running({"http.request": handler}, config(body_kept=2 * LARGE)) as site:
        clients = [
            threading.Thread(target=httpx.post, args=(site.url,), kwargs={"content": b"x" * LARGE, "timeout": 20})
            for _ in range(3)
        ]
        for client in clients:
            client.start()
        wait_until(lambda: len(answers) == 3, "three questions", 20)
        assert kept(site) <= 2 * LARGE
        go.set()
        for client in clients:
            client.join(20)
        assert kept(site) == 0
        answers.clear()
        httpx.post(site.url, content=b"x" * LARGE, timeout=20)
        assert answers[-1]["body_channel"] is not None  # there is room again
    assert sorted(answer["body_channel"] is None for answer in answers) == [False]


def test_a_body_over_the_bound_is_not_sent_again() -> None:
    answers: list[dict[str, Any]] = []

    def handler(call: Call) -> None:
        size = len(call["body"]) + sum(len(part["content"]) for part in parts_of(call, call["body_channel"]))
        answers.append(ask(call))
        call.reply(**HEAD, content=b"%d" % size, more_content=False)

    with running({"http.request": handler}, config(body_kept=LARGE // 2)) as site:
        assert httpx.post(site.url, content=b"x" * LARGE).content == b"%d" % LARGE
    assert answers == [{"credit": True, "body_channel": None}]


def cut_off(site: Site) -> bytes:
    """Ask for an answer that is cut off; gives what came of it."""
    content = b""
    try:
        with httpx.stream("GET", site.url, timeout=20) as response:
            assert response.status_code == 200
            for chunk in response.iter_raw():
                content += chunk
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return content
    raise AssertionError(f"a clean end after {content!r}")


def test_parts_of_another_run_cut_an_answer_off() -> None:
    def handler(call: Call) -> None:
        call.now(**HEAD, content=b"one ", more_content=True, attempt={"m": "first"})
        call.now(**HEAD, content=b"other", more_content=True, attempt={"m": "second"})
        call.now(content=b"end", more_content=False, attempt={"m": "second"})

    with running({"http.request": handler}) as site:
        assert cut_off(site) == b"one "
        assert site.server.stats.cut_off["runs_mixed"] == 1


def test_an_answer_is_cut_off_with_its_length_right() -> None:
    def handler(call: Call) -> None:
        head = {"status": 200, "headers": [[b"content-length", b"8"]]}
        call.now(**head, content=b"one ", more_content=True, attempt={"m": "first"})
        call.now(**head, content=b"two!", more_content=False, attempt={"m": "second"})

    with running({"http.request": handler}) as site:
        assert cut_off(site) == b"one "


@pytest.mark.parametrize(
    "attempts",
    [
        [None, None, None],  # of an application that answers by the name of the reply channel
        [{"m": "r"}, None, {"m": "r"}],  # some of them
        [{"m": "r"}, {"m": "r", "n": "s"}, {"m": "r", "o": "t"}],  # others go on, whom the first has handed it to
        [{"m": "r"}, {"x": "y"}, {"z": "w"}],
        [7, "x", {"m": 3}],  # what is none
    ],
)
def test_parts_that_belong_together(attempts: list[Any]) -> None:
    def handler(call: Call) -> None:
        for number, attempt in enumerate(attempts):
            more = number < len(attempts) - 1
            extra = {} if attempt is None else {"attempt": attempt}
            call.now(**(HEAD if number == 0 else {}), content=b"%d" % number, more_content=more, **extra)

    with running({"http.request": handler}) as site:
        assert httpx.get(site.url).content == b"012"


def test_another_run_of_who_was_handed_the_answer_cuts_it_off() -> None:
    def handler(call: Call) -> None:
        call.now(**HEAD, content=b"a", more_content=True, attempt={"m": "r", "n": "first"})
        call.now(**HEAD, content=b"b", more_content=False, attempt={"m": "r", "n": "second"})

    with running({"http.request": handler}) as site:
        assert cut_off(site) == b"a"


def test_what_comes_late_of_a_run_that_was_given_up_is_dropped() -> None:
    gone: list[Any] = []

    def handler(call: Call) -> None:
        ask(call, "second")
        credit = call.layer.new_channel("http.response.credit?")
        call.now(**HEAD, content=b"late", more_content=True, attempt={"m": "first"}, credit_channel=credit)
        gone.append(call.layer.receive([credit], block=True)[1])
        call.now(content=b"", more_content=False, abort=True, attempt={"m": "first"})
        call.reply(**HEAD, content=b"right", more_content=False, attempt={"m": "second"})

    with running({"http.request": handler}) as site:
        response = httpx.get(site.url)
    assert (response.status_code, response.content) == (200, b"right")
    assert gone == [{"gone": True}]


def test_an_answer_that_has_begun_is_no_other_runs_and_ends_when_it_does_not_go_on() -> None:
    answers: list[Any] = []

    def handler(call: Call) -> None:
        call.now(**HEAD, content=b"one", more_content=True, attempt={"m": "first"})
        answers.append(ask(call, "second"))

    with running({"http.request": handler}, config(doubt=0.3)) as site:
        assert cut_off(site) == b"one"
    assert answers == [{"gone": True}]


def test_an_answer_that_goes_on_is_not_hurt_by_the_question() -> None:
    def handler(call: Call) -> None:
        call.now(**HEAD, content=b"one ", more_content=True, attempt={"m": "first"})
        assert ask(call, "second") == {"gone": True}
        call.now(content=b"two", more_content=False, attempt={"m": "first"})

    with running({"http.request": handler}, config(doubt=5.0)) as site:
        assert httpx.get(site.url).content == b"one two"
        assert site.application.errors == []


def test_a_client_that_has_left_is_gone() -> None:
    answers: list[Any] = []
    go = threading.Event()

    def handler(call: Call) -> None:
        assert go.wait(20)
        answers.append(ask(call))

    with running({"http.request": handler}) as site:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(site.url, timeout=0.3)
        site.wait_for_count("http.clients_left")
        go.set()
        wait_until(lambda: answers, "an answer", 10)
    assert answers == [{"gone": True}]


def test_a_lost_worker_is_a_502() -> None:
    def handler(call: Call) -> None:
        call.reply(abort=True, status=502, content=b"", more_content=False)

    with running({"http.request": handler}) as site:
        response = httpx.post(site.url)
    assert response.status_code == 502
    assert "502 Bad Gateway" in response.text


@pytest.mark.parametrize("numbers", [[0, 2], [0, 1, 3]])
def test_a_part_that_was_lost_cuts_the_answer_off(numbers: list[int]) -> None:
    def handler(call: Call) -> None:
        for number in numbers:
            call.now(**(HEAD if number == 0 else {}), content=b"x", more_content=number != numbers[-1], part=number)

    with running({"http.request": handler}) as site:
        assert cut_off(site) == b"x" * (len(numbers) - 1)


@pytest.mark.parametrize("more", [True, False])
def test_a_lost_first_part_is_a_502(more: bool) -> None:
    def handler(call: Call) -> None:
        call.now(content=b"x", more_content=more, part=1)

    with running({"http.request": handler}) as site:
        assert httpx.get(site.url).status_code == 502


def test_a_part_that_comes_twice_is_written_once() -> None:
    def handler(call: Call) -> None:
        for number, more in ((0, True), (1, True), (1, True), (2, False)):
            call.now(**(HEAD if number == 0 else {}), content=b"%d" % number, more_content=more, part=number)

    with running({"http.request": handler}) as site:
        assert httpx.get(site.url).content == b"012"
