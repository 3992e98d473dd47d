"""Live tasks in the pages of a real browser, by the browser library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from websockets.sync.server import ServerConnection

from tests.support.live import live_project
from tests.support.peers import Peer, Site
from tests.support.processes import ROOT
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

other_way = pytest.mark.ways("other ways")

#: A page whose bridge keeps the tickets of its tasks for the time after a reload.
PAGE = """<script src="/channelsq/js/websocketbridge.js"></script>
<script>
  const log = [];
  const bridge = new channels.WebSocketBridge({ minDelay: 1, maxDelay: 20 });
  const started = [];
  const shown = {};

  function show(task) {
    shown[task.id] = task;
    task.onprogress = ({ state, done, total, text }) => log.push(["progress", state, done, total, text]);
    task.onstate = ({ state }) => log.push(["state", state]);
    task.ontext = (change) => log.push(["text", change]);
    return task;
  }

  function outcome(task) {
    return Promise.race([
      task.then((result) => ["result", result], (error) => [error.name, error.state, error.message]),
      new Promise((resolve) => setTimeout(resolve, 20000, "nothing")),
    ]);
  }

  function startTask(start, ...args) {
    const number = started.length;
    bridge.send({ start, args });
    return new Promise((resolve) => {
      const timer = setInterval(() => {
        if (started.length === number) return;
        clearInterval(timer);
        resolve(started[number]);
      }, 5);
    });
  }

  bridge.listen((content) => (content.started ? started.push(content.started) : log.push(["heard", content])));
  bridge.addEventListener("unclaimed", ({ detail }) => log.push(["unclaimed", detail]));
  bridge.addEventListener("message", ({ detail }) => log.push(["message", detail]));
  bridge.addEventListener("task", ({ detail }) => log.push(["task", detail.id, detail.state]));
  const ticket = sessionStorage.getItem("ticket");
  if (ticket) show(bridge.task(ticket)); // before there is a connection
  if (location.hash) bridge.connect(location.hash.slice(1));
</script>"""

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site(ROOT / "channelsq" / "static")
    site.pages["/page"] = PAGE
    yield site
    site.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context()
    yield context
    context.close()


@pytest.fixture
def problems() -> list[str]:
    """Uncaught errors and rejections of the pages."""
    return []


@pytest.fixture
def open_page(context: BrowserContext, site: Site, problems: list[str]) -> Iterator[Open]:
    """Opens a page that connects to a URL; the test fails if a page has an uncaught error."""

    def open_page(url: str = "") -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(error.message))
        page.goto(f"{site.url}/page#{url}")
        if url:
            page.wait_for_function("bridge.state === 'open'")
        return page

    yield open_page
    assert problems == []


# -- with a real interface server and a real worker


@pytest.fixture(scope="module")
def project(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project, whose interface server also lets the static site's pages in.  When it is started again, it finds the
    tasks as before."""
    with live_project(redis_url, tmp_path_factory.mktemp("live"), TEST_HOSTS="127.0.0.1") as project:
        yield project


@pytest.fixture
def page(project: Project, open_page: Open) -> Page:
    return open_page(f"{project.ws_url}/live/")


def start(page: Page, name: str, *args: Any) -> str:
    """Start a task, and let the page show it; return its id."""
    return str(
        page.evaluate(
            "async (args) => { const id = await startTask(...args); show(bridge.task(id)); return id; }", [name, *args]
        )
    )


def outcome(page: Page, task: str) -> Any:
    """Return what the promise of a task became."""
    return page.evaluate("(id) => outcome(bridge.task(id))", task)


def logged(page: Page, *types: str) -> list[Any]:
    return [entry[1:] for entry in page.evaluate("log") if entry[0] in types]


@pytest.mark.redis
def test_a_page_shows_progress_and_result(project: Project, page: Page) -> None:
    task = start(page, "count", 100, "shown")
    page.wait_for_function("log.some(([type, , done]) => type === 'progress' && done === 50)")
    assert page.evaluate("(id) => [shown[id].state, shown[id].total, shown[id].text]", task) == ["started", 100, "rows"]
    project.let_go("shown")
    assert outcome(page, task) == ["result", 100]
    assert logged(page, "progress")[-1][:2] == ["success", 1]
    assert [state for (state,) in logged(page, "state")] in (
        ["waiting", "started", "success"],
        ["started", "success"],
    )
    assert logged(page, "message") == [[{"started": task}]]  # nothing of the library's own stream
    assert logged(page, "heard", "unclaimed") == []
    assert page.evaluate("(id) => bridge.task(id) === shown[id] && bridge.task(shown[id].ticket) === shown[id]", task)


