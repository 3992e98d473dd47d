"""Dead letters for the dashboard: a list without their content, and two actions on one of them."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.core.management import CommandError
from kombu.exceptions import KombuError

from channelsq.asgi import channel_layers
from channelsq.core.bounded import within
from channelsq.exceptions import ChannelsqError
from channelsq.operations.all_dead_letters import AnyDeadLetters, connections_of, letters_on
from channelsq.transport.dead_letter_store import DeadLetter

logger = logging.getLogger("channelsq.contrib.dashboard")

#: The actions.
REPLAY, DELETE = "replay", "delete"

#: The most dead letters of a layer that are listed, and the longest reason in characters.
MOST_LETTERS, _LONGEST = 50, 300

#: Seconds that one layer may take.
_PATIENCE = 10.0


def list_letters() -> list[dict[str, Any]]:
    """Return the dead letters of each layer that keeps them: the oldest, and whether there are more."""
    found = []
    for alias in channel_layers.configs:
        if channel_layers[alias].in_process:
            continue
        try:
            letters = within(_PATIENCE, functools.partial(_oldest, alias))
        except (CommandError, ValueError):
            continue  # the layer keeps none
        except (ChannelsqError, KombuError, OSError) as error:
            found.append({"layer": alias, "letters": [], "more": False, "problem": str(error)})
            continue
        shown = [_described(each) for each in letters[:MOST_LETTERS]]
        found.append({"layer": alias, "letters": shown, "more": len(letters) > MOST_LETTERS, "problem": None})
    return found


def act(action: str, alias: str, queue: str, identity: str, user: Any) -> tuple[bool, str]:
    """Replay or delete one dead letter; return whether it was done, and a sentence about it.

    Args:
        action: :data:`REPLAY` or :data:`DELETE`.
        alias: the layer's alias.
        queue: the name of the queue, as :func:`list_letters` has it.
        identity: the id of the dead letter.
        user: the user, for the log.
    """
    try:
        is_done = within(_PATIENCE, functools.partial(_act, action, alias, queue, identity))
    except (ChannelsqError, CommandError, KombuError, OSError, ValueError) as error:
        return False, f"The dead letter {identity} stays: {error}"
    if not is_done:
        return False, f"The dead letter {identity} of {queue} is gone already."
    done = "replayed" if action == REPLAY else "deleted"
    logger.warning(
        "%s %s the dead letter %s of %s", user.get_username(), done, identity, queue,
        extra={"action": f"dashboard_{action}", "layer": alias, "queue": queue},
    )  # fmt: skip
    return True, f"The dead letter {identity} of {queue} was {done}."


def _oldest(alias: str) -> list[DeadLetter]:
    with _opened(alias) as letters:
        return list(itertools.islice(letters.all(), MOST_LETTERS + 1))


def _act(action: str, alias: str, queue: str, identity: str) -> bool:
    with _opened(alias) as letters:
        found = letters.find(identity, queue)
        return bool(found) and (letters.replay if action == REPLAY else letters.delete)(found[0])


@contextmanager
def _opened(alias: str) -> Iterator[AnyDeadLetters]:
    with ExitStack() as stack:
        yield letters_on([stack.enter_context(each) for each in connections_of(alias)])


def _described(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "queue": letter.queue,
        "died": letter.died.timestamp(),
        "deaths": letter.deaths,
        "reason": letter.reason[:_LONGEST],
        "task": (letter.task or "")[:_LONGEST],
    }
