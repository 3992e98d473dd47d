"""A stand-in for a language model: it needs no network, and answers the same to the same question.

A project would call its model here; :func:`words` yields what it says, as models do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.models import Message, Room

#: The name of the user who posts the answers; it cannot be signed up.
NAME = "assistant"

#: Answers, with words of the questions that they are for.
_ANSWERS = (
    (
        {"group", "groups", "room", "rooms", "broadcast"},
        "A group is a set of sockets with a name. Each room has one: the consumer of a new socket adds it, and "
        "group.send() reaches every page of the room. The membership ends with the socket, so there is nothing to "
        "clean up. A view, a task or a shell can send to the same group.",
    ),
    (
        {"task", "tasks", "celery", "progress", "import", "stream", "streams"},
        "You are watching one. A consumer started a Celery task with channelsq.live.start(), and the task writes "
        "these words to a stream. Every page of the room gets them, in pieces. If the worker is killed, another one "
        "takes the task over and the text begins again; a page that was loaded again gets the text so far.",
    ),
    (
        {"redis", "ipc", "layer", "layers", "worker", "workers", "broker"},
        "With nothing set, this site is one process: the channel layer is in memory and the workers are threads. "
        "REDIS_URL divides it into interface servers, which own the sockets, and Celery workers, which run your code. "
        "IPC_PREFIX does the same on one machine without any server. The code is the same each time.",
    ),
    (
        {"file", "files", "image", "images", "upload", "picture"},
        "A file goes by HTTP to an ordinary view, with CSRF protection and a limit, and the notice of it goes by "
        "socket. Only PNG, JPEG, GIF and WebP that prove to be such are shown in the page. Everything else is "
        "downloaded, and nothing is served to people who are not logged in.",
    ),
    (
        {"mention", "mentions", "user", "users", "notify", "notification"},
        "Write an @ and a name. User(user).send() reaches every page that this user has open, in any room, tab or "
        "phone. Sockets join the group of their user by themselves, as CHANNEL_USERS says.",
    ),
)

_OTHERWISE = (
    "I am a small stand-in for a language model: I run on this machine, know a few answers by heart, and say them word "
    "by word. Ask me about groups, tasks, layers, files or mentions."
)


def words(text: str, room: Room) -> Iterator[str]:
    """Yield the answer to a question, word by word, with the spaces between them.

    Args:
        text: the message with the question.
        room: the room, of which the answer knows a little.
    """
    asked = set(re.findall(r"[a-z]+", text.lower()))
    best = max(_ANSWERS, key=lambda each: len(each[0] & asked))
    answer = best[1] if best[0] & asked else _OTHERWISE
    count = Message.objects.filter(room=room).count()
    yield from re.findall(r"\S+\s*", f"{answer}\n\n{room.name} has {count} messages so far.")
