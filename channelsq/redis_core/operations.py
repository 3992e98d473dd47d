"""Operations: commands that are sent together, and the evaluation of their replies.

An operation is a generator.  It yields the commands of one write, and receives their replies in the same order,
errors among them.  Its return value is the result.  A shell carries it out::

    waiting = carry_out(pool, run(SIZE, [key], GROUP, 1000))

Only this module knows what to do when a server does not know a script: it sends the script again with its text, which
the server remembers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from channelsq.redis_core.commands import Argument, Command, Reply, Script
from channelsq.redis_core.server_errors import is_missing_script, raise_error

T = TypeVar("T")

Operation: TypeAlias = Generator[Sequence[Command], Sequence[Reply], T]


class Call(NamedTuple):
    """A script to run."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument] = ()


def exchange(*requests: Command | Call) -> Operation[list[Reply]]:
    """Return the replies to commands and scripts, errors among them.

    Scripts that the server does not know run after the other requests.
    """
    replies = list((yield [each.script.command(*each[1:]) if isinstance(each, Call) else each for each in requests]))
    missed = [
        (place, each)
        for place, each in enumerate(requests)
        if isinstance(each, Call) and is_missing_script(replies[place])
    ]
    if missed:
        again = yield [each.script.full_command(*each[1:]) for _, each in missed]
        for (place, _), reply in zip(missed, again, strict=True):
            replies[place] = reply
    return replies


def ask(*requests: Command | Call) -> Operation[list[Reply]]:
    """Return the replies to commands and scripts; raise the first error among them."""
    replies = yield from exchange(*requests)
    for reply in replies:
        raise_error(reply)
    return replies


def run(script: Script, keys: Sequence[str], *args: Argument) -> Operation[Reply]:
    """Return the reply to a script; raise an error, with a clear text for servers before Redis 7.0."""
    (reply,) = yield from ask(Call(script, keys, args))
    return reply


def transaction(*requests: Command | Call) -> Operation[list[Reply]]:
    """Return the replies to commands and scripts that run as one transaction; raise the first error.

    Scripts are sent with their text, because a server that does not know one would carry out the rest.  An error of a
    single command, which the others do not undo, is nested in the reply to EXEC.
    """
    commands = [each.script.full_command(*each[1:]) if isinstance(each, Call) else each for each in requests]
    *queued, done = yield [("MULTI",), *commands, ("EXEC",)]
    for reply in (*queued, done):  # a command's own error says more than that of EXEC
        raise_error(reply)
    for reply in done:
        raise_error(reply)
    return list(done)
