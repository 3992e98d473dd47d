"""A Kombu transport between the processes of one machine, in a SQLite file, without a broker.

Importing the package registers the URL scheme ``ipc``::

    ipc://mysite            the directory "mysite" among those of this user, see :func:`default_directory`
    ipc:///srv/mysite/ipc   this directory

::

    directory   where the file is, and whose
    owners      which processes live
    bells       how they wake each other
    file        the file itself
    overdue     what expired, and what dead processes held
    store       messages, queues and memberships in the file
    transport   the store as Kombu has it
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

from channelsq.ipc.directory import SCHEME, ipc_url

__all__ = ["SCHEME", "ipc_url", "register"]


def register() -> None:
    """Tell Kombu about the scheme; harmless to repeat."""
    TRANSPORT_ALIASES[SCHEME] = "channelsq.ipc.ipc_transport:Transport"


register()
