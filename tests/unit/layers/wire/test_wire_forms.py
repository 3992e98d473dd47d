"""Every form that crosses between processes, byte for byte: what is written today, and what is read.

A test that fails here means that the processes of another release may not understand this one.  A new *optional* field
needs no version: record its bytes beside the old ones, which must still be read.  Any other change of a form is first
read for one release, with WIRE_VERSION counted up, and written in the next; see docs/wire_forms.md, "Versions".
"""

from __future__ import annotations

import datetime
import os
import socket
import time
from typing import Any

import msgpack
import pytest

from channelsq import __version__
from channelsq.core import wire_version
from channelsq.core.wire_version import Announced, NewerWire, announcement, check_headers, read_announcement
from channelsq.delivery import attempts
from channelsq.interface.websocket.packing import FramePacker
from channelsq.layers.contract.membership_notes import Change, note, read_note
from channelsq.layers.wire import codec, signing, wire_forms
from channelsq.layers.wire.signing import Signing, sign_bare
from channelsq.layers.wire.stream_commands import StreamCommands, open_bare
from channelsq.layers.wire.wire_forms import (
    Entry,
    PackedNames,
    done_message,
    open_envelope,
    open_task_body,
    timed_done_message,
)
from channelsq.redis_core.compact import decode_compact
from channelsq.transport import payloads as transport_codec

SOCKET, OTHER = "websocket.send.p!a", "websocket.send.p!b"
HELLO = b"\x81\xa4text\xa5hello"
IDENTITY = "0a1b-2"
SECRET = "golden"
NOW = 1_800_000_000.0

COMMANDS = StreamCommands("", 60)

ENVELOPE = (
    b"\x93"
    b"\x94\x91\xb2websocket.send.p!a\xc4\x0c\x81\xa4text\xa5hello\xc0\x07"
    b"\x94\x92\xb2websocket.send.p!a\xb2websocket.send.p!b\xc4\x0c\x81\xa4text\xa5hello\xa4room\xc0"
    b"\x94\x91\xb2websocket.send.p!a\xc4\x09\x81\xa4done\xcd\x01\x2c\xc0\xc0"
)
ENTRIES = [
    Entry([SOCKET], HELLO, None, 7),
    Entry([SOCKET, OTHER], HELLO, "room"),
    Entry([SOCKET], done_message(300)),
]
TASK_BODY = b"\x93\x92\xb1websocket.receive\x81\xa4text\xa5hello\x80\x80"
COMPACT_TASK = b"\x94\xb1websocket.receive\xa60a1b-2\xc6\x00\x00\x00\x22" + TASK_BODY + b"\xcd\xea\x60"
COMPACT_BARE = b"\x94\xc0\xc0\xc6\x00\x00\x00\x84" + ENVELOPE + b"\xcd\xea\x60"
PAYLOAD: dict[str, Any] = {
    "body": b"\x93",
    "content-type": "application/x-msgpack",
    "content-encoding": "binary",
    "headers": {"task": "t", "id": "1", "eta": datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)},
    "properties": {"delivery_info": {"exchange": "", "routing_key": "q"}, "expiration": "60000"},
}
WHOLE = (
    b"\x85\xa4body\xc4\x01\x93\xaccontent-type\xb5application/x-msgpack\xb0content-encoding\xa6binary"
    b"\xa7headers\x83\xa4task\xa1t\xa2id\xa11\xa3eta\xc7\x42\x01"
    b'{"__type__": "datetime", "__value__": "2027-01-01T00:00:00+00:00"}'
    b"\xaaproperties\x82\xaddelivery_info\x82\xa8exchange\xa0\xabrouting_key\xa1q\xaaexpiration\xa560000"
)


# -- to workers -----------------------------------------------------------------------------------


def test_a_channels_message_on_streams() -> None:
    command = COMMANDS.task("websocket.receive", HELLO, IDENTITY)
    assert command == ("XADD", "stream:websocket.receive", "*", "m", COMPACT_TASK, "x", 60_000)
    assert decode_compact(COMPACT_TASK) == ("websocket.receive", IDENTITY, TASK_BODY, 60_000)
    assert open_task_body(TASK_BODY) == {"text": "hello"}


def test_a_channels_message_that_interface_servers_pack_in_one_step() -> None:
    form = COMMANDS.packed_task("websocket.receive", HELLO, IDENTITY)
    assert form == (
        b"*7\r\n$4\r\nXADD\r\n$24\r\nstream:websocket.receive\r\n$1\r\n*\r\n$1\r\nm\r\n"
        b"$%d\r\n%b\r\n$1\r\nx\r\n$5\r\n60000\r\n" % (len(COMPACT_TASK), COMPACT_TASK)
    )


