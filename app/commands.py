"""The commands of the chat: ``/ask question`` and ``/import``."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError

from app.models import Job, Room

#: The commands, with the kind of job that each starts.
COMMANDS = {"ask": Job.Kind.ANSWER, "import": Job.Kind.IMPORT}

#: The most jobs that run at once on the site; each takes a thread of a worker.
MOST_JOBS = 4

_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)

_BUSY = {
    Job.Kind.ANSWER: "The assistant is still answering in this room. Ask again when it is done.",
    Job.Kind.IMPORT: "An import is still running in this room. Wait for its end, or cancel it.",
}


def command_of(text: str) -> tuple[str, str]:
    """Return the kind of job that a text asks for, and the words after the command; empty for other texts.

    Raises:
        ValidationError: there is no such command, or its question is missing.
    """
    found = _COMMAND.fullmatch(text)
    if found is None:
        return "", ""
    name, rest = found[1], (found[2] or "").strip()
    if name not in COMMANDS:
        known = " and ".join(f"/{each}" for each in COMMANDS)
        raise ValidationError(f"There is no command /{name}. The commands are {known}.")
    if name == "ask" and not rest:
        raise ValidationError("/ask needs a question, such as: /ask How do groups work?")
    return COMMANDS[name], rest


def check_free(room: Room, kind: str) -> None:
    """Raise ValidationError if the room, or the site, has enough jobs already."""
    running = Job.objects.running()
    if running.filter(room=room, kind=kind).exists():
        raise ValidationError(_BUSY[Job.Kind(kind)])
    if running.count() >= MOST_JOBS:
        raise ValidationError(f"{MOST_JOBS} tasks are running on this site. Try again when one has ended.")
