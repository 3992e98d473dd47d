"""The project board of the documentation, driven by people with real browsers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.board import BoardSite, Member
from tests.support.demo import fresh_redis

pytestmark = [pytest.mark.browser, pytest.mark.redis, pytest.mark.timeout(120)]

Enter = Callable[..., Member]


@pytest.fixture(scope="module")
def board_site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoardSite]:
    site = BoardSite(tmp_path_factory.mktemp("board"), fresh_redis(redis_url))
    try:
        site.start()
        yield site
    finally:
        site.processes.stop()


@pytest.fixture
def enter(chromium: Browser, board_site: BoardSite) -> Iterator[Enter]:
    members: list[Member] = []

    def come(name: str, board: str = "Launch", size: tuple[int, int] = (1280, 800)) -> Member:
        member = Member(chromium, board_site, name, size)
        members.append(member)
        member.log_in()
        member.enter(board)
        return member

    yield come
    for member in members:
        member.close()


def test_cards_are_live_for_everybody_who_has_the_board_open(enter: Enter) -> None:
    ann, ben = enter("ann"), enter("ben", size=(390, 844))
    ann.adds("Hire a band", "To do")
    ben.sees("Write the invitations", "Book the hall", "Hire a band", column="To do")
    ben.reads("ann added “Hire a band”")

    ben.card("Hire a band").get_by_label("Move right").click()
    ann.sees("Draw the poster", "Hire a band", column="Doing")
    ann.reads("ben moved “Hire a band” to Doing")

    ann.card("Hire a band").drag_to(ann.column("Done"))
    ben.sees("Hire a band", column="Done")

    dialog = ben.opens("Hire a band")
    expect(ann.card("Hire a band").locator(".who")).to_have_text("open: ben")
    dialog.get_by_label("Title").fill("Hire <b>two</b> bands")
    dialog.get_by_role("button", name="Save").click()
    ann.sees("Hire <b>two</b> bands", column="Done")
    expect(ann.card("Hire").locator(".who")).to_have_text("")

    ann.opens("Hire").get_by_role("button", name="Delete").click()
    ben.sees(column="Done")
    ben.reads("ann deleted “Hire <b>two</b> bands”")


@pytest.mark.ways("other ways")
def test_comments_and_who_has_a_card_open(enter: Enter) -> None:
    ann, ben = enter("ann"), enter("ben")
    ann_sees, ben_sees = ann.opens("Draw the poster"), ben.opens("Draw the poster")
    expect(ann_sees.locator(".others")).to_have_text("Also open for ben")
    ben_sees.get_by_label("New comment").fill("In blue?")
    ben_sees.get_by_label("New comment").press("Enter")
    expect(ann_sees.locator(".comments li")).to_have_text(["ben: In blue?"])
    ben.page.goto("about:blank")  # the socket ends, and its channel session says what it had open
    expect(ann_sees.locator(".others")).to_have_text("")


@pytest.mark.ways("other ways")
def test_a_card_that_moves_to_another_board_leaves_this_one(enter: Enter) -> None:
    ann, ben, gardener = enter("ann"), enter("ben"), enter("ann", "Garden")
    dialog = ann.opens("Book the hall")
    dialog.get_by_label("On another board").select_option(label="Garden: Done")
    dialog.get_by_role("button", name="Save").click()
    gardener.sees("Mend the fence", "Book the hall", column="Done")
    ben.sees("Write the invitations", column="To do")
    ann.sees("Write the invitations", column="To do")


@pytest.mark.ways("other ways")
def test_who_is_no_member_can_look_and_not_touch(enter: Enter) -> None:
    cho, ann = enter("cho", "Garden"), enter("ann", "Garden")
    expect(cho.column("To do").get_by_label("New card")).to_be_hidden()
    cho.page.evaluate("bridge.stream('cards').send({action: 'create', data: {column: 5, title: 'x', position: 9}})")
    card = cho.page.evaluate("state.cards[0].pk")
    cho.page.evaluate(f"bridge.stream('cards').send({{action: 'update', pk: {card}, data: {{title: 'taken'}}}})")
    cho.page.evaluate(f"bridge.stream('cards').send({{action: 'delete', pk: {card}}})")
    ann.adds("Weed", "To do")  # handled after cho's, and seen by both
    cho.sees("Sow the carrots", "Weed", column="To do")
    ann.sees("Sow the carrots", "Weed", column="To do")
    cho.page.reload()
    cho.sees("Sow the carrots", "Weed", column="To do")


@pytest.mark.ways("other ways")
def test_a_stranger_gets_no_socket(chromium: Browser, board_site: BoardSite) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{board_site.url}/login/")
    closed = page.evaluate(
        """url => new Promise(tell => { new WebSocket(url).onclose = event => tell(event.code) })""",
        f"ws://127.0.0.1:{board_site.port}/boards/launch/",
    )
    context.close()
    assert closed == 1006  # what a browser says of a handshake that was refused


@pytest.mark.ways("other ways")
def test_a_program_comes_in_with_the_key_of_a_session(enter: Enter, board_site: BoardSite) -> None:
    ann = enter("ann", "Garden")
    (key,) = [cookie["value"] for cookie in ann.context.cookies() if cookie["name"] == "sessionid"]
    socket_url = f"ws://127.0.0.1:{board_site.port}/boards/garden/"
    with pytest.raises(InvalidStatus):
        connect(f"{socket_url}?session_key=wrong{key}").__enter__()
    with connect(f"{socket_url}?session_key={key}") as socket:
        column = ann.page.evaluate("state.columns[0].pk")
        card = {"action": "create", "data": {"column": column, "title": "By a program", "text": "", "position": 99}}
        socket.send(json.dumps({"stream": "cards", "payload": card}))
        told = [json.loads(socket.recv(10)) for _ in range(2)]
        assert [each["stream"] for each in told] == ["cards", "activity"]
        assert told[1]["payload"]["data"]["text"] == "ann added “By a program”"
    ann.reads("ann added “By a program”")


@pytest.mark.ways("other ways")
def test_the_board_outlives_its_worker_and_shows_what_the_shell_sends(enter: Enter, board_site: BoardSite) -> None:
    ann = enter("ann")
    board_site.worker.terminate()
    ann.adds("While nobody works", "Doing")
    board_site.start_worker()
    expect(ann.card("While nobody works")).to_be_visible()
    board_site.manage(
        "shell", "-v", "0", "-c", "from channelsq import Channel; Channel('board-announce').send({'text': 'Tea!'})"
    )
    expect(ann.page.locator("#notice")).to_have_text("Tea!")


@pytest.mark.ways("other ways")
def test_the_session_remembers_the_last_board(enter: Enter, board_site: BoardSite) -> None:
    ann = enter("ann", "Garden")
    ann.page.goto(f"{board_site.url}/")
    expect(ann.page.locator(".last a")).to_have_text("Garden")
