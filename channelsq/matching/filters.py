"""Filters of routes: regular expressions on the values of a message's keys."""

from __future__ import annotations

import copy
import re
from typing import Any

from channelsq import conf
from channelsq.core.contracts import MessageLike
from channelsq.exceptions import InvalidRouting


def as_text(value: Any) -> str | None:
    """Return a message value as a str for filters; None if it is neither str nor bytes."""
    if isinstance(value, str):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None


def compiled(name: str, pattern: Any, where: str) -> re.Pattern[str]:
    """Return a filter's regular expression.

    Args:
        name: the message key whose value is matched.
        pattern: a str, bytes, or a compiled regular expression.
        where: the route or consumer with the filter, for error messages.

    Raises:
        InvalidRouting: ``pattern`` is not a regular expression.
        ValueError: ``pattern`` has positional groups.
    """
    text = as_text(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
    if text is None:
        raise InvalidRouting(f"the filter {name}={pattern!r} on {where} must be a regular expression in a str")
    try:
        regex = pattern if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str) else re.compile(text)
    except re.error as error:
        raise InvalidRouting(f"the filter {name}={text!r} on {where} is not a regular expression: {error}") from error
    if regex.groups != len(regex.groupindex):
        raise ValueError(
            f"the filter {name}={text!r} on {where} has positional groups; write them as "
            "named groups, (?P<name>...), or as (?:...)"
        )
    return regex


def path_below(path: str, prefix: str) -> str:
    """Return the part of ``path`` below the mount point ``prefix``; the whole path if it is not below."""
    prefix = prefix.rstrip("/")
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        return path[len(prefix) :] or "/"
    return path


def below_mount_point(message: MessageLike) -> MessageLike:
    """Return the message for filters, with its path relative to the site's mount point."""
    root = conf.forced_script_name() or message.content.get("root_path")
    if not root:
        return message
    path = as_text(message.get("path"))
    if path is None or not isinstance(root, str):
        return message
    below = copy.copy(message)
    below.content = {**message.content, "path": path_below(path, root)}
    return below
