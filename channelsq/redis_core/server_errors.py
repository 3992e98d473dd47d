"""The meaning of a Redis server's errors: temporarily away, full, too old, or a missing script or group.

The functions accept errors of redis-py and of hiredis; redis-py removes the codes from some of the texts.

A server may refuse every command for a while: a master that became a replica, or lost its replicas, a full disk, a
server that loads its data.  All of channelsq decides here which errors those are.  It then does the same as after a
lost connection: wait, log, and continue later.  A refused command changed nothing.

The package's scripts begin with flags (``#!lua flags=…``), and queues expire by ``PEXPIRE key ms NX``.  Both came with
Redis 7.0.  An older server reports only an unexpected symbol, or an argument too many.
"""

from __future__ import annotations

from channelsq.redis_core.commands import Command, Reply

#: The code of a server whose memory is full.  It refuses only commands that need more memory.
FULL = "OOM"

#: The codes at the start of an error's text.  The same as in ``lua/settle.lua``.
CODES = frozenset(
    {
        "BUSY",  # a script runs for too long
        "CLUSTERDOWN",
        "LOADING",  # the server loads its data
        "MASTERDOWN",  # a replica without its master
        "MISCONF",  # the server cannot save, for example because the disk is full
        "NOAUTH",
        "NOREPLICAS",  # fewer replicas than min-replicas-to-write
        FULL,
        "READONLY",  # a replica: it was the master, or the name still resolves to the old one
        "TRYAGAIN",
        "WRONGPASS",  # the password was changed here and not yet there
    }
)

#: Other starts of texts: too many connections, and a wait that ended with the master.
_STARTS = ("ERR max number of clients reached", "UNBLOCKED force")

#: Prefixes of the server's own text in the error of a transaction, and of redis-py's pipelines.
_ABORTED, _IN_PIPELINE = "because of: ", "of pipeline caused error: "

#: Codes that redis-py removes from the text of these errors, if it does not keep them in ``status_code``.
_CODE_OF = {
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": FULL,
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "ExecAbortError": "EXECABORT",
    "NoScriptError": "NOSCRIPT",
}

#: Tests whether a server accepts writes, without writing: a script without ``no-writes`` is refused whenever a write
#: would be.  A full server accepts the second.
MAY_WRITE: Command = ("EVAL", "#!lua flags=no-cluster\nreturn 1", 0)
MAY_WRITE_IF_FULL: Command = ("EVAL", "#!lua flags=no-cluster,allow-oom\nreturn 1", 0)

#: The servers that the streams need.
NEEDED = "Redis 7.0 or later, or Valkey"

#: The text that replaces an old server's own.
TOO_OLD = f"the server is too old: redis-streams needs {NEEDED}"

#: Tests whether a server knows the flags.  Replicas and full servers answer, too.
KNOWS_FLAGS: Command = ("EVAL", "#!lua flags=no-writes,no-cluster,allow-stale\nreturn 1", 0)


def is_error(reply: Reply) -> bool:
    """Return whether a reply is an error."""
    return isinstance(reply, Exception)


def text_of(error: BaseException) -> str:
    """Return the text of an error as the server sent it."""
    code = getattr(error, "status_code", None) or _CODE_OF.get(type(error).__name__)
    text = str(error).rpartition(_IN_PIPELINE)[2]
    return f"{code} {text}" if code and not text.startswith(f"{code} ") else text


def is_away(text: str) -> bool:
    """Return whether an error's text, as the server sent it, means that the server is away for now."""
    if text.partition(" ")[0] in CODES or text.startswith(_STARTS):
        return True
    return text.startswith("EXECABORT") and is_away(text.partition(_ABORTED)[2])


def is_missing_script(reply: Reply) -> bool:
    """Return whether a reply says that the server does not know the script."""
    return isinstance(reply, Exception) and text_of(reply).startswith("NOSCRIPT")


def is_missing_group(reply: Reply) -> bool:
    """Return whether a reply says that a stream has no consumer group: Redis was emptied, or the stream deleted."""
    return isinstance(reply, Exception) and str(reply).startswith(("NOGROUP", "UNBLOCKED"))


def is_too_old(error: object) -> bool:
    """Return whether a server's error says that it lacks a feature of Redis 7.0."""
    text = str(error)
    return ("compiling script" in text and "'#'" in text) or "wrong number of arguments for 'pexpire'" in text


def raise_error(reply: Reply) -> None:
    """Raise a reply that is an error; from a server that is too old, with the text :data:`TOO_OLD`."""
    if isinstance(reply, Exception):
        if is_too_old(reply):
            raise type(reply)(TOO_OLD) from reply
        raise reply
