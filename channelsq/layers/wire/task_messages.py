"""The contents of a Celery task message that was sent to a channel."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kombu.exceptions import ContentDisallowed

from channelsq.layers.wire import codec
from channelsq.layers.wire.wire_forms import CONTENT_TYPE


def payload_of(message: Any) -> tuple[Any, Any, Any]:
    """Return args, kwargs and embed of a task message; three times None if it has none.

    Raises:
        ValueError: the serializer is not accepted.
    """
    try:
        if message.content_type == CONTENT_TYPE:
            args, kwargs, embed = codec.loads(message.body)
        else:
            args, kwargs, embed = message.payload
    except ContentDisallowed as error:  # for example pickle
        raise ValueError(str(error)) from None
    except Exception:  # any error of a decoder
        return None, None, None
    return args, kwargs, embed


def content_of(message: Any, channel: str) -> dict[str, Any]:
    """Return the content of a channel's message.

    Raises:
        ValueError: it is not a channel's message.
    """
    args, _, embed = payload_of(message)
    match args:
        case [str(sent_to), dict(content)] if sent_to == channel and isinstance(embed, dict):
            return content
    raise ValueError(f"it is no message of a channel, which Channel({channel!r}).send({{...}}) makes")


def moment_of(text: Any, name: str) -> datetime | None:
    """Return the time in a header; None without one.

    Args:
        text: the header's value.
        name: the header's name.

    Raises:
        ValueError: the header is not a time.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else text
        return moment if moment.tzinfo is not None else moment.astimezone()
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"the header {name} is {text!r}, not a moment in ISO 8601") from None
