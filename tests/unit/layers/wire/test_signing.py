"""Signatures of messages between processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from kombu.utils import json as kombu_json

from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers import InMemoryChannelLayer, KombuChannelLayer, RedisChannelLayer
from channelsq.layers.wire import codec, signing
from channelsq.layers.wire.protection import Protection
from channelsq.layers.wire.signing import REDELIVERY, SKEW, Refused, Signing, sign_bare, without_signature
from channelsq.layers.wire.stream_commands import StreamCommands
from channelsq.layers.wire.wire_forms import open_task_body, task_message
from channelsq.redis_core.commands import pack
from channelsq.redis_core.compact import decode_compact
from tests.support.logs import action_of

QUEUE, ID = "websocket.receive", "0a1b-1"
HEAD = b"\x93\x92" + codec.dumps("websocket.receive") + codec.dumps({"text": "hello"}) + b"\x80"


@pytest.fixture
def required() -> Signing:
    return Signing("channelsq", required=True)


@pytest.fixture
def new_secret(settings: Any) -> Any:
    """Changes SECRET_KEY, perhaps with the old one among the fallbacks."""

    def change(*, keep: bool) -> None:
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY] if keep else []
        settings.SECRET_KEY = "another"
        signing.forget_keys()

    yield change
    signing.forget_keys()


def test_what_is_signed_is_taken(required: Signing) -> None:
    assert required.open_bare("q", required.bare("q", b"body", 1000)) == b"body"
    assert required.open_bare("q", sign_bare("channelsq", "q", b"", 1000)) == b""
    body = required.task(QUEUE, ID, HEAD, 1000)
    required.check_task(QUEUE, ID, body)
    assert required.is_signed(QUEUE, ID, body)
    required.check_call(
        "app.consumer", ID, ["c", {}], {"a": "b"}, required.call("app.consumer", ID, ("c", {}), {"a": "b"})
    )
    assert required.refused == 0


def test_a_signed_message_is_celerys_as_it_was(required: Signing) -> None:
    args, kwargs, embed = msgpack.unpackb(required.task(QUEUE, ID, HEAD, 1000))
    assert (args, kwargs, list(embed)) == (["websocket.receive", {"text": "hello"}], {}, ["channelsq"])
    assert open_task_body(required.task(QUEUE, ID, HEAD, 1000)) == {"text": "hello"}


def test_who_does_not_look_reads_past_signatures(required: Signing) -> None:
    assert without_signature(required.bare("q", b"body", 1000)) == b"body"
    for body in (b"", b"\x90", b"\x81\xa4done\x01"):
        assert without_signature(body) == body


def flips(body: bytes) -> list[bytes]:
    """The body with one bit changed, at each place."""
    return [body[:n] + bytes([body[n] ^ 1]) + body[n + 1 :] for n in range(len(body))]


def test_no_bit_can_be_changed(required: Signing) -> None:
    for body in flips(required.bare("q", b"body", 1000)):
        with pytest.raises(Refused):
            required.open_bare("q", body)
    for body in flips(required.task(QUEUE, ID, HEAD, 1000)):
        with pytest.raises(Refused):
            required.check_task(QUEUE, ID, body)
        assert not required.is_signed(QUEUE, ID, body)


def test_nothing_can_be_moved(required: Signing) -> None:
    """To another queue, id, task or kind; nor to a layer of another prefix."""
    bare, task = required.bare("q", b"body", 1000), required.task(QUEUE, ID, HEAD, 1000)
    with pytest.raises(Refused, match="wrong"):
        required.open_bare("other", bare)
    for queue, identity in (("websocket.connect", ID), (QUEUE, "other"), (QUEUE, ""), (QUEUE, None)):
        with pytest.raises(Refused, match="wrong"):
            required.check_task(queue, identity, task)
    call = required.call("app.consumer", ID, ["c", {}], {})
    for name, identity, args, kwargs in (
        ("app.other", ID, ["c", {}], {}),
        ("app.consumer", "other", ["c", {}], {}),
        ("app.consumer", ID, ["c", {"a": 1}], {}),
        ("app.consumer", ID, ["c", {}], {"a": 1}),
    ):
        with pytest.raises(Refused, match="wrong"):
            required.check_call(name, identity, args, kwargs, call)
    other = Signing("other", required=True)
    with pytest.raises(Refused, match="wrong"):
        other.open_bare("q", bare)
    # What is said of one kind is none of another.
    with pytest.raises(Refused):
        required.open_bare(f"{QUEUE}\0{ID}", b"\xc1" + task[-40:] + task[:-51])


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\xc1" + bytes(40), b"\x90", HEAD + b"\x80", bytes(500)], ids=repr)
def test_what_is_not_signed(required: Signing, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    tries: list[Callable[[], object]] = [
        lambda: required.open_bare("q", body), lambda: required.check_task(QUEUE, ID, body),
    ]  # fmt: skip
    for number, check in enumerate(tries, start=1):
        with pytest.raises(Refused):
            check()
        assert required.refused == number
    for signature in (None, 5, "", "no hex", "00" * 40):
        with pytest.raises(Refused):
            required.check_call("app.consumer", ID, [], {}, signature)
    assert {action_of(record) for record in caplog.records} == {"unsigned_refused"}
    assert len(caplog.records) == 7
    assert all(record.exc_info is None for record in caplog.records)


def test_signatures_grow_old(required: Signing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that was recorded is good for its expiry; a message to a worker for a day more, as its worker may die."""
    bare, task = required.bare("q", b"body", 60_000), required.task(QUEUE, ID, HEAD, 60_000)
    call, later = (required.call("app.consumer", ID, [], {}, delay) for delay in (0, 120))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60 + SKEW - 1)
    assert required.open_bare("q", bare) == b"body"
    monkeypatch.setattr(time, "time", lambda: now + 60 + SKEW + 1)
    with pytest.raises(Refused, match="it has expired"):
        required.open_bare("q", bare)
    required.check_task(QUEUE, ID, task)
    monkeypatch.setattr(time, "time", lambda: now + 61 + REDELIVERY)
    with pytest.raises(Refused, match="over a day ago"):
        required.check_task(QUEUE, ID, task)
    with pytest.raises(Refused, match="over a day ago"):
        required.check_call("app.consumer", ID, [], {}, call)
    required.check_call("app.consumer", ID, [], {}, later)


