"""The scenarios of the interface server's tests on Redis Streams, where it has another link."""

from __future__ import annotations

import functools
import inspect
import secrets
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from channelsq.interface.link.streams_link import StreamsLink
from channelsq.layers import RedisChannelLayer
from tests.integration.clients import test_http as http
from tests.integration.clients import test_websocket as websocket
from tests.support import interfaces

pytestmark = pytest.mark.redis

SCENARIOS: list[tuple[ModuleType, Callable[..., None], dict[str, Any]]] = [
    (websocket, websocket.test_the_connect_message, {}),
    (websocket, websocket.test_text_and_bytes_both_ways, {"compression": None}),
    (websocket, websocket.test_text_and_bytes_both_ways, {"compression": "deflate"}),
    (websocket, websocket.test_fragments_are_put_together, {}),
    (websocket, websocket.test_frames_arrive_in_order_and_one_after_another, {}),
    (websocket, websocket.test_the_disconnect_comes_last_though_the_client_leaves_at_once, {}),
    (websocket, websocket.test_refusal_is_403, {}),
    (websocket, websocket.test_text_implies_the_accept_and_keeps_its_place, {}),
    (websocket, websocket.test_frames_for_a_socket_wait_for_its_accept, {}),
    (websocket, websocket.test_groups_reach_compressed_and_plain_sockets, {}),
    (websocket, websocket.test_a_group_joined_behind_the_clients_back_is_left_too, {}),
    (websocket, websocket.test_close_codes_from_the_application, {"close": 4321, "code": 4321}),
    (websocket, websocket.test_a_burst_of_handshakes_waits_for_room, {}),
    (websocket, websocket.test_full_channel_at_connect_is_503, {}),
    (websocket, websocket.test_an_unreported_message_holds_the_next_one_up_for_a_while, {}),
    (websocket, websocket.test_the_end_closes_sockets_with_1012_and_delivers_the_disconnects, {}),
    (websocket, websocket.test_the_end_does_not_wait_for_ever, {}),
    (http, http.test_the_request_message, {}),
    (http, http.test_bodies_of_any_size, {"size": 3_000_000}),
    (http, http.test_a_burst_waits_for_room, {}),
    (http, http.test_full_channel_is_503, {}),
    (http, http.check_a_request_whose_client_leaves_while_it_waits_for_room_is_not_sent, {}),
    (http, http.test_a_body_waits_while_its_channel_is_full, {}),
    (http, http.test_keep_alive_and_pipelining, {}),
    (http, http.test_a_group_answers_those_that_wait_and_loses_those_that_left, {}),
    (http, http.test_an_answer_that_does_not_come_does_not_hold_up_the_end, {}),
]


def name(scenario: tuple[ModuleType, Callable[..., None], dict[str, Any]]) -> str:
    return "-".join([scenario[1].__name__.removeprefix("test_"), *map(str, scenario[2].values())])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name)
def test_on_redis(scenario: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    module, test, arguments = scenario
    links = []

    def make_layer(**config: Any) -> RedisChannelLayer:
        # Keys of its own: tests share the server.
        options = {"global_keyprefix": f"{secrets.token_hex(4)}:"}
        return RedisChannelLayer(
            url=redis_url.replace("redis:", "redis-streams:"),
            transport_options=options,
            prefix=secrets.token_hex(4),
            **config,
        )

    class Site(interfaces.Site):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            links.append(self.server.context.link)

    monkeypatch.setattr(interfaces, "Site", Site)
    monkeypatch.setattr(module, "running", functools.partial(interfaces.running, make_layer=make_layer))
    fixtures = {
        each: request.getfixturevalue(each) for each in inspect.signature(test).parameters if each not in arguments
    }
    test(**arguments, **fixtures)
    assert links
    assert all(isinstance(link, StreamsLink) for link in links)
