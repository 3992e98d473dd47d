"""Encryption and signatures together."""

from __future__ import annotations

import pytest

from channelsq.layers.wire import codec
from channelsq.layers.wire.encryption import Encryption
from channelsq.layers.wire.protection import NONE, Protection
from channelsq.layers.wire.signing import Refused, Signing
from channelsq.layers.wire.stream_commands import StreamCommands
from channelsq.layers.wire.wire_forms import open_task_body, task_message
from channelsq.redis_core.commands import pack
from channelsq.redis_core.compact import decode_compact

HELLO = {"text": "hello"}
START = b"\x93\x92" + codec.dumps("c")


@pytest.fixture(params=["signs", "encrypts", "both"])
def protection(request: pytest.FixtureRequest) -> Protection:
    signing = None if request.param == "encrypts" else Signing("channelsq", required=True)
    keys = [] if request.param == "signs" else [b"k" * 32]
    return Protection(signing, Encryption("channelsq", keys))


def test_without_either_nothing_is_changed() -> None:
    assert not NONE.is_on
    assert NONE.bare("q", b"body", 1000) == NONE.open_bare("q", b"body") == b"body"
    assert open_task_body(NONE.task("q", "1", START, codec.dumps(HELLO), 1000)) == HELLO


def test_envelopes(protection: Protection) -> None:
    assert protection.is_on
    body = protection.bare("q", codec.dumps([]), 1000)
    assert protection.open_bare("q", body) == codec.dumps([])
    with pytest.raises(Refused):
        protection.open_bare("another", body)
    with pytest.raises(Refused):
        protection.open_bare("q", codec.dumps([]))


def test_messages_to_workers(protection: Protection) -> None:
    body = protection.task("q", "1", START, codec.dumps(HELLO), 1000)
    protection.check_task("q", "1", body)
    assert protection.open_content("q", open_task_body(body)) == HELLO


def test_stream_commands(protection: Protection) -> None:
    commands = StreamCommands("", 60, "site:", protection)
    add, _ = commands.bare("websocket.send.p1", b"\x90")
    assert isinstance(add[4], bytes)
    assert protection.open_bare("site:websocket.send.p1", decode_compact(add[4])[2]) == b"\x90"
    command = commands.task("c", codec.dumps(HELLO), "1-1")
    assert isinstance(command[4], bytes)
    _, identity, body, _ = decode_compact(command[4])
    protection.check_task("site:c", identity, body)
    assert protection.open_content("site:c", open_task_body(body)) == HELLO
    assert len(commands.packer("c", codec.dumps(HELLO), "1-1")) == len(pack([command]))


def test_kombus_messages(protection: Protection) -> None:
    headers, body = task_message("c", "site:c", codec.dumps(HELLO), delay=3, expiry=60, protection=protection)
    protection.check_task("site:c", headers["id"], body)
    assert protection.open_content("site:c", open_task_body(body)) == HELLO
