"""Processes are killed, frozen and cut off under sockets that account for every message; see ``make chaos``."""

#: Seconds.  Times are short, so that many faults fit into a few minutes, and in proportion as the defaults are.
#: A worker's lease; on Kombu's stock transport its visibility timeout.
LEASE, VISIBILITY = 2.0, 6.0
#: How often an interface server's heart beats, and for how long that holds: longer than the five seconds in which it
#: notices a connection that nothing comes through.
EVERY, LIFETIME = 1.0, 7.0
#: Without a report for so long a socket goes on: the default, as a worker notices a half-open connection in its time.
ORDER_TIMEOUT = 45.0

#: A group has this many of the sockets.
ROOM = 20


def room_of(number: int) -> str:
    """The group that socket ``number`` is in."""
    return f"room-{number // ROOM}"