def test_another_secret_key(required: Signing, new_secret: Any) -> None:
    bare, task = required.bare("q", b"body", 1000), required.task(QUEUE, ID, HEAD, 1000)
    new_secret(keep=True)
    assert required.open_bare("q", bare) == b"body"
    required.check_task(QUEUE, ID, task)
    assert required.bare("q", b"body", 1000)[-36:-4] != bare[-36:-4]
    new_secret(keep=False)
    with pytest.raises(Refused, match="wrong"):
        required.open_bare("q", bare)


def test_while_it_is_only_told_of(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []
    lenient = Signing("channelsq", required=False)
    lenient.listener = lambda: told.append(lenient.refused)
    signed = lenient.bare("q", b"body", 1000)
    assert lenient.open_bare("q", signed) == b"body"
    assert lenient.open_bare("q", b"body") == b"body"
    assert lenient.open_bare("other", signed) == b"body"
    lenient.check_task(QUEUE, ID, HEAD + b"\x80")
    assert (lenient.refused, told) == (3, [1, 2, 3])
    (record,) = caplog.records  # once a minute
    assert action_of(record) == "unsigned_taken"


def test_arguments_are_the_same_after_a_serializer(required: Signing) -> None:
    args = ("c", {"text": "é", "bytes": b"\xff\0", "list": [1, 2.5, None, True], "map": {"a": {"b": -(2**63)}}})
    call = required.call("app.consumer", ID, args, {"room": "tea"})
    for there in (kombu_json.loads(kombu_json.dumps(args)), msgpack.unpackb(msgpack.packb(args))):
        required.check_call("app.consumer", ID, there, {"room": "tea"}, call)


def test_stream_commands_sign(required: Signing) -> None:
    commands = StreamCommands("", 60, "site:", Protection(required))
    add, _ = commands.bare("websocket.send.p1", b"body")
    assert isinstance(add[4], bytes)
    assert required.open_bare("site:websocket.send.p1", decode_compact(add[4])[2]) == b"body"
    command = commands.task("websocket.receive", codec.dumps({"text": "hello"}), "1-1")
    assert isinstance(command[4], bytes)
    name, identity, body, lifetime = decode_compact(command[4])
    assert (name, identity, lifetime) == ("site:websocket.receive", "1-1", 60_000)
    required.check_task("site:websocket.receive", "1-1", body)
    packed = commands.packer("websocket.receive", codec.dumps({"text": "hello"}), "1-1")
    assert len(packed) == len(pack([command]))
    plain = StreamCommands("", 60)
    assert plain.packer == plain.packed_task


def test_kombu_messages_are_signed(required: Signing) -> None:
    packed, protection = codec.dumps({"a": 1}), Protection(required)
    headers, body = task_message("c", "site:c", packed, delay=3, expiry=60, protection=protection)
    required.check_task("site:c", headers["id"], body)
    assert open_task_body(body) == {"a": 1}


@pytest.mark.parametrize(("value", "meaning"), [(False, None), ("sign", False), (True, True), ("require", True)])
def test_the_setting(value: Any, meaning: bool | None) -> None:
    layer = RedisChannelLayer(url="redis-streams://127.0.0.1:1/0", signing=value)
    assert (None if layer.signing is None else layer.signing.required) is meaning
    assert KombuChannelLayer(url="memory://", signing=value).signing is None, "nothing leaves the process"


def test_settings_that_mean_nothing() -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"CONFIG\['signing'\] must be True .*, not 'yes'"):
        RedisChannelLayer(url="redis://127.0.0.1:1/0", signing="yes")
    assert InMemoryChannelLayer().signing is None
