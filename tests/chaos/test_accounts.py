"""Excuses for a group's message that a socket never had, in the account of a chaos run."""

from __future__ import annotations

import pytest

from tests.chaos.accounts import GRACE, Accounts, Broadcast
from tests.chaos.clients import Turn
from tests.chaos.faults import Fault

#: When Redis was emptied, and was there again.
EMPTIED, BACK = 100.0, 101.0

#: When the message that is missed was sent, and one behind it.
SENT, LATER = 93.0, 95.0

#: When the last message of all was sent, which everybody had.
LAST = 200.0


def problems(
    scheme: str, had: list[tuple[int, int, float]], sent: float = SENT, faults: tuple[str, ...] = ("redis empty",)
) -> list[str]:
    """Of a room of two sockets of server 0 and one of server 1, where message 1 is the one that is missed.

    Args:
        scheme: the broker's.
        had: sockets' numbers, numbers of messages that they had besides the last, and when.
        sent: when message 1 was sent.
        faults: what happened when Redis was emptied.
    """
    times = {1: sent, 2: LATER, 3: LAST}
    broadcasts = [Broadcast(0, "room-1", 1.0, 1.0, "sent")]
    broadcasts += [Broadcast(number, "room-0", at, at + 0.01, "sent") for number, at in times.items()]
    turns = []
    for number, interface in ((0, 0), (1, 0), (2, 1)):
        mine = sorted((moment, what) for who, what, moment in [*had, (number, 3, LAST + 1)] if who == number)
        turn = Turn(number, 0, interface, began=10.0, opened=11.0)
        turn.group, turn.group_times = [what for _, what in mine], [moment for moment, _ in mine]
        turns.append(turn)
    happened = [Fault(kind, "redis", 1.0, EMPTIED, BACK) for kind in faults]
    accounts = Accounts(turns, set(), [], happened, scheme, broadcasts=broadcasts)
    accounts._groups()
    assert accounts.counts["group_frames_lost"] > 0
    return accounts.problems


#: Server 1 has read everything that was sent before.
ELSEWHERE = [(2, 1, SENT + 1), (2, 2, LATER + 1)]


@pytest.mark.parametrize("scheme", ["redis-streams", "redis"])
def test_what_still_was_in_redis_is_lost_with_it(scheme: str) -> None:
    """Server 0 reads nothing, as its link is half-open; what was sent to it seconds before Redis is emptied waits."""
    assert problems(scheme, ELSEWHERE) == []


def test_what_was_read_is_not() -> None:
    """One socket of server 0 had a message that was sent later, so the earlier one was read too."""
    found = problems("redis-streams", [*ELSEWHERE, (1, 2, LATER + 0.1)])
    assert len(found) == 2, found
    assert all("missed Broadcast(number=1" in each for each in found)


def test_what_was_read_when_redis_was_back_proves_nothing() -> None:
    assert problems("redis-streams", [*ELSEWHERE, (0, 2, BACK + 5)]) == []


def test_memberships_are_away_for_a_while() -> None:
    assert problems("amqp", [(number, 2, LATER + 1) for number in range(3)], sent=BACK + GRACE - 1) == []
    assert len(problems("amqp", [(number, 2, LATER + 1) for number in range(3)], sent=BACK + GRACE + 1)) == 3


def test_an_emptied_redis_loses_nothing_of_what_is_in_another_broker() -> None:
    assert len(problems("amqp", ELSEWHERE)) == 4


def test_without_an_emptied_redis_nothing_is_lost() -> None:
    assert len(problems("redis-streams", ELSEWHERE, faults=("redis kill",))) == 4
