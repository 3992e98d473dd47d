"""Conversion of a Kombu payload to the bytes of a stream's entry, and back.

An entry has the field ``m``: a msgpack map of Kombu's payload, with the body as bytes.  Values of headers and
properties that only Kombu's JSON can encode (datetime, UUID, Decimal...) arrive unchanged; any other value arrives as
its ``str()``.  A message with an ``expiration`` also has it in the field ``x`` for the scripts, because Redis's Lua
cannot read msgpack's bytes.

A producer that knows the transport may use the *compact* form instead, see :mod:`channelsq.redis_core.compact`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

import msgpack
from kombu.utils import json

from channelsq.redis_core.compact import ForeignPayload, checked_parts
from channelsq.redis_core.entries import Entry

Payload: TypeAlias = dict[str, Any]

#: msgpack's extension type for a value in Kombu's JSON.
_JSON = 1

_CONTENT_TYPE = "application/x-msgpack"


#: The header with the number of consumers that died with a message.
DEATHS = "x-deaths"


def _extend(value: Any) -> Any:
    try:
        return msgpack.ExtType(_JSON, json.dumps(value).encode())
    except (TypeError, ValueError):
        return str(value)


def _restore(code: int, data: bytes) -> Any:
    return json.loads(data) if code == _JSON else msgpack.ExtType(code, data)


def encode(payload: Payload) -> bytes:
    """Return a payload as bytes."""
    body = payload.get("body")
    if isinstance(body, str):
        payload = {**payload, "body": body.encode()}
    packed: bytes = msgpack.packb(payload, use_bin_type=True, default=_extend)
    return packed


def _expand(parts: list[Any]) -> Payload:
    task, identity, body, expiration = checked_parts(parts)
    headers: Payload = {}
    if task is not None:
        headers = {"lang": "py", "task": task, "id": identity, "root_id": identity, "ignore_result": True}
    properties: Payload = {"delivery_info": {"exchange": "", "routing_key": task or ""}, "correlation_id": identity}
    if expiration is not None:
        properties["expiration"] = expiration
    return {
        "body": body,
        "content-type": _CONTENT_TYPE,
        "content-encoding": "binary",
        "headers": headers,
        "properties": properties,
    }


def decode(data: bytes) -> Payload:
    """Return the payload that :func:`encode` was called with, or the payload of a compact message.

    Raises:
        NewerPayload: only a newer process can read the data.
            ForeignPayload: the data is not a message.
    """
    try:
        payload = msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_restore)
    except Exception as error:  # msgpack's own errors share no base; the values' decoders may raise anything
        raise ForeignPayload(f"not msgpack: {error}") from error
    if isinstance(payload, list):
        return _expand(payload)
    if not isinstance(payload, dict):
        raise ForeignPayload(f"a {type(payload).__name__} instead of a map")
    properties = payload.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_info"), dict):
        raise ForeignPayload("no properties with delivery_info")
    if not isinstance(payload.setdefault("headers", {}), dict):
        raise ForeignPayload(f"headers are a {type(payload['headers']).__name__} instead of a map")
    _check_values(payload["headers"], properties)
    return payload


def _check_values(headers: Payload, properties: Payload) -> None:
    """Raise ForeignPayload for values that no Kombu or Celery producer writes, and that would end a worker."""
    for name in ("task", "id"):
        if isinstance(headers.get(name), list | dict):  # Celery looks it up
            raise ForeignPayload(f"the header {name} is a {type(headers[name]).__name__}")
    limits = headers.get("timelimit")
    if limits is not None and not (isinstance(limits, list) and len(limits) == 2):
        raise ForeignPayload("the header timelimit is no list of two")
    if properties.get("body_encoding"):
        raise ForeignPayload("there is a body_encoding, which bytes do not need")


def mark_redelivered(payload: Payload) -> None:
    """Mark the message as redelivered in the headers and in the delivery info."""
    payload["headers"]["redelivered"] = True
    payload["properties"]["delivery_info"]["redelivered"] = True


def deaths(payload: Payload) -> int:
    """Return how many consumers died with a delivered message."""
    count = payload["headers"].get(DEATHS, 0)
    return count if isinstance(count, int) else 0


def set_deaths(payload: Payload, count: int) -> None:
    """Set the number of consumers that died with the message in the headers; do nothing for 0."""
    if count:
        payload["headers"][DEATHS] = count
    else:
        payload["headers"].pop(DEATHS, None)


def delivered(payload: Payload, entry: Entry) -> Payload:
    """Return an entry's payload as it is delivered: with its tag, and marked if it is redelivered."""
    if entry.redelivered:
        mark_redelivered(payload)
    set_deaths(payload, entry.deaths)
    payload["properties"]["delivery_tag"] = entry.tag
    return payload


