"""Publishing on RabbitMQ: many at once, over lost connections, to queues that are gone, or have other arguments."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection, Queue

from channelsq.exceptions import BrokerUnavailable, ChannelFull
from channelsq.layers import KombuChannelLayer
from channelsq.layers.amqp import amqp_connection, publication
from channelsq.layers.amqp.amqp_sender import AmqpSender
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(60)]

MakeLayer = Callable[..., KombuChannelLayer]


@pytest.fixture
def make(rabbitmq_url: str) -> Iterator[MakeLayer]:
    made: list[KombuChannelLayer] = []
    prefix = f"publisher-{secrets.token_hex(4)}"

    def make(**config: Any) -> KombuChannelLayer:
        made.append(KombuChannelLayer(url=rabbitmq_url, groups_url="redis://127.0.0.1:1/0", prefix=prefix, **config))
        return made[-1]

    yield make
    with Connection(rabbitmq_url) as connection:
        channel: Any = connection.default_channel
        for name in {name for layer in made for name in layer.used}:
            channel.queue_delete(name)
    for layer in made:
        layer.close()


def sender_of(layer: KombuChannelLayer) -> AmqpSender:
    sender = layer._sender
    assert isinstance(sender, AmqpSender)
    return sender


def cut(layer: KombuChannelLayer) -> None:
    """Cut the connection, as a network does."""
    session = sender_of(layer)._admission.publisher._session
    assert session is not None
    session.connection.abort()


def read(layer: KombuChannelLayer, channel: str) -> list[int]:
    found = []
    while (message := layer.receive([channel])[1]) is not None:
        found.append(message["number"])
    return found


def test_threads_share_one_connection_and_their_writes(make: MakeLayer) -> None:
    layer = make(capacity=10_000)

    def send(start: int) -> None:
        for number in range(start, start + 50):
            layer.send("work", {"number": number})

    threads = [threading.Thread(target=send, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = read(layer, "work")
    assert sorted(found) == list(range(400))
    for start in range(0, 400, 50):
        assert [n for n in found if start <= n < start + 50] == list(range(start, start + 50))


def test_a_send_by_itself_is_told_of_by_its_place(make: MakeLayer) -> None:
    layer = make(capacity=3)
    told: list[tuple[int, Exception | None]] = []
    everything = threading.Event()

    def tell(place: int, error: Exception | None) -> None:
        told.append((place, error))
        if len(told) == 5:
            everything.set()

    layer.submit([layer.prepare("work", {"number": number}) for number in range(5)], tell)
    assert everything.wait(20)
    outcomes = dict(told)
    assert [outcomes[place] is None for place in range(5)] == [True] * 3 + [False] * 2
    assert isinstance(outcomes[4], ChannelFull)
    assert read(layer, "work") == [0, 1, 2]


def test_a_lost_connection_is_made_again_for_what_is_not_confirmed(make: MakeLayer) -> None:
    layer = make(capacity=10_000)
    layer.send("work", {"number": 0})
    for number in range(1, 20):
        cut(layer)
        layer.send("work", {"number": number})
    # A message whose confirmation was lost may be there twice.
    assert list(dict.fromkeys(read(layer, "work"))) == list(range(20))


def test_what_is_sent_to_a_deleted_queue_arrives_in_a_new_one(make: MakeLayer) -> None:
    layer = make()
    layer.send("work", {"number": 0})
    with layer.producer() as producer:
        producer.channel.queue_delete(layer.queue("work").name)  # type: ignore[union-attr]
    layer.dispatch([layer.prepare("work", {"number": number}) for number in (1, 2, 3)])
    assert sorted(read(layer, "work")) == [1, 2, 3]


def test_a_queue_with_other_arguments_is_an_error_that_says_what_to_do(make: MakeLayer) -> None:
    layer = make()
    name = layer.queue("work").name
    layer.use(layer.queue("work"))
    with layer.open_connection() as connection:
        Queue(name, routing_key=name, queue_arguments={"x-max-length": 7})(connection.default_channel).queue_declare()
    layer.send("other", {"number": 1})
    with pytest.raises(BrokerUnavailable, match=r"x-max-length.*rabbitmqctl delete_queue"):
        layer.send("work", {"number": 1})
    layer.send("other", {"number": 2})  # on the same connection
    assert read(layer, "other") == [1, 2]


def test_a_queue_that_refuses_is_full(make: MakeLayer) -> None:
    layer = make()
    name = layer.queue("work").name
    with layer.open_connection() as connection:
        arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
        Queue(name, routing_key=name, queue_arguments=arguments)(connection.default_channel).queue_declare()
    # A limit of the queue's own, which the layer does not know.
    admission: Any = sender_of(layer)._admission
    destination = admission._destination
    admission._destination = lambda queue, channel: destination(queue, channel)._replace(arguments=arguments)
    layer.send("work", {"number": 0})
    layer.send("work", {"number": 1})
    with pytest.raises(ChannelFull, match="work"):
        layer.send("work", {"number": 2})
    layer.send("free", {"number": 3})  # on the same connection


def test_a_message_that_is_never_confirmed_ends_with_an_error(make: MakeLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a quorum queue that has lost most of its servers: RabbitMQ takes connections, and confirms nothing."""
    monkeypatch.setattr(publication, "DEADLINE", 3.0)
    monkeypatch.setattr(amqp_connection, "SILENCE", 1.0)
    layer = make(capacity=10_000)
    layer.send("work", {"number": 0})
    publisher = sender_of(layer)._admission.publisher
    layer.close()
    connections: list[object] = []
    connect = publisher._connect

    def counting() -> object:
        connections.append(None)
        return connect()

    monkeypatch.setattr(publisher, "_connect", counting)
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "_on_confirm", lambda *args: None)
        with pytest.raises(BrokerUnavailable, match="confirmed nothing for 1 s"):
            layer.send("work", {"number": 1})
    assert 3 <= len(connections) <= 5  # one a second
    layer.send("work", {"number": 2})  # on a connection that confirms again
    assert read(layer, "work")[-1] == 2


def test_a_quorum_queue_without_a_leader_makes_a_send_wait(make: MakeLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """RabbitMQ refuses what comes before it has elected a leader; so do the first refusals here."""
    layer = make(queue_type="quorum", capacity=10_000)
    publisher = sender_of(layer)._admission.publisher
    on_confirm, refusals = publisher._on_confirm, iter([True] * 3)

    def refusing(session: Any, tag: int, multiple: bool, taken: bool) -> None:
        on_confirm(session, tag, multiple, taken and not next(refusals, False))

    monkeypatch.setattr(publisher, "_on_confirm", refusing)
    threads = threading.active_count()
    layer.dispatch([layer.prepare("work", {"number": number}) for number in range(300)])
    assert next(refusals, None) is None
    assert threading.active_count() <= threads + 1  # the publisher's own, however many messages wait
    assert set(read(layer, "work")) == set(range(300))


def test_a_forked_process_has_a_connection_of_its_own(make: MakeLayer) -> None:
    layer = make()
    layer.send("work", {"number": 0})
    pid = os.fork()
    if pid == 0:
        try:
            layer.send("work", {"number": 1})
        finally:
            os._exit(0)
    wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "the child to end", 30)
    layer.send("work", {"number": 2})
    assert sorted(read(layer, "work")) == [0, 1, 2]


def test_a_closed_layer_can_be_used_again(make: MakeLayer) -> None:
    layer = make()
    for number in range(3):
        layer.send("work", {"number": number})
        layer.close()
    assert read(layer, "work") == [0, 1, 2]
