"""Users of views and sockets, and frames that are numbered in the order of their handling."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from django.contrib.auth import get_user_model, login
from django.http import HttpRequest, JsonResponse

from channelsq.auth import channel_session_user, channel_session_user_from_http, channel_session_user_from_token
from channelsq.sessions import enforce_ordering
from tests.project.records import record


def log_in(request: HttpRequest, name: str) -> JsonResponse:
    """Log a user in, who is made if there is none of that name."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return JsonResponse({"session_key": request.session.session_key})


@channel_session_user_from_http
def connect(message: Any) -> None:
    message.channel_session["handled"] = 0
    message.reply_channel.send({"text": f"welcome {message.user.get_username() or 'stranger'}"})


@channel_session_user_from_token
def connect_by_token(message: Any) -> None:
    message.channel_session["handled"] = 0
    message.reply_channel.send({"text": f"welcome {message.user.get_username() or 'stranger'}"})


@enforce_ordering
@channel_session_user
def receive(message: Any) -> None:
    """Takes a while, which other workers could use; ends its process the first time it is told to."""
    name = message.user.get_username() or "stranger"
    record(f"members-{name}", f"{os.getpid()} {message['text']}")
    if message["text"] == "kill" and message.channel_session.get("killed") is None:
        message.channel_session["killed"] = True
        message.channel_session.save()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(random.uniform(0, 0.02))
    message.channel_session["handled"] += 1
    message.reply_channel.send({"text": f"{name} {message.channel_session['handled']} {message['text']}"})
