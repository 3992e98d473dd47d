"""Detection of greenlets: a worker with ``-P gevent`` or ``-P eventlet`` uses them as threads."""

from __future__ import annotations

import sys


def are_threads() -> bool:
    """Return whether gevent or eventlet has patched :mod:`threading`."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return True
    eventlet = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(eventlet.is_monkey_patched("thread"))
