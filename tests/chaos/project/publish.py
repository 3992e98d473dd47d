"""``python -m tests.chaos.project.publish ROOMS PER_SECOND``: numbered messages to groups, until SIGTERM."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import django


def main() -> None:
    """Write down of each message when its send began and ended, and how."""
    rooms, per_second = int(sys.argv[1]), float(sys.argv[2])
    django.setup()
    from channelsq import Group
    from channelsq.exceptions import BrokerUnavailable, ChannelFull

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    file = os.open(Path(os.environ["CHAOS_JOURNAL"]) / "publisher", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in itertools.count():
        room = f"room-{number % rooms}"
        began = time.monotonic()
        os.write(file, f"begin {number} {room} {began:.6f}\n".encode())
        try:
            Group(room).send({"text": f"group {room} {number}"})
            outcome = "sent"
        except (BrokerUnavailable, ChannelFull) as error:
            outcome = type(error).__name__
        os.write(file, f"end {number} {time.monotonic():.6f} {outcome}\n".encode())
        if stopping.wait(max(0.0, began + 1 / per_second - time.monotonic())):
            return


if __name__ == "__main__":
    main()
