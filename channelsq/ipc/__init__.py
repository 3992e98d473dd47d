"""A Kombu transport between the processes of one machine, in a SQLite file, without a broker.

Importing the package registers the URL scheme ``ipc``::

    ipc://mysite            the directory "mysite" of this user, see :func:`default_directory`
    ipc:///srv/mysite/ipc   this directory

::

    directory   the directory of the file, and its owner
    owners      the processes that live
    wake_ups    the wake-ups between processes
    database    the file itself
    room        the space that is kept on the file system
    overdue     expired messages, and those of dead processes
    store       messages, queues and memberships in the file
    transport   the store as a Kombu transport
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

from channelsq.ipc.directory import SCHEME, ipc_url

__all__ = ["SCHEME", "ipc_url", "register"]


def register() -> None:
    """Register the scheme with Kombu; repeated calls are harmless."""
    TRANSPORT_ALIASES[SCHEME] = "channelsq.ipc.ipc_transport:Transport"


register()