@pytest.mark.redis
def test_a_page_shows_text_while_the_task_writes(project: Project, page: Page) -> None:
    words = [f"word {number} ✓ 🙂 " for number in range(2000)]
    task = start(page, "write", words, "written")
    page.wait_for_function("(id) => shown[id].texts.answer?.includes('word 999')", arg=task)
    assert not logged(page, "text")[-1][0]["ended"]
    project.let_go("written")
    assert outcome(page, task) == ["result", None]
    page.wait_for_function("log.some(([type, change]) => type === 'text' && change.ended)")
    assert page.evaluate("(id) => shown[id].texts.answer", task) == "".join(words)
    changes = [change for (change,) in logged(page, "text")]
    assert "".join(change["piece"] for change in changes) == "".join(words)
    assert [change["restarted"] for change in changes] == [True] + [False] * (len(changes) - 1)


@pytest.mark.redis
def test_a_page_cancels_its_task(project: Project, page: Page) -> None:
    task = start(page, "endless", "cancelled")
    project.wait_for_record("cancelled", "began")
    assert page.evaluate("(id) => bridge.task(id).cancel()", task) is True
    assert outcome(page, task) == ["TaskError", "revoked", f"the task {task} was revoked"]
    project.wait_for_record("cancelled", "Cancelled")
    assert page.evaluate("(id) => bridge.task(id).cancel()", task) is False


@other_way
@pytest.mark.redis
def test_a_page_that_may_not_cancel_is_told(project: Project, open_page: Open) -> None:
    page = open_page(f"{project.ws_url}/live/refused/")
    task = start(page, "count", 4, "not-cancelled")
    assert page.evaluate("(id) => bridge.task(id).cancel()", task) is False
    project.let_go("not-cancelled")
    assert outcome(page, task) == ["result", 4]


@other_way
@pytest.mark.redis
def test_a_failure_rejects_the_promise_and_is_quiet_for_those_who_do_not_ask(page: Page, problems: list[str]) -> None:
    task = start(page, "fail", "secret", "Row 7 has no date.")
    page.wait_for_function("(id) => shown[id].state === 'failure'", arg=task)
    assert page.evaluate("(id) => shown[id].error", task) == "Row 7 has no date."
    assert problems == []
    assert outcome(page, task) == ["TaskError", "failure", "Row 7 has no date."]


@other_way
@pytest.mark.redis
def test_a_retry_writes_its_text_anew(page: Page) -> None:
    task = start(page, "flaky", 2)
    assert outcome(page, task) == ["result", "done"]
    assert page.evaluate("(id) => shown[id].texts.answer", task) == "try 2"
    assert logged(page, "text")[-1][0]["text"] == "try 2"


@other_way
@pytest.mark.redis
def test_the_parts_of_a_canvas_are_counted(page: Page) -> None:
    task = start(page, "chord")
    assert outcome(page, task) == ["result", 55]
    assert page.evaluate("(id) => shown[id].parts", task) == {"total": 11, "done": 11, "failed": 0}


@other_way
@pytest.mark.redis
def test_a_page_goes_on_after_a_reload(project: Project, page: Page) -> None:
    words = [f"word {number} " for number in range(3000)]
    task = start(page, "write", words, "reloaded")
    page.wait_for_function("(id) => shown[id].texts.answer?.includes('word 1400 ')", arg=task)
    page.evaluate("(id) => sessionStorage.setItem('ticket', shown[id].ticket)", task)
    page.reload()
    page.wait_for_function("(id) => shown[id].texts.answer?.includes('word 1400 ')", arg=task)
    assert page.evaluate("(id) => shown[id].texts.answer", task).startswith("word 0 word 1 ")
    project.let_go("reloaded")
    assert outcome(page, task) == ["result", None]
    page.wait_for_function("log.some(([type, change]) => type === 'text' && change.ended)")
    assert page.evaluate("(id) => shown[id].texts.answer", task) == "".join(words)
    page.reload()  # when all is over
    assert outcome(page, task) == ["result", None]
    assert page.evaluate("(id) => shown[id].texts.answer", task) == "".join(words)


