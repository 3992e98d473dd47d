"""How a Redis server shows that it is too old for the streams, and what an operator is told then.

The package's scripts begin with flags (``#!lua flags=…``), and queues expire by ``PEXPIRE key ms NX``.  Both came with
Redis 7.0.  An older server says no more than that a symbol is unexpected, or that there is an argument too many.
"""

from __future__ import annotations

#: What the streams need.
NEEDED = "Redis 7.0 or later, or Valkey"

#: Said in place of what an old server says.
TOO_OLD = f"the server is too old: redis-streams needs {NEEDED}"

#: Ask a server whether it knows the flags.  It is answered by replicas and by full servers, too.
KNOWS_FLAGS = ("EVAL", "#!lua flags=no-writes,no-cluster,allow-stale\nreturn 1", 0)


def is_too_old(error: object) -> bool:
    """Return whether a server's error says that it does not know what Redis 7.0 brought."""
    text = str(error)
    return ("compiling script" in text and "'#'" in text) or "wrong number of arguments for 'pexpire'" in text
