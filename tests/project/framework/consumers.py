"""A consumer that enqueues tasks of django.tasks."""

from __future__ import annotations

import functools
import json

from django.db import transaction

from channelsq import Group, route
from channelsq.live import start
from channelsq.message import Message
from channelsq.sessions import channel_session
from tests.project.consumers import disconnect
from tests.project.framework import tasks


@channel_session
def receive(message: Message) -> None:
    """Start what the page names: ``{"start": name, "args": […], "to": "me", "nobody", "commit" or a group}``."""
    asked = json.loads(message["text"])
    if "join" in asked:
        Group(asked["join"]).add(message.reply_channel)
        message.reply_channel.send({"text": json.dumps({"joined": asked["join"]})})
        return
    task, args, to = getattr(tasks, asked["start"]), asked.get("args", ()), asked.get("to", "me")
    message.channel_session["started"] = message.channel_session.get("started", 0) + 1
    content = {"number": message.channel_session["started"]}
    if to == "nobody":  # as every user of django.tasks does
        content["started"] = task.enqueue(*args).id
    elif to == "commit":
        with transaction.atomic():
            transaction.on_commit(functools.partial(task.enqueue, *args))
            content["started"] = ""
    else:
        content["started"] = start(task, to=message.reply_channel if to == "me" else Group(to), args=args).id
    message.reply_channel.send({"text": json.dumps(content)})


channel_routing = [
    route("websocket.receive", receive, path=r"^/live/"),
    route("websocket.disconnect", disconnect),  # of the module whose worker says when it is ready
]
