"""Messages of users: stored, shown, and followed by the work that they ask for."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from app import gateways
from app.forms import MessageForm
from app.models import Job, Message, ReadMarker, Room
from channelsq import Channel


def post(room: Room, author: Any, form: MessageForm) -> tuple[Message, bool]:
    """Post the message of a valid form; return it, and whether it is new.

    A command creates a job together with the message, and a worker starts its task after the commit.
    """
    said = form.cleaned_data
    with transaction.atomic():
        message, is_new = room.post(author, said["text"], said["key"], attachment=said["attachment"])
        if is_new:
            ReadMarker.objects.move(author, room, message.pk)
            if said["kind"]:
                job = Job.objects.create(room=room, author=author, message=message, kind=said["kind"])
                Channel("chat.jobs").send({"job": job.pk})
    if is_new:
        gateways.answer(room, message.text)
    return message, is_new
