"""The replies and arguments of commands about the records of a layer.

``<prefix>:record:{<record>}``  hash: the fields of a record; expires
"""

from __future__ import annotations

from collections.abc import Mapping

from channelsq.redis_core.commands import Argument, Reply
from channelsq.redis_core.entries import pairs
from channelsq.redis_core.groups import delete_matching
from channelsq.redis_core.operations import Operation


def field_words(fields: Mapping[str, bytes]) -> list[Argument]:
    """Return fields as the arguments of HSET."""
    return [word for pair in fields.items() for word in pair]


def read_reply(reply: Reply) -> dict[str, bytes]:
    """Return the fields in a reply to HGETALL."""
    return {bytes(name).decode(): bytes(value) for name, value in pairs(reply).items()}


def delete_records(prefix: str) -> Operation[None]:
    """Delete every record under a prefix."""
    return delete_matching(f"{prefix}:record:*")