def with_death(payload: Payload) -> Payload:
    """Return the message with one more death and no expiration, as a consumer received it in time."""
    properties = {name: value for name, value in payload["properties"].items() if name != "expiration"}
    copy = {**payload, "headers": {**payload["headers"]}, "properties": properties}
    set_deaths(copy, deaths(payload) + 1)
    return copy


def is_early(data: bytes, now: int) -> bool:
    """Return whether a message is a Celery task whose ETA has not come, so that no worker has started it.

    Args:
        now: the server's time in ms since 1970.
    """
    try:
        eta = decode(data)["headers"].get("eta")
        return isinstance(eta, str) and datetime.fromisoformat(eta).timestamp() * 1000 > now
    except (ValueError, OverflowError):
        return False


def expires(payload: Payload, entry: str) -> int | None:
    """Return when a message expires, in ms since 1970 by the server's clock; None for never.

    Args:
        payload: its ``expiration`` property, in ms, is relative to the time in the entry's id.
        entry: the id, ``<ms>-<n>``.
    """
    after = lifetime(payload)
    return None if after is None else int(entry.partition("-")[0]) + after


def priority(payload: Payload) -> int:
    """Return a message's priority, as Kombu reads it: 0 to 9, 0 if it has none; more is more urgent."""
    try:
        return max(0, min(int(payload["properties"]["priority"]), 9))
    except (TypeError, ValueError, KeyError):
        return 0


def lifetime(payload: Payload) -> int | None:
    """Return a message's ``expiration`` in ms; None if it does not expire.

    A Celery task's ``expires`` is both a header and an expiration.  Here such a task does not expire: its worker must
    revoke it and report that, or a caller would wait for its result in vain.
    """
    if (payload.get("headers") or {}).get("expires") is not None:
        return None
    expiration = payload["properties"].get("expiration")
    try:
        return None if expiration is None else max(0, int(float(expiration)))
    except (ValueError, OverflowError, TypeError):
        return None


def again(payload: Payload, entry: str, now: int, redelivered: bool = True) -> tuple[bytes, int | None]:
    """Return a message as bytes for another delivery, with its ``expiration``; empty bytes if it has expired.

    The copy has a newer id, so its expiration is the remaining time.

    Args:
        payload: the payload as it was delivered.
        entry: the id of its entry.
        now: the server's time in ms since 1970.
        redelivered: whether to mark the copy as redelivered.
    """
    properties = {**payload["properties"]}
    properties["delivery_info"] = {**properties["delivery_info"]}
    properties.pop("delivery_tag", None)
    copy = {**payload, "headers": {**payload["headers"]}, "properties": properties}
    if redelivered:
        mark_redelivered(copy)
    end = expires(payload, entry)
    if end is None:
        return encode(copy), None
    if end <= now:
        return b"", None
    properties["expiration"] = str(end - now)
    return encode(copy), end - now


def untouched(data: bytes, entry: str, now: int, redelivered: bool) -> tuple[bytes, int | None]:
    """Return the same as :func:`again` for a message that was fetched and not delivered; it may be unreadable."""
    try:
        payload = decode(data)
    except ForeignPayload:
        return data, None
    if not redelivered and lifetime(payload) is None:
        return data, None
    return again(payload, entry, now, redelivered)
