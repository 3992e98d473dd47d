"""Messages are encrypted on every layer with a wire: only processes with the keys read them, or are understood."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.gateway.channel_reader import ChannelReader
from channelsq.layers import BaseChannelLayer, KombuChannelLayer
from channelsq.layers.wire.wire_forms import raw_body
from tests.contract.conftest import MakeLayer
from tests.contract.test_foreign_content import received
from tests.support.waiting import wait_until

OLD, NEW, WRONG = "old-" * 8, "new-" * 8, "wrong" * 8

pytestmark = pytest.mark.parametrize(
    "make_layer",
    [
        "ipc",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("redis-streams", marks=pytest.mark.redis),
        pytest.param("redis-shards", marks=pytest.mark.redis),
        pytest.param("rabbitmq", marks=[pytest.mark.rabbitmq, pytest.mark.redis]),
    ],
    indirect=True,
)


def channels_of(layer: Any) -> list[str]:
    """A channel of each kind."""
    return ["jobs", layer.new_channel("answers?"), layer.new_channel("answers!")]


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "undecrypted_refused"]


def refuses(layer: BaseChannelLayer, channel: str, caplog: pytest.LogCaptureFixture, number: int) -> bool:
    """Return whether nothing more comes, perhaps from another server, and so many messages were refused."""
    return layer.receive([channel]) == (None, None) and len(refusals(caplog)) == number


@pytest.mark.parametrize("signing", [False, True])
def test_round_trips(make_layer: MakeLayer, signing: bool, caplog: pytest.LogCaptureFixture) -> None:
    layer = make_layer(symmetric_encryption_keys=[NEW], signing=signing)
    content = {"text": "hello", "bytes": b"\0\xff", "deep": [{"a": None}], "long": "x" * 100_000}
    for channel in channels_of(layer):
        layer.send(channel, content)
        assert received(layer, channel) == (channel, content)
    member = layer.new_channel("answers!")
    layer.group_add("group", member)
    layer.group_add("group", "jobs")
    layer.send_group("group", {"text": "to all"})
    assert received(layer, member) == (member, {"text": "to all"})
    assert received(layer, "jobs") == ("jobs", {"text": "to all"})
    layer.send("jobs", {"text": "late"}, delay=0.05)
    assert received(layer, "jobs") == ("jobs", {"text": "late"})
    assert refusals(caplog) == []


def test_listeners(make_layer: MakeLayer) -> None:
    layer = make_layer(symmetric_encryption_keys=[NEW])
    channel = layer.new_channel("answers!")
    heard: list[Any] = []

    def deliver(channels: Sequence[str], message: dict[str, Any], group: str | None) -> None:
        heard.append((list(channels), message, group))

    listener = layer.listen(channel.partition("!")[0] + "!", deliver)
    try:
        layer.group_add("group", channel)
        layer.send(channel, {"text": "one"})
        layer.send_group("group", {"text": "two"})
        wait_until(lambda: len(heard) == 2, "both messages", 30)
    finally:
        listener.stop()
    assert heard == [([channel], {"text": "one"}, None), ([channel], {"text": "two"}, "group")]


def test_gateways_read_encrypted_messages(make_layer: MakeLayer, caplog: pytest.LogCaptureFixture) -> None:
    """Other interface servers read channels such as ``sms.send``; delayed messages take another way there."""
    layer, plain = make_layer(symmetric_encryption_keys=[NEW]), make_layer()
    plain.send("sms.send", {"text": "forged"})
    layer.send("sms.send", {"text": "hello"})
    layer.send("sms.send", {"text": "late"}, delay=0.05)

    async def read() -> list[Any]:
        taken: asyncio.Queue[Any] = asyncio.Queue()
        reader = ChannelReader(ChannelLayerWrapper(layer, "default", []), ["sms.send"], 10, taken.put_nowait)
        reader.start()
        try:
            async with asyncio.timeout(30):
                found = [await taken.get(), await taken.get()]
            for each in found:
                reader.settle(each)
            await asyncio.to_thread(wait_until, lambda: refusals(caplog), "the refusal", 20)
        finally:
            await reader.cease()
            await reader.close()
        return [each.content["text"] for each in found]

    assert sorted(asyncio.run(read())) == ["hello", "late"]
    assert len(refusals(caplog)) == 1


def test_nothing_on_the_broker_is_readable(make_layer: MakeLayer) -> None:
    layer = make_layer(symmetric_encryption_keys=[NEW])
    secret, client = "a secret text", layer.new_channel("answers!")
    layer.group_add("group", client)
    for channel in [*channels_of(layer)[:2], client]:
        layer.send(channel, {"text": secret})
        bodies = raw_bodies(layer, channel)
        layer.send_group("group", {"text": secret})
        assert bodies
        for body in bodies:
            assert secret.encode() not in body
            assert b"text" not in body
            assert client.encode() not in body, "the names in envelopes are encrypted, too"


def raw_bodies(layer: BaseChannelLayer, channel: str) -> list[bytes]:
    """Return the bodies that another Kombu program reads on a channel's queue."""

    def take() -> list[bytes]:
        found: list[bytes] = []
        for part in layer.parts:  # the servers, if there are several
            assert isinstance(part, KombuChannelLayer)
            with part.open_connection() as connection:
                bound = part.queue(channel)(connection.default_channel)
                bound.queue_declare()
                while (message := bound.get(no_ack=True, accept=["application/x-msgpack"])) is not None:
                    found.append(raw_body(message))
        return found

    return wait_until(take, "the message", 20)


