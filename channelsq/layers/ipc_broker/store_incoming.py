"""The contents of messages in the site's file: written by layers, or by any other Kombu program."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from kombu import Message as KombuMessage

from channelsq.core.wire_version import NewerWire, check_headers, teller
from channelsq.ipc.messages import Taken, Transaction
from channelsq.ipc.store import Store
from channelsq.layers.wire.protection import Protection
from channelsq.layers.wire.wire_forms import open_body
from channelsq.redis_core.compact import ForeignPayload, decode_compact
from channelsq.transport.payloads import decode

logger = logging.getLogger("channelsq.layers")

#: The first byte of the compact form: a msgpack list of less than 16 items.
_COMPACT = range(0x90, 0xA0)


def is_compact(payload: bytes) -> bool:
    """Return whether a message is in the compact form, or a broken one."""
    return payload[:1] != b"" and payload[0] in _COMPACT


def open_message(taken: Taken, accept: Any = None) -> KombuMessage:
    """Return a message in Kombu's form.

    Args:
        taken: the message.
        accept: the content types that are decoded; None for Kombu's default.

    Raises:
        NewerWire: only a newer process can read it.
        ForeignPayload: it is not a message of Kombu's.
    """
    payload = decode(taken.payload)
    properties = payload["properties"]
    message = KombuMessage(
        body=payload.get("body"),
        delivery_tag=f"{taken.key.queue} {taken.key.id}",
        content_type=payload.get("content-type"),
        content_encoding=payload.get("content-encoding"),
        delivery_info=properties["delivery_info"],
        properties=properties,
        headers=payload["headers"],
        accept=accept,
    )
    if message.errors:
        _, error, _ = message.errors[0]
        raise ForeignPayload(str(error))
    check_headers(message.headers)
    return message


def open_bare(payload: bytes, taken: Taken, protection: Protection) -> bytes:
    """Return the envelope, or the content of a ``?`` channel's message, verified and decrypted.

    Raises:
        NewerWire: only a newer process can read it.
        Refused: the signature is not valid, or the body is not encrypted as the layer asks for.
            ValueError: it is something else.
    """
    if not is_compact(payload):
        return open_body(open_message(taken), taken.queue, protection)
    task, _, body, _ = decode_compact(payload)
    if task is not None:
        raise ValueError(f"a message of the task {task!r}")
    return protection.open_bare(taken.queue, body)


def keep_newer(store: Store, newer: Sequence[tuple[Taken, NewerWire]]) -> None:
    """Keep messages of a reply queue as dead letters, because no other process reads it, and log that."""

    def keep(tx: Transaction) -> None:
        for each, error in newer:
            tx.keep_dead(each.queue, each.payload, 0, str(error))

    store.write(keep)
    for each, error in newer:
        teller.tell(each.queue, error, "for clients of this process is kept as a dead letter")


def log_foreign(queue: str, error: Exception) -> None:
    """Log that a message of a queue is not channelsq's, and is dropped."""
    logger.error(
        "queue %s: a message that is not channelsq's was dropped: %s", queue, error,
        extra={"action": "foreign_message_dropped"},
    )  # fmt: skip