@other_way
@pytest.mark.redis
def test_a_task_outlives_the_interface_server(project: Project, page: Page) -> None:
    words = [f"word {number} " for number in range(3000)]
    task = start(page, "write", words, "restarted")
    page.wait_for_function("(id) => shown[id].texts.answer?.includes('word 1400 ')", arg=task)
    assert project.interface.terminate() == 0
    page.wait_for_function("bridge.socket.retries >= 1")
    project.let_go("restarted")  # the rest is written while there is no server
    project.start_interface()
    assert outcome(page, task) == ["result", None]
    page.wait_for_function("log.some(([type, change]) => type === 'text' && change.ended)")
    assert page.evaluate("(id) => shown[id].texts.answer", task) == "".join(words)


@other_way
@pytest.mark.redis
def test_a_page_without_a_ticket_gets_nothing(project: Project, page: Page, open_page: Open) -> None:
    other = open_page(f"{project.ws_url}/live/")
    task = start(page, "count", 4, "mine")
    other.evaluate("(id) => { show(bridge.task(id)); show(bridge.task(`${id}:default:c~forged`)); }", task)
    other.wait_for_function("(id) => shown[id].state === 'refused'", arg=task)
    assert outcome(other, task)[:2] == ["TaskError", "refused"]
    project.let_go("mine")
    assert outcome(page, task) == ["result", 4]
    own = start(other, "count", 1)  # whatever was sent before has come by then
    assert outcome(other, own) == ["result", 1]
    assert logged(other, "state")[0] == ["refused"]
    assert other.evaluate("(id) => [shown[id].done, shown[id].total]", task) == [0, None]
    ticket = page.evaluate("(id) => shown[id].ticket", task)
    assert other.evaluate("(ticket) => outcome(bridge.task(ticket))", ticket) == ["result", 4]


@other_way
@pytest.mark.redis
def test_a_page_shows_tasks_that_others_started(project: Project, page: Page, open_page: Open) -> None:
    other = open_page(f"{project.ws_url}/live/")
    other.evaluate("bridge.addEventListener('task', ({ detail }) => void show(detail))")
    other.evaluate("bridge.send({join: 'club'})")
    other.wait_for_function("log.some(([type, content]) => type === 'heard' && content.joined)")
    page.evaluate("bridge.send({start: 'count', args: [4, 'club-on'], to: 'club'})")
    other.wait_for_function("Object.keys(shown).length === 1")
    (task,) = other.evaluate("Object.keys(shown)")
    assert logged(other, "task") == [[task, "waiting"]]
    project.let_go("club-on")
    assert outcome(other, task) == ["result", 4]


# -- with a server of the test's own, for frames that real ones send only by chance: a browser reads its sockets even
# while its page is busy, so no test can have a server drop pieces for it; and a real server repeats no old state


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
def fake(open_page: Open, peer: Peer) -> Page:
    """A page that is connected to the test's own server."""
    page = open_page(peer.url)
    peer.socket()
    return page


def tell(socket: ServerConnection, **payload: Any) -> None:
    """Send a payload as the server does."""
    frame = {"stream": "channelsq.task", "payload": payload}
    socket.send(json.dumps(frame, separators=(",", ":"), ensure_ascii=False))


def asked(peer: Peer) -> list[Any]:
    """Return the payloads that pages have sent."""
    frames = [str(each) for each in peer.received]
    assert all(frame.startswith('{"stream":"channelsq.task","payload":{"') for frame in frames), frames
    return [json.loads(frame)["payload"] for frame in frames]


def piece(at: int, text: str, **more: Any) -> dict[str, Any]:
    return {"id": "a", "stream": "answer", "run": "r1", "at": at, "piece": text, **more}


def settle(page: Page, socket: ServerConnection) -> None:
    """Return when the page has handled all that was sent so far."""
    count = len(logged(page, "heard"))
    socket.send('"settled"')
    page.wait_for_function("(count) => log.filter(([type]) => type === 'heard').length > count", arg=count)


def texts(page: Page) -> list[tuple[str, str, bool, bool]]:
    return [
        (change["piece"], change["text"], change["restarted"], change["ended"]) for (change,) in logged(page, "text")
    ]


