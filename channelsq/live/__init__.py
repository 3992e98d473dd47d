"""Live tasks: the progress, text and result of a Celery task in the browsers of its audience.

In a consumer, view, command or shell::

    from channelsq.live import start

    start(import_csv.s(path), to=message.reply_channel)

In the task::

    from channelsq.live import progress, stream

    @shared_task
    def import_csv(path):
        for number, row in enumerate(rows, 1):
            progress(number, len(rows), "rows")

In the page, with the browser library::

    bridge.task(ticket).onprogress = ({ done, total, text }) => …
"""

from channelsq.exceptions import InvalidTicket, PublicError
from channelsq.live.cancelled import Cancelled
from channelsq.live.reporting import Stream, listeners, progress, stream
from channelsq.live.starting import LiveTask, start

__all__ = [
    "Cancelled",
    "InvalidTicket",
    "LiveTask",
    "PublicError",
    "Stream",
    "listeners",
    "progress",
    "start",
    "stream",
]