def test_keys_are_rotated_while_processes_run(make_layer: MakeLayer) -> None:
    """First the new key decrypts everywhere, then it encrypts, then the old one goes."""
    phases = [make_layer(symmetric_encryption_keys=keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW])]
    for before, after in itertools.pairwise(phases):
        for sender, reader in ((before, after), (after, before)):
            channels = ["jobs", sender.new_channel("answers?"), reader.new_channel("answers!")]
            for channel in channels:
                sender.send(channel, {"text": channel})
                assert received(reader, channel) == (channel, {"text": channel})


@pytest.mark.parametrize("other", [{"symmetric_encryption_keys": [WRONG]}, {}], ids=["wrong key", "not encrypted"])
def test_what_cannot_be_decrypted_is_refused(
    make_layer: MakeLayer, other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    layer, stranger = make_layer(symmetric_encryption_keys=[NEW]), make_layer(**other)
    for number, channel in enumerate(channels_of(layer), 1):
        stranger.send(channel, {"text": "strange"})
        layer.send(channel, {"text": "ours"})
        assert received(layer, channel) == (channel, {"text": "ours"})
        wait_until(lambda: refuses(layer, channel, caplog, number), "the refusal")  # noqa: B023
    told = refusals(caplog)
    assert len(told) == 3
    problem = "it cannot be decrypted: none of CONFIG" if other else "it is not encrypted, where CONFIG"
    assert all(problem in each for each in told)


def test_without_keys_encrypted_messages_are_refused(make_layer: MakeLayer, caplog: pytest.LogCaptureFixture) -> None:
    plain, encrypted = make_layer(), make_layer(symmetric_encryption_keys=[NEW])
    for number, channel in enumerate(channels_of(plain), 1):
        encrypted.send(channel, {"text": "theirs"})
        plain.send(channel, {"text": "ours"})
        assert received(plain, channel) == (channel, {"text": "ours"})
        wait_until(lambda: refuses(plain, channel, caplog, number), "the refusal")  # noqa: B023
    told = refusals(caplog)
    assert len(told) == 3
    assert all("it is encrypted, and CONFIG['symmetric_encryption_keys'] is missing here" in each for each in told)


def test_a_message_cannot_be_moved_to_another_channel(make_layer: MakeLayer, caplog: pytest.LogCaptureFixture) -> None:
    layer = make_layer(symmetric_encryption_keys=[NEW])
    layer.send("jobs", {"text": "move me"})
    (body,) = raw_bodies(layer, "jobs")
    part: Any = layer.parts[0]
    queue = part.queue("others")
    part.use(queue)
    with part.open_connection() as connection:
        connection.Producer().publish(
            body.replace(b"\xa4jobs", b"\xa6others"),
            exchange="",
            routing_key=queue.name,
            content_type="application/x-msgpack",
            content_encoding="binary",
            headers={"id": "0", "task": queue.name},
            declare=[queue],
        )
    layer.send("others", {"text": "ours"})
    assert received(layer, "others") == ("others", {"text": "ours"})
    assert len(refusals(caplog)) == 1