def test_a_gap_is_asked_for_once_and_filled(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a:t')), undefined")
    wait_until(lambda: asked(peer) == [{"watch": ["a:t"]}], "the first request")
    tell(socket, **piece(0, "one ", begin=True))
    tell(socket, id="a", n=1, state="started", done=0, total=None, ticket="a:t")
    tell(socket, **piece(4, "two 🙂 "))
    tell(socket, **piece(17, "four "))  # "three " is lost
    tell(socket, **piece(22, "five "))
    wait_until(lambda: asked(peer)[1:] == [{"watch": ["a:t"]}], "the second request")
    settle(fake, socket)
    assert texts(fake)[-1] == ("two 🙂 ", "one two 🙂 ", False, False)
    tell(socket, **piece(2, "e two 🙂 ", begin=True))  # the beginning is not kept any more
    tell(socket, **piece(11, "three four "))
    tell(socket, id="a", n=1, state="started", done=0, total=None, ticket="a:t")
    tell(socket, **piece(22, "five "))
    tell(socket, **piece(20, "r five six"))
    tell(socket, id="a", stream="answer", run="r1", at=30, end=True)
    settle(fake, socket)
    assert fake.evaluate("shown.a.texts.answer") == "e two 🙂 three four five six"
    assert texts(fake)[-2:] == [
        ("six", "e two 🙂 three four five six", False, False),
        ("", "e two 🙂 three four five six", False, True),
    ]
    assert len(asked(peer)) == 2


@other_way
def test_an_end_beyond_the_text_is_a_gap(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a:t')), undefined")
    tell(socket, **piece(0, "one", begin=True))
    tell(socket, id="a", n=1, state="started", done=0, total=None, ticket="a:t")
    tell(socket, id="a", stream="answer", run="r1", at=6, end=True)
    wait_until(lambda: len(asked(peer)) == 2, "the second request")
    tell(socket, **piece(0, "onetwo", begin=True))
    tell(socket, id="a", stream="answer", run="r1", at=6, end=True)
    tell(socket, id="a", n=1, state="started", done=0, total=None, ticket="a:t")
    settle(fake, socket)
    assert texts(fake)[-1] == ("onetwo", "onetwo", True, True)
    assert len(asked(peer)) == 2


@other_way
def test_missing_text_of_an_ended_task_is_asked_for_on_the_next_connection(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a:t')), undefined")
    tell(socket, **piece(0, "one", begin=True))
    tell(socket, id="a", n=1, state="started", done=0, total=None, ticket="a:t")
    tell(socket, **piece(6, "six"))
    tell(socket, id="a", n=2, state="success", done=1, total=1, result=None)
    wait_until(lambda: len(asked(peer)) == 2, "the second request")
    socket.close(1012)
    wait_until(lambda: asked(peer) == [{"watch": ["a:t"]}] * 3, "the request on the next connection")
    tell(peer.socket(1), **piece(0, "onetwosix", begin=True))
    tell(peer.socket(1), id="a", n=2, state="success", done=1, total=1, result=None, ticket="a:t")
    settle(fake, peer.socket(1))
    assert texts(fake)[-1][1] == "onetwosix"


@other_way
def test_text_that_cannot_be_had_any_more_is_left_out(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a')), undefined")
    tell(socket, **piece(0, "one"))
    tell(socket, **piece(9, "four"))  # without a ticket nothing can be asked for
    settle(fake, socket)
    assert texts(fake)[-1] == ("four", "four", True, False)
    tell(socket, id="a", n=1, state="started", done=0, total=None, ticket="a:t")
    tell(socket, **piece(20, "six"))
    wait_until(lambda: asked(peer) == [{"watch": ["a:t"]}], "the request")
    tell(socket, **piece(0, "one", begin=True))
    tell(socket, id="a", n=1, state="started", done=0, total=None, ticket="a:t")
    tell(socket, **piece(23, "teen"))
    settle(fake, socket)
    assert fake.evaluate("shown.a.texts.answer") == "sixteen"
    assert len(asked(peer)) == 1


@other_way
def test_another_run_replaces_the_text(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a:t')), undefined")
    tell(socket, **piece(0, "one"))
    tell(socket, **piece(0, "eins", run="r2"))
    tell(socket, **piece(0, "una", run="r2", stream="other"))
    settle(fake, socket)
    assert texts(fake) == [
        ("one", "one", True, False),
        ("eins", "eins", True, False),
        ("una", "una", True, False),
    ]
    assert fake.evaluate("({...shown.a.texts})") == {"answer": "eins", "other": "una"}


def test_older_states_are_ignored_and_their_tickets_taken(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a')), undefined")
    tell(socket, id="a", n=4, state="started", done=4, total=9, text="rows")
    for number in (3, 4):
        tell(socket, id="a", n=number, state="waiting", done=number - 1, total=9, ticket="a:t")
    settle(fake, socket)
    assert logged(fake, "progress") == [["started", 4, 9, "rows"]]
    assert fake.evaluate("shown.a.ticket") == "a:t"
    tell(socket, id="a", n=5, state="success", done=1, total=1, result={"rows": 9})
    tell(socket, id="a", n=6, state="started", done=0, total=1)
    settle(fake, socket)
    assert outcome(fake, "a") == ["result", {"rows": 9}]
    assert logged(fake, "state") == [["started"], ["success"]]
    assert fake.evaluate("[shown.a.state, shown.a.text, shown.a.done]") == ["success", "", 1]


@other_way
def test_tasks_are_watched_again_after_a_reconnect(open_page: Open, peer: Peer) -> None:
    page = open_page()
    page.evaluate(
        """() => {
          for (let number = 0; number < 120; number++) bridge.task(`t${number}:x`);
          bridge.task("only-an-id");
        }"""
    )
    page.evaluate("(url) => bridge.connect(url)", peer.url)
    every = [f"t{number}:x" for number in range(120)]
    frames = [{"watch": every[:50]}, {"watch": every[50:100]}, {"watch": every[100:]}]
    wait_until(lambda: asked(peer) == frames, "the requests")
    socket = peer.socket()
    tell(socket, id="t0", n=1, state="success", done=1, total=1, result=1, ticket="t0:x")
    tell(socket, ticket="t1:x", state="refused", error="it has expired")
    tell(socket, id="t2", ticket="t2:x", state="unknown")
    settle(page, socket)
    page.evaluate("bridge.task('t3:x').unwatch(); window.cancelled = bridge.task('t4:x').cancel(); undefined")
    wait_until(lambda: asked(peer)[3:] == [{"unwatch": ["t3:x"]}, {"cancel": ["t4:x"]}], "both requests")
    socket.close(1012)
    again = [f"t{number}:x" for number in range(4, 120)]
    peer.socket(1)
    # One that is cancelled meanwhile is asked for between the others.
    wait_until(lambda: sum(len(*each.values()) for each in asked(peer)[5:]) == len(again) + 1, "the requests")
    assert [each for frame in asked(peer)[5:] for each in frame.get("watch", ())] == again
    assert [frame["cancel"] for frame in asked(peer)[5:] if "cancel" in frame] == [["t4:x"]]
    assert max(len(*frame.values()) for frame in asked(peer)) == 50
    tell(peer.socket(1), id="t4", n=2, state="revoked", done=0, total=None)
    assert page.evaluate("cancelled") is True
    assert [page.evaluate(f"outcome(bridge.task('t{number}'))") for number in range(3)] == [
        ["result", 1],
        ["TaskError", "refused", "it has expired"],
        ["TaskError", "unknown", "the server does not know the task t2"],
    ]


@other_way
def test_a_refused_cancel_leaves_the_task_alone(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a')); window.cancelled = shown.a.cancel(); undefined")
    tell(socket, id="a", n=1, state="started", done=0, total=1, ticket="a:t")
    wait_until(lambda: asked(peer) == [{"cancel": ["a:t"]}], "the request, which waited for the ticket")
    tell(socket, ticket="a:t", state="refused", error="it has expired")
    assert fake.evaluate("cancelled") is False
    fake.evaluate("window.cancelled = shown.a.cancel(); undefined")
    tell(socket, id="a", ticket="a:t", cancel="refused")
    assert fake.evaluate("cancelled") is False
    tell(socket, id="a", n=2, state="success", done=1, total=1, result=7)
    assert outcome(fake, "a") == ["result", 7]


@other_way
def test_a_page_hears_no_more_of_a_task_it_has_left(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("show(bridge.task('a:t')); shown.a.unwatch(); undefined")
    wait_until(lambda: asked(peer) == [{"watch": ["a:t"]}, {"unwatch": ["a:t"]}], "both requests")
    tell(socket, id="a", n=1, state="started", done=1, total=2, ticket="a:t")
    settle(fake, socket)
    assert fake.evaluate("[shown.a.state, log.filter(([type]) => type === 'progress').length]") == [None, 0]
    fake.evaluate("bridge.task('a:t'), undefined")
    wait_until(lambda: len(asked(peer)) == 3, "to be watched again")
    tell(socket, id="a", n=2, state="started", done=2, total=2, ticket="a:t")
    settle(fake, socket)
    assert logged(fake, "progress") == [["started", 2, 2, ""]]


@other_way
def test_a_bounded_number_of_tasks_is_kept_for_a_page_that_asks_later(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    fake.evaluate("bridge.task('mine'), undefined")
    for number in range(150):
        state = "success" if number in (70, 80) else "started"
        tell(socket, id=f"t{number}", n=1, state=state, done=number, total=None, ticket=f"t{number}:x")
    settle(fake, socket)
    assert len(logged(fake, "task")) == 150
    # The ended ones went first, then the oldest; and "mine", which has not ended, was kept.
    kept = [number for number in range(49, 150) if number not in (70, 80)]
    gone = [*range(49), 70, 80]
    states = "(numbers) => numbers.map((number) => bridge.task(`t${number}`).state)"
    assert set(fake.evaluate(states, kept)) == {"started"}
    assert set(fake.evaluate(states, gone)) == {None}
    assert not asked(peer)


@other_way
def test_handlers_that_come_later_are_told_what_was_heard(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    tell(socket, id="a", n=3, state="started", done=1, total=2, text="rows", ticket="a:t")
    tell(socket, **piece(0, "text"))
    settle(fake, socket)
    assert logged(fake, "task") == [["a", "started"]]
    fake.evaluate("show(bridge.task('a')), undefined")
    assert logged(fake, "progress") == [["started", 1, 2, "rows"]]
    assert logged(fake, "state") == [["started"]]
    assert texts(fake) == [("text", "text", True, False)]
    assert not asked(peer)


@other_way
def test_the_frames_of_tasks_reach_the_callbacks_of_their_stream_alone(fake: Page, peer: Peer) -> None:
    socket = peer.socket()
    tell(socket, id="a", n=1, state="started", done=0, total=None)
    tell(socket)
    socket.send('{"stream": "channelsq.task", "payload": null}')
    settle(fake, socket)
    assert logged(fake, "heard", "message", "unclaimed") == [["settled"], ["settled"]]
    fake.evaluate("bridge.demultiplex('channelsq.task', (payload) => log.push(['mine', payload]))")
    tell(socket, id="a", n=2, state="started", done=0, total=None)
    settle(fake, socket)
    assert logged(fake, "mine") == [[{"id": "a", "n": 2, "state": "started", "done": 0, "total": None}]]


@other_way
def test_another_codec_does_not_concern_tasks(fake: Page, peer: Peer) -> None:
    fake.evaluate(
        """() => {
          bridge.encode = (content) => `<${content}>`;
          bridge.decode = (text) => { throw new Error("no JSON here"); };
          show(bridge.task("a:t"));
        }"""
    )
    wait_until(lambda: asked(peer) == [{"watch": ["a:t"]}], "the request")
    tell(peer.socket(), id="a", n=1, state="success", done=1, total=1, result=[1])
    assert outcome(fake, "a") == ["result", [1]]


@other_way
def test_a_task_is_found_by_a_ticket_or_an_id(fake: Page, peer: Peer) -> None:
    problems = fake.evaluate(
        """() => ["", ":x", undefined, 7].map((wrong) => {
          try { bridge.task(wrong); } catch (error) { return error.name; }
        })"""
    )
    assert problems == ["TypeError"] * 4
    tell(peer.socket(), ticket="a:old", state="refused", error="it has expired")
    fake.evaluate("show(bridge.task('a:old')), undefined")
    wait_until(lambda: len(asked(peer)) == 1, "the request")
    tell(peer.socket(), ticket="a:old", state="refused", error="it has expired")
    fake.wait_for_function("shown.a.state === 'refused'")
    assert fake.evaluate("bridge.task('a') === shown.a && bridge.task('a:new') !== shown.a")
    wait_until(lambda: asked(peer)[1:] == [{"watch": ["a:new"]}], "the request with the new ticket")
