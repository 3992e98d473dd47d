"""Operations, carried out by a server that is played here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import NoScriptError, ResponseError

from channelsq.redis_core.commands import Command, Reply
from channelsq.redis_core.operations import Call, Operation, ask, exchange, run, transaction
from channelsq.redis_core.scripts import HELD, SIZE, TAKE
from channelsq.redis_core.server_errors import TOO_OLD, is_missing_script

SCRIPTS = {script.sha: script for script in (SIZE, TAKE, HELD)}
MISSING = NoScriptError("No matching script."), hiredis.ReplyError("NOSCRIPT No matching script.")


class Server:
    """Knows some scripts, and answers each command with itself.

    Args:
        known: the names of the scripts.
        missing: what it answers for another one.
    """

    def __init__(self, known: set[str], missing: Exception) -> None:
        self.known = known
        self.missing = missing
        self.ran: list[Any] = []
        self.writes = 0

    def _reply(self, command: Command) -> Reply:
        if command[0] == "EVALSHA":
            name = SCRIPTS[str(command[1])].name
            if name not in self.known:
                return self.missing
        elif command[0] == "EVAL":
            name = next(script.name for script in SCRIPTS.values() if script.text == command[1])
            self.known.add(name)
        else:
            self.ran.append(command)
            return command
        self.ran.append((name, *command[3:]))
        return (name, *command[3:])

    def carry_out(self, operation: Operation[Any]) -> Any:
        """Return the operation's result."""
        try:
            commands: Sequence[Command] = next(operation)
            while True:
                self.writes += 1
                commands = operation.send([self._reply(command) for command in commands])
        except StopIteration as done:
            return done.value


REQUESTS = st.lists(
    st.one_of(
        st.tuples(st.just("GET"), st.text(max_size=3)),
        st.builds(Call, st.sampled_from([SIZE, TAKE, HELD]), st.lists(st.text(max_size=3)), st.just(("arg",))),
    ),
    max_size=12,
)


@given(REQUESTS, st.sets(st.sampled_from(["size", "take", "held"])), st.sampled_from(MISSING))
def test_each_request_is_done_once_and_its_reply_is_in_its_place(
    requests: list[Command | Call], known: set[str], missing: Exception
) -> None:
    server = Server(known, missing)
    replies = server.carry_out(exchange(*requests))
    expected = [(each.script.name, *each.keys, *each.args) if isinstance(each, Call) else each for each in requests]
    assert replies == expected
    assert sorted(map(repr, server.ran)) == sorted(map(repr, expected))
    assert server.writes <= 2


@pytest.mark.parametrize("missing", MISSING, ids=["redis-py", "hiredis"])
def test_a_script_that_is_missing_is_sent_once_with_its_text(missing: Exception) -> None:
    assert is_missing_script(missing)
    server = Server(set(), missing)
    assert server.carry_out(run(SIZE, ["a"], "kombu", 1000)) == ("size", "a", "kombu", 1000)
    assert server.writes == 2
    assert server.carry_out(run(SIZE, ["a"])) == ("size", "a")
    assert server.writes == 3


def answered(operation: Operation[Any], *replies: Sequence[Reply]) -> Any:
    """Return the result of an operation whose commands are answered so."""
    commands = next(operation)
    for reply in replies:
        assert len(reply) == len(commands)
        try:
            commands = operation.send(reply)
        except StopIteration as done:
            return done.value
    raise AssertionError("the operation goes on")


@pytest.mark.parametrize("kind", [ResponseError, hiredis.ReplyError])
def test_the_first_error_is_raised(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the first"):
        answered(ask(("A",), ("B",), ("C",)), [b"1", kind("the first"), kind("another")])


def test_a_server_that_is_too_old_is_told_of() -> None:
    error = ResponseError("Error compiling script (new function): user_script:1: unexpected symbol near '#'")
    with pytest.raises(ResponseError, match=TOO_OLD):
        answered(run(SIZE, []), [MISSING[0]], [error])


# -- transactions


def test_a_transactions_replies_are_those_of_exec() -> None:
    operation = transaction(("A",), Call(SIZE, ["k"]))
    begin, first, second, end = next(operation)
    assert (begin, first, end) == (("MULTI",), ("A",), ("EXEC",))
    assert second[:2] == ("EVAL", SIZE.text)  # a script that were missing would leave the rest done alone
    with pytest.raises(StopIteration) as done:
        operation.send([b"OK", b"QUEUED", b"QUEUED", [b"a", 1]])
    assert done.value.value == [b"a", 1]


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        ([b"OK", b"QUEUED", b"QUEUED", [b"a", ResponseError("nested")]], "nested"),
        ([b"OK", ResponseError("OOM"), b"QUEUED", ResponseError("EXECABORT")], "OOM"),
        ([b"OK", b"QUEUED", b"QUEUED", ResponseError("EXECABORT")], "EXECABORT"),
        ([ResponseError("LOADING"), ResponseError("b"), ResponseError("c"), ResponseError("d")], "LOADING"),
    ],
)
def test_what_goes_wrong_in_a_transaction_is_raised(replies: list[Reply], told: str) -> None:
    with pytest.raises(ResponseError, match=told):
        answered(transaction(("A",), ("B",)), replies)
