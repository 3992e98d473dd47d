"""The store as Kombu has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Message, Queue

from channelsq.ipc import ipc_url, store
from channelsq.ipc.messages import Message as StoredMessage


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_exchanges_reach_queues_that_another_connection_bound(tmp_path: Path, kind: str) -> None:
    got: list[Any] = []
    url = ipc_url(tmp_path / "ipc")
    exchange = Exchange(f"my-{kind}", kind)

    def take(body: Any, message: Message) -> None:
        got.append(body)
        message.ack()

    queues = [Queue(f"q{n}", exchange, routing_key="news.*" if kind == "topic" else "news.tea") for n in range(2)]
    with Connection(url) as reader, Connection(url) as writer:
        with Consumer(reader.channel(), queues, callbacks=[take]):
            producer = writer.Producer(exchange=exchange)
            producer.publish({"n": 1}, routing_key="news.tea")
            producer.publish({"n": 2}, routing_key="nothing.at.all", declare=[])
            while len(got) < (4 if kind == "fanout" else 2):
                reader.drain_events(timeout=5)
            with pytest.raises(TimeoutError):
                reader.drain_events(timeout=0.05)
        for queue in queues:
            bound = queue(writer.channel())
            bound.delete()
        channel: Any = writer.default_channel
        assert channel.get_table(exchange.name) == []
    expected = [{"n": 1}, {"n": 1}] + ([{"n": 2}, {"n": 2}] if kind == "fanout" else [])
    assert sorted(got, key=str) == expected
    store.store_at(tmp_path / "ipc").close()


def test_what_a_closed_channel_held_comes_again_first_and_marked(tmp_path: Path) -> None:
    with Connection(ipc_url(tmp_path / "ipc")) as connection:
        queue = Queue("q", Exchange(""), routing_key="q")
        producer = connection.Producer()
        for number in range(3):
            producer.publish(number, exchange="", routing_key="q", declare=[queue])
        with connection.channel() as channel:
            first = queue(channel).get()
            second = queue(channel).get()
            assert first is not None
            assert second is not None
            second.ack()
        again = queue(connection.channel()).get()
        assert again is not None
        assert again.payload == 0
        assert again.delivery_info["redelivered"]
        again.reject()
        last = queue(connection.channel()).get(no_ack=True)
        assert last is not None
        assert last.payload == 2
        assert not last.delivery_info.get("redelivered")
        assert queue(connection.channel()).get() is None
    store.store_at(tmp_path / "ipc").close()


def test_a_channel_takes_no_more_than_its_prefetch_count(tmp_path: Path) -> None:
    held: list[Any] = []
    with Connection(ipc_url(tmp_path / "ipc")) as connection:
        queue = Queue("q", Exchange(""), routing_key="q")
        for number in range(3):
            connection.Producer().publish(number, exchange="", routing_key="q", declare=[queue])
        channel: Any = connection.channel()
        channel.basic_qos(0, 2, False)
        with Consumer(channel, [queue], callbacks=[lambda body, message: held.append(message)]):
            for _ in range(2):
                connection.drain_events(timeout=5)
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.05)
            held[0].ack()
            connection.drain_events(timeout=5)
            for message in held[1:]:
                message.ack()
        assert [message.payload for message in held] == [0, 1, 2]
    store.store_at(tmp_path / "ipc").close()


def test_priorities_0_first_and_none_is_0(tmp_path: Path) -> None:
    with Connection(ipc_url(tmp_path / "ipc")) as connection:
        queue = Queue("q", Exchange(""), routing_key="q")
        publish: Any = connection.Producer().publish
        for number, given in enumerate(({"priority": 9}, {"priority": 3}, {}, {"priority": 0}, {"priority": 3})):
            publish(number, exchange="", routing_key="q", declare=[queue], **given)
        got = [queue(connection.default_channel).get(no_ack=True) for _ in range(5)]
        assert [message.payload if message else None for message in got] == [2, 3, 1, 4, 0]
    store.store_at(tmp_path / "ipc").close()


def test_what_is_no_message_of_kombus_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = store.store_at(tmp_path / "ipc")
    place.put("q", StoredMessage(b"\xc1", None))
    with Connection(ipc_url(tmp_path / "ipc")) as connection:
        queue = Queue("q", Exchange(""), routing_key="q")
        assert queue(connection.default_channel).get() is None
    assert "queue q: a message that is not Kombu's was dropped" in caplog.text
    assert place.state("q")[:2] == (0, 0)
    place.close()
