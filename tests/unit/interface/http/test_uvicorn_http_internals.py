"""uvicorn hands our protocol the decisions that the interface server's promises stand on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from uvicorn import Config

from channelsq.interface.basis.uvicorn_state_internals import ServerState, connections_of, tasks_of
from channelsq.interface.http.uvicorn_http_internals import RequestResponseCycle, UvicornHttpProtocol, status_line
from tests.support.fakes.transports import RecordingTransport

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"


class _Holding(UvicornHttpProtocol):
    """Keeps what it is to start."""

    def __init__(self, state: ServerState) -> None:
        config = Config(application, ws="none", lifespan="off", log_config=None, access_log=False)
        config.load()
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.started: list[tuple[RequestResponseCycle, Any]] = []
        self.out = RecordingTransport()
        self.connection_made(self.out)

    def start(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.started.append((cycle, app))


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def run_next(protocol: _Holding) -> None:
    cycle, app = protocol.started.pop(0)
    protocol.run_application(cycle, app)
    while not cycle.response_complete:
        await asyncio.sleep(0)


def test_requests_are_begun_one_after_another_and_by_us() -> None:
    async def main() -> None:
        state = ServerState()
        protocol = _Holding(state)
        assert connections_of(state) == {protocol}
        assert protocol.newest is None
        protocol.data_received(GET % b"1" + GET % b"2" + GET % b"3")
        newest: Any = protocol.newest
        assert newest.scope["path"] == "/3"
        assert [cycle.scope["path"] for cycle, _ in protocol.started] == ["/1"]
        assert [cycle.scope["path"] for cycle, _ in protocol.pipeline] == ["/3", "/2"]
        protocol.drop_newest()
        await run_next(protocol)
        assert [cycle.scope["path"] for cycle, _ in protocol.started] == ["/2"]
        await run_next(protocol)
        assert not protocol.started
        assert protocol.out.written.count(b"HTTP/1.1 200 OK") == 2

    asyncio.run(main())


def test_a_server_that_ends_waits_for_the_tasks_that_answer() -> None:
    async def main() -> None:
        state = ServerState()
        protocol = _Holding(state)
        protocol.data_received(GET % b"1")
        cycle, app = protocol.started.pop()
        protocol.run_application(cycle, app)
        assert len(tasks_of(state)) == 1
        await asyncio.gather(*tasks_of(state))
        await asyncio.sleep(0)
        assert not tasks_of(state)
        protocol.connection_lost(None)
        assert not connections_of(state)

    asyncio.run(main())


def test_a_connection_on_which_something_comes_is_not_closed_for_being_idle() -> None:
    async def main() -> None:
        protocol = _Holding(ServerState())
        protocol.data_received(GET % b"1")
        await run_next(protocol)
        timer = cast("asyncio.TimerHandle", protocol.timeout_keep_alive_task)
        assert not timer.cancelled()
        protocol.forget_keep_alive()
        assert timer.cancelled()

    asyncio.run(main())


@pytest.mark.parametrize(("wanted", "is_handshake"), [(b"websocket", False), (b"h2c", False)])
def test_an_upgrade_is_decided_by_us_and_may_be_ignored(wanted: bytes, is_handshake: bool) -> None:
    async def main() -> None:
        import httptools

        protocol = _Holding(ServerState())
        with pytest.raises(httptools.HttpParserUpgrade):
            protocol.parser.feed_data(UPGRADE % wanted)
        assert not protocol.started
        assert protocol.is_websocket_handshake() is is_handshake  # this server has no WebSockets
        protocol.begin_anew()
        protocol.parser.feed_data(GET % b"1")
        assert [cycle.scope["path"] for cycle, _ in protocol.started] == ["/1"]

    asyncio.run(main())


def test_whole_answers_begin_as_uvicorns_do() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"


def test_what_a_cycle_says_of_its_request() -> None:
    async def main() -> None:
        protocol = _Holding(ServerState())
        protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nab")
        (cycle, _) = protocol.started[0]
        assert (bytes(cycle.body), cycle.more_body, cycle.waiting_for_100_continue) == (b"ab", True, True)
        assert (cycle.keep_alive, cycle.response_started, cycle.response_complete) == (True, False, False)
        assert (cycle.chunked_encoding, cycle.disconnected) == (None, False)
        assert cycle.transport is protocol.out
        protocol.data_received(b"cd")
        assert (bytes(cycle.body), cycle.more_body) == (b"abcd", False)
        protocol.connection_lost(None)
        assert cycle.disconnected

    asyncio.run(main())