def test_a_channels_message_on_any_broker() -> None:
    headers, body = wire_forms.task_message(
        "websocket.receive", "websocket.receive", HELLO, delay=0.0, expiry=60.0, expires=NOW, identity=IDENTITY
    )
    assert body == TASK_BODY
    assert headers.pop("origin").startswith("channelsq@")
    assert headers == {
        "lang": "py", "task": "websocket.receive", "id": IDENTITY, "root_id": IDENTITY, "parent_id": None,
        "group": None, "retries": 0, "eta": None, "expires": None, "timelimit": [None, None],
        "argsrepr": "('websocket.receive', …)", "kwargsrepr": "{}", "ignore_result": True, "channelsq_expires": NOW,
    }  # fmt: skip


def test_a_whole_message_of_kombus() -> None:
    assert transport_codec.encode(PAYLOAD) == WHOLE
    assert transport_codec.decode(WHOLE) == PAYLOAD


@pytest.mark.parametrize(
    ("payload", "timed", "form"),
    [
        ("hello", False, b"\x84\xadreply_channel\xb2websocket.send.p!a\xa4path\xa1/\xa5order\x07\xa4text\xa5hello"),
        (b"\x00", False, b"\x84\xadreply_channel\xb2websocket.send.p!a\xa4path\xa1/\xa5order\x07\xa5bytes\xc4\x01\x00"),
        (
            "hello",
            True,
            b"\x85\xafchannelsq.timed\xc3\xadreply_channel\xb2websocket.send.p!a\xa4path\xa1/\xa5order\x07"
            b"\xa4text\xa5hello",
        ),
    ],
    ids=["text", "bytes", "timed"],
)
def test_a_frame(payload: str | bytes, timed: bool, form: bytes) -> None:
    assert FramePacker(SOCKET, "/", timed=timed).pack(payload, 7, 1000) == form


def test_a_frame_of_a_site_below_a_path() -> None:
    form = b"\x85\xadreply_channel\xb2websocket.send.p!a\xa4path\xa5/m/in\xa9root_path\xa2/m\xa5order\x07\xa4text\xa1x"
    assert FramePacker(SOCKET, "/m/in", "/m").pack("x", 7, 1000) == form


def test_keys_that_consumers_do_not_see() -> None:
    assert (attempts.WIRE_KEY, attempts.HANDED_KEY, attempts.ATTEMPT, attempts.PART, wire_forms.TIMED_KEY) == (
        "channelsq.wire", "channelsq.attempt", "attempt", "part", "channelsq.timed",
    )  # fmt: skip


# -- to interface servers -------------------------------------------------------------------------


def test_an_envelope() -> None:
    assert [body for _, body in wire_forms.pack_envelopes(ENTRIES)] == [ENVELOPE]
    spliced = [*ENTRIES[:1], Entry(PackedNames(codec.dumps([SOCKET, OTHER])), HELLO, "room"), *ENTRIES[2:]]
    assert [body for _, body in wire_forms.pack_envelopes(spliced)] == [ENVELOPE]
    assert open_envelope(ENVELOPE) == [
        Entry([SOCKET], HELLO),
        Entry([SOCKET], done_message(7)),
        *ENTRIES[1:],
    ]


def test_an_envelope_on_streams() -> None:
    assert COMMANDS.bare("websocket.send.p", ENVELOPE) == [
        ("XADD", "stream:websocket.send.p", "*", "m", COMPACT_BARE, "x", 60_000),
        ("PEXPIRE", "stream:websocket.send.p", 300_000, "NX"),
    ]
    assert open_bare(COMPACT_BARE) == (ENVELOPE, 60_000)


def test_reports() -> None:
    assert done_message(7) == b"\x81\xa4done\x07"
    assert wire_forms.FAILED_CONNECT == b"\x82\xa4done\x00\xa6failed\xc3"
    assert timed_done_message(7, 0.5) == b"\x82\xa4done\x07\xa4took\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("joined", "form"),
    [
        (True, b"\x81\xa6joined\x92\xa4room\xb2websocket.send.p!a"),
        (False, b"\x81\xa4left\x92\xa4room\xb2websocket.send.p!a"),
    ],
)
def test_notes_of_memberships(joined: bool, form: bytes) -> None:
    change = Change("room", SOCKET, joined)
    send = note(change)
    assert send is not None
    assert (send.target, send.body) == ("websocket.send.p!", form)
    assert read_note(codec.unpack(form)) == change


# -- signatures -----------------------------------------------------------------------------------

