"""The tables of the chat: rooms and messages, files, the users in the rooms, reading, and jobs."""

from app.models.files import Attachment
from app.models.frames import frame
from app.models.jobs import Job
from app.models.presence import GONE_AFTER, Presence
from app.models.reading import Mention, ReadMarker, unread_of
from app.models.rooms import HISTORY, TEXT_LENGTH, Message, Room

__all__ = [
    "GONE_AFTER",
    "HISTORY",
    "TEXT_LENGTH",
    "Attachment",
    "Job",
    "Mention",
    "Message",
    "Presence",
    "ReadMarker",
    "Room",
    "frame",
    "unread_of",
]
