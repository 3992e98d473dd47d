"""The waits of layers and workers for a broker, and of py-amqp."""

from __future__ import annotations

import select
import struct
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from channelsq import conf
from channelsq.layers import KombuChannelLayer
from channelsq.layers.kombu_broker import amqp_heartbeats, amqp_internals, patience, worker_connection
from channelsq.layers.kombu_broker.amqp_internals import SILENCE, bound, bound_publisher
from tests.support.fakes.amqp_servers import FakeAmqpServer


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An app that the layers take for the project's."""
    app = Celery("patience", broker="amqp://", set_as_current=False)
    monkeypatch.setattr(conf, "celery_app", lambda: app)
    return app


def set_up(app: Celery, pool: str = "prefork") -> Any:
    worker_connection.install(sender=SimpleNamespace(app=app, pool_cls=pool))
    return app.conf


def test_a_worker_on_rabbitmq(app: Celery) -> None:
    settings = set_up(app)
    assert settings.broker_heartbeat == patience.HEARTBEAT == 10
    assert settings.broker_transport_options == {"on_open": bound}


def test_a_solo_worker_on_rabbitmq(app: Celery) -> None:
    """RabbitMQ would take it for dead during a task of some 20 seconds."""
    set_up(app, "celery.concurrency.solo:TaskPool")
    assert not conf.is_chosen(app, "broker_heartbeat")


def test_a_worker_on_kombus_redis_transport(app: Celery) -> None:
    app.conf.update(broker_url="redis://localhost")
    settings = set_up(app)
    assert settings.broker_transport_options == {
        "socket_timeout": 15,
        "socket_connect_timeout": 5,
        "unacked_mutex_expire": 5,
    }
    assert not conf.is_chosen(app, "broker_heartbeat")


@pytest.mark.parametrize("url", ["redis-streams://localhost", "ipc://site", "memory://"])
def test_a_worker_elsewhere(app: Celery, url: str) -> None:
    app.conf.update(broker_url=url)
    assert not set_up(app).broker_transport_options


def test_what_the_project_has_set_stays(app: Celery) -> None:
    app.conf.update(broker_url="redis://localhost")
    app.conf.broker_transport_options = {"unacked_mutex_expire": 60, "visibility_timeout": 45}
    options = set_up(app).broker_transport_options
    assert options["unacked_mutex_expire"] == 60
    assert options["visibility_timeout"] == 45
    assert options["socket_timeout"] == 15


@pytest.mark.parametrize("chosen", [0, 30, 120])
def test_a_heartbeat_that_the_project_has_set_stays(chosen: int) -> None:
    app = Celery("patience", broker="amqp://", set_as_current=False)
    app.config_from_object({"CELERY_BROKER_HEARTBEAT": chosen}, namespace="CELERY")
    assert set_up(app).broker_heartbeat == chosen
    assert patience.heartbeat(app) == chosen


def test_settings_with_a_prefix_are_chosen() -> None:
    app = Celery("patience", set_as_current=False)
    app.config_from_object({"CELERY_WORKER_POOL": "prefork", "CELERY_WORKER_CONCURRENCY": 3}, namespace="CELERY")
    assert conf.is_chosen(app, "worker_pool")
    assert not conf.is_chosen(app, "broker_heartbeat")


def options_of(connection: Connection) -> dict[str, Any]:
    assert connection.transport_options is not None
    return connection.transport_options


def test_layers(app: Celery) -> None:
    amqp = KombuChannelLayer(url="amqp://localhost", groups_url="redis://localhost")
    asking, listening = amqp.open_connection(), amqp.open_connection(listens=True)
    assert options_of(asking)["on_open"] is bound_publisher
    assert asking.heartbeat == 0
    assert options_of(listening)["on_open"] is bound
    assert listening.heartbeat == 10
    set_up(app)  # in a worker
    assert options_of(amqp.open_connection())["on_open"] is bound_publisher
    redis = KombuChannelLayer(url="redis://localhost").open_connection()
    assert options_of(redis)["unacked_mutex_expire"] == 5
    assert options_of(redis)["socket_timeout"] == 15


@pytest.fixture
def broker() -> Any:
    broker = FakeAmqpServer()
    yield broker
    broker.close()


FRAME = struct.pack(">BHI5sB", 1, 0, 5, b"hello", 0xCE)


def test_half_a_frame_neither_spins_nor_is_lost(broker: FakeAmqpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp_internals, "_REST_OF_A_FRAME", 0.3)
    bound(broker.connection)
    assert broker.transport.sock.gettimeout() == SILENCE
    broker.peer.sendall(FRAME[:9])
    began, computed = time.monotonic(), time.thread_time()
    assert select.select([broker.transport.sock], [], [], 5)[0]
    with pytest.raises(TimeoutError), broker.transport.having_timeout(0):
        broker.transport.read_frame()
    assert 0.2 < time.monotonic() - began < 5
    assert time.thread_time() - computed < 0.1
    broker.peer.sendall(FRAME[9:])
    assert bytes(broker.transport.read_frame()[2]) == b"hello"


def test_an_answer_is_waited_for_only_so_long(broker: FakeAmqpServer) -> None:
    broker.connection.read_timeout = 0.2
    bound(broker.connection)
    with pytest.raises(TimeoutError):
        broker.transport.read_frame()


def test_frames_are_written_one_after_another(broker: FakeAmqpServer) -> None:
    inside, most = 0, 0

    def write(*args: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.01)
        inside -= 1

    broker.connection.frame_writer = write
    bound(broker.connection)
    threads = [threading.Thread(target=broker.connection.frame_writer) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_loop_that_stands_still_is_beaten_for() -> None:
    sent: list[float] = []
    now = time.monotonic()
    beating: Any = SimpleNamespace(
        heartbeat=10,
        last_heartbeat_sent=now - 2,
        last_heartbeat_received=now - 50,
        send_heartbeat=lambda: sent.append(1),
    )
    amqp_heartbeats.beat_for(beating)
    assert not sent
    assert beating.last_heartbeat_received == now - 50
    beating.last_heartbeat_sent = now - 8
    amqp_heartbeats.beat_for(beating)
    assert sent == [1]
    assert beating.last_heartbeat_received >= now