BARE = bytes.fromhex("c1000001a3185d3a60bdf3df7bdb60187905f2fcc2b5c8f7d34e8561b52ee7d2390dd1f4eae817b7c6") + b"body"
SIGNED_TASK = (
    TASK_BODY[:-1]
    + b"\x81\xa9channelsq\xc4\x28"
    + bytes.fromhex("000001a3185d3a608892a948f75c1d36595fb938589b4ad0293db6705040fa682c62fa465bc1bdab")
)
CALL = "000001a31d82ac00cd0d4ce5ca37caade3230635bd4ed256eaa25b6ef83a55414db0d8d1ff070b77"


@pytest.fixture
def signs(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A layer's signing with a known key, at a known time."""
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = SECRET, []
    signing.forget_keys()
    monkeypatch.setattr(time, "time", lambda: NOW)
    yield Signing("channelsq", required=True)
    signing.forget_keys()


def test_signatures(signs: Signing) -> None:
    assert sign_bare("channelsq", "q", b"body", 60_000) == BARE
    assert signs.task("q", IDENTITY, TASK_BODY[:-1], 60_000) == SIGNED_TASK
    assert signs.call("app.consumer", IDENTITY, ["c", {"a": b"b"}], {}) == CALL
    assert signing.HEADER == "channelsq_signature"
    assert signs.open_bare("q", BARE) == b"body"
    signs.check_task("q", IDENTITY, SIGNED_TASK)
    signs.check_call("app.consumer", IDENTITY, ["c", {"a": b"b"}], {}, CALL)
    assert open_task_body(SIGNED_TASK) == {"text": "hello"}


# -- versions -------------------------------------------------------------------------------------


def test_what_a_process_announces() -> None:
    host, pid = socket.gethostname(), os.getpid()
    form = f'{{"wire": 1, "channelsq": "{__version__}", "host": "{host}", "pid": {pid}}}'
    assert announcement() == form
    assert read_announcement("worker", "w", form) == Announced("worker", "w", 1, __version__, host, pid)
    assert announcement({"channels": ["a"], "runs": "b"}) == form[:-1] + ', "channels": ["a"], "runs": "b"}'
    told = read_announcement("worker", "w", announcement({"channels": ["a"], "runs": "b"}))
    assert told == Announced("worker", "w", 1, __version__, host, pid, ("a",), "b")


def test_what_a_process_announced_before_there_was_more() -> None:
    form = f'{{"wire": 1, "channelsq": "{__version__}"}}'
    assert read_announcement("worker", "w", form) == Announced("worker", "w", 1, __version__)


@pytest.mark.parametrize("form", ["1", "", "junk", "[]", '{"wire": "2"}', "null"])
def test_what_announces_nothing_has_version_1(form: str) -> None:
    assert read_announcement("interface", "i", form) == Announced("interface", "i", 1, "")


def test_an_announcement_with_more_in_it() -> None:
    form = '{"wire": 3, "channelsq": "9.0", "unheard": [1]}'
    assert read_announcement("interface", "i", form) == Announced("interface", "i", 3, "9.0")


def test_the_marks_of_what_needs_a_newer_process(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = msgpack.packb([2, "anything"])
    for read in (transport_codec.decode, decode_compact, open_bare):
        with pytest.raises(NewerWire, match=r"needs wire version 2, and channelsq .* version 1: update this process"):
            read(marked)
    with pytest.raises(NewerWire, match="needs wire version 2"):
        check_headers({"channelsq_needs": 2})
    for headers in (None, {}, {"channelsq_needs": 1}, {"channelsq_needs": "2"}, {"channelsq_needs": True}):
        check_headers(headers)
    monkeypatch.setattr(wire_version, "WIRE_VERSION", 2)
    check_headers({"channelsq_needs": 2})


# -- what a newer process has put behind ----------------------------------------------------------


def test_fields_behind_the_compact_form() -> None:
    for form in (COMPACT_TASK, COMPACT_BARE):
        longer = msgpack.packb([*msgpack.unpackb(form), {"unheard": 1}, 5])
        assert decode_compact(longer) == decode_compact(form)
        assert transport_codec.decode(longer) == transport_codec.decode(form)


def test_fields_behind_the_entries_of_an_envelope() -> None:
    longer = codec.dumps([[*entry, {"unheard": 1}, 5] for entry in codec.loads(ENVELOPE)])
    assert open_envelope(longer) == open_envelope(ENVELOPE)


def test_fields_behind_a_note() -> None:
    assert read_note({"joined": ["room", SOCKET, 5], "unheard": 1}) == Change("room", SOCKET, joined=True)


def test_keys_beside_those_of_kombus_messages() -> None:
    more = {**PAYLOAD, "unheard": 1, "headers": {**PAYLOAD["headers"], "unheard": 1}}
    assert transport_codec.decode(transport_codec.encode(more)) == more


def test_a_part_of_the_embed_that_is_not_known() -> None:
    assert open_task_body(TASK_BODY[:-1] + b"\x81\xa7unheard\x01") == {"text": "hello"}
