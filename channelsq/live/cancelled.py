"""The exception that ends a live task which was cancelled."""

from celery.exceptions import Ignore

from channelsq.exceptions import ChannelsqError


class Cancelled(ChannelsqError, Ignore):
    """A live task was cancelled; ``progress()``, ``listeners()`` and a stream's ``write()`` raise it in the task.

    Celery ignores it: the task is recorded as revoked, not as failed.
    """
