"""Brokers other than Redis, and Celery's own."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kombu import Connection, Queue
from kombu.exceptions import KombuError

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.doctor.findings import Finding, error, not_applicable, ok, warning
from channelsq.exceptions import ChannelsqError
from channelsq.layers.contract.broker_urls import shown

#: Bytes that must be free on the file system of an IPC layer's file.
_ROOM = 50 * 2**20


def check_broker(layer: ChannelLayerWrapper) -> Iterator[Finding]:
    """Check the broker of a layer whose channels are not in Redis."""
    inner = layer.channel_layer
    if inner.in_process:
        yield not_applicable(
            "broker.reachable",
            "Channels and groups are in the memory of one process, with its workers inside; nothing can be asked from "
            "another.",
            layer.alias,
        )
        return
    try:
        path = inner.file
    except (ChannelsqError, OSError) as failure:
        yield error(
            "broker.reachable",
            f"The file of the layer cannot be used: {failure}",
            "Give its directory to the user that runs the processes, and close it to others (mode 0700).",
            layer.alias,
        )
        return
    connection: Connection | None = inner.broker_connection()
    if path is not None:
        yield from _check_file(layer.alias, path)
    elif connection is None:
        yield not_applicable("broker.reachable", f"{layer} is not a layer of channelsq.", layer.alias)
    else:
        with connection:
            yield from _check_connection(layer.alias, layer.url, connection)


def _check_file(alias: str, path: Path) -> Iterator[Finding]:
    room = os.statvfs(path.parent)
    yield ok("broker.reachable", f"The file {path} can be used.", alias, path=str(path))
    free = room.f_bavail * room.f_frsize
    if free < _ROOM:
        yield warning(
            "broker.room",
            f"{free // 2**20} MB are free where the file of the layer is.",
            "Make room on that file system, or choose another with CONFIG['path'].",
            alias,
            free=free,
        )
    else:
        yield ok("broker.room", f"{free // 2**20} MB are free where the file of the layer is.", alias, free=free)


def _check_connection(alias: str, url: str, connection: Connection) -> Iterator[Finding]:
    errors = _errors_of(connection)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, errback=None)
    except errors as failure:
        yield error(
            "broker.reachable",
            f"The broker {shown(url)} does not answer: {failure}",
            "Start it, correct the URL in CHANNEL_LAYERS, or open the way to it (firewall, private network).",
            alias,
        )
        return
    yield ok("broker.reachable", f"The broker {shown(url)} answers{_product(connection)}.", alias)
    try:
        milliseconds = _send_and_get(connection)
    except errors as failure:
        yield error(
            "broker.rights",
            f"The broker does not let this user declare, write, read and delete a queue: {failure}",
            "Give the user these rights in the virtual host: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'.",
            alias,
        )
    except TimeoutError as late:
        yield error(
            "broker.rights",
            f"The broker took a message and did not give it back: {late}",
            "Look at its alarms: RabbitMQ takes no messages while its memory or disk is short (rabbitmqctl status).",
            alias,
        )
    else:
        yield ok(
            "broker.rights",
            f"A message to a queue of the doctor's own came back after {milliseconds:.1f} ms.",
            alias,
            milliseconds=round(milliseconds, 3),
        )


def _errors_of(connection: Any) -> tuple[type[BaseException], ...]:
    return (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)


def _product(connection: Connection) -> str:
    properties: Any = getattr(connection.connection, "server_properties", None) or {}
    name, version = (_text(properties.get(key, "")) for key in ("product", "version"))
    return f" ({name} {version})" if name else ""


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


#: Seconds for a message to come back from its queue.
_BACK_WITHIN = 3.0


def _send_and_get(connection: Connection) -> float:
    """Send a message to a new queue and get it back; return the milliseconds.

    Raises:
        TimeoutError: the message does not come back.
    """
    with connection.channel() as channel:
        name = f"channelsq-doctor-{secrets.token_hex(6)}"
        queue = Queue(name, routing_key=name, durable=False, auto_delete=True, expires=60)(channel)
        queue.queue_declare()
        try:
            began = time.perf_counter()
            with connection.Producer(channel) as producer:
                producer.publish({"doctor": name}, routing_key=name, serializer="json")
            while time.perf_counter() - began < _BACK_WITHIN:
                message = queue.get(no_ack=True)
                if message is not None:
                    return (time.perf_counter() - began) * 1000
                time.sleep(0.005)
            raise TimeoutError(f"nothing within {_BACK_WITHIN:g} s")
        finally:
            queue.delete()


def check_celerys_broker() -> Iterator[Finding]:
    """Check whether the broker of the Celery app answers, unless a layer's examination covers it."""
    app = conf.celery_app()
    url = conf.celery_broker_url(app)
    if not url:
        yield not_applicable("celery.broker", "The Celery app names no broker; workers use that of the default layer.")
        return
    if url.startswith("memory:"):
        yield not_applicable("celery.broker", "Celery's broker is in the memory of one process.")
        return
    aliases = [alias for alias in channel_layers.configs if _is_on(alias, url)]
    if aliases:
        yield ok("celery.broker", f"Celery's broker is that of the layer {aliases[0]}.")
        return
    with app.connection_for_write() as connection:
        errors = _errors_of(connection)
        try:
            connection.ensure_connection(max_retries=1, interval_start=0)
        except errors as failure:
            yield error(
                "celery.broker",
                f"Celery's broker {shown(url)} does not answer: {failure}",
                "Start it, or correct CELERY_BROKER_URL: workers start without it, but get no ordinary tasks.",
            )
        else:
            yield ok("celery.broker", f"Celery's broker {shown(url)} answers{_product(connection)}.")


def _is_on(alias: str, url: str) -> bool:
    layer = channel_layers[alias]
    return not layer.in_process and layer.is_on(url)
