"""The replies and arguments of commands about records, see :mod:`channelsq.layers.groups.records`.

``<prefix>:record:{<record>}``  hash: the fields of a record; expires
"""

from __future__ import annotations

from collections.abc import Mapping

from channelsq.redis_core.commands import Argument, Reply
from channelsq.redis_core.groups import delete_matching
from channelsq.redis_core.operations import Operation


def field_words(fields: Mapping[str, bytes]) -> list[Argument]:
    """Return fields as the arguments of HSET."""
    return [word for pair in fields.items() for word in pair]


def read_reply(reply: Reply) -> dict[str, bytes]:
    """Return the fields in a reply to HGETALL: a map in RESP3, in RESP2 a list."""
    if isinstance(reply, dict):
        reply = [word for pair in reply.items() for word in pair]
    return {bytes(name).decode(): bytes(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}


def delete_records(prefix: str) -> Operation[None]:
    """Delete every record under a prefix."""
    return delete_matching(f"{prefix}:record:*")
