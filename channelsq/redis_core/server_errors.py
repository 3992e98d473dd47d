"""What the errors of a Redis server mean: it is away for now, full or too old, or it misses something.

The functions take an error as redis-py or as hiredis has it; redis-py takes the codes off some of the texts.

A master that has become a replica, one whose replicas are gone, a full disk, a server that loads its data: it refuses
whatever it is asked, and goes on later.  All of channelsq asks here which errors those are, and then does as after a
lost connection: waits, says so, and goes on when it is over.  A refused command changed nothing.

The package's scripts begin with flags (``#!lua flags=…``), and queues expire by ``PEXPIRE key ms NX``.  Both came with
Redis 7.0.  An older server says no more than that a symbol is unexpected, or that there is an argument too many.
"""

from __future__ import annotations

from channelsq.redis_core.commands import Command, Reply

#: The code of a full server.  It refuses what needs more memory, and that alone.
FULL = "OOM"

#: The codes, which an error's text begins with.  The same as in ``lua/settle.lua``.
CODES = frozenset(
    {
        "BUSY",  # a script runs for too long
        "CLUSTERDOWN",
        "LOADING",  # it reads its data
        "MASTERDOWN",  # a replica without its master
        "MISCONF",  # it cannot save: the disk is full, say
        "NOAUTH",
        "NOREPLICAS",  # fewer than min-replicas-to-write
        FULL,
        "READONLY",  # a replica: it was the master, or the name still leads to the old one
        "TRYAGAIN",
        "WRONGPASS",  # a password that was changed here and not there yet
    }
)

#: Beginnings of other texts: of a connection too many, and of a wait that a master's end has ended.
_STARTS = ("ERR max number of clients reached", "UNBLOCKED force")

#: Texts before the server's own in the error of a whole transaction, and of redis-py's pipelines.
_ABORTED, _IN_PIPELINE = "because of: ", "of pipeline caused error: "

#: Codes that redis-py leaves out of the text of these errors, where it does not keep them in ``status_code``.
_CODE_OF = {
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": FULL,
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "ExecAbortError": "EXECABORT",
    "NoScriptError": "NOSCRIPT",
}

#: Ask a server whether it would write, without writing anything: a script without ``no-writes`` is refused whenever a
#: write would be.  The second is not refused by a server that is full.
MAY_WRITE: Command = ("EVAL", "#!lua flags=no-cluster\nreturn 1", 0)
MAY_WRITE_IF_FULL: Command = ("EVAL", "#!lua flags=no-cluster,allow-oom\nreturn 1", 0)

#: What the streams need.
NEEDED = "Redis 7.0 or later, or Valkey"

#: Said in place of what an old server says.
TOO_OLD = f"the server is too old: redis-streams needs {NEEDED}"

#: Ask a server whether it knows the flags.  It is answered by replicas and by full servers, too.
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
    """Return whether an error's text, as the server sent it, says that it is away for now."""
    if text.partition(" ")[0] in CODES or text.startswith(_STARTS):
        return True
    return text.startswith("EXECABORT") and is_away(text.partition(_ABORTED)[2])


def is_missing_script(reply: Reply) -> bool:
    """Return whether a server that was to run a script does not know it."""
    return isinstance(reply, Exception) and text_of(reply).startswith("NOSCRIPT")


def is_missing_group(reply: Reply) -> bool:
    """Return whether a stream has no consumer group (any more), as Redis was emptied or the stream deleted."""
    return isinstance(reply, Exception) and str(reply).startswith(("NOGROUP", "UNBLOCKED"))


def is_too_old(error: object) -> bool:
    """Return whether a server's error says that it does not know what Redis 7.0 brought."""
    text = str(error)
    return ("compiling script" in text and "'#'" in text) or "wrong number of arguments for 'pexpire'" in text


def raise_error(reply: Reply) -> None:
    """Raise a reply that is an error, of a server that is too old with :data:`TOO_OLD` for its text."""
    if isinstance(reply, Exception):
        if is_too_old(reply):
            raise type(reply)(TOO_OLD) from reply
        raise reply
