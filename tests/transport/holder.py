"""A program of the tests: takes messages of a queue and does with them what its arguments say.

``holder.py URL QUEUE LEASE what``, where what is

* ``hold``: never acknowledges;
* ``busy``: after the first message the thread does nothing else until a line comes on the standard input; then
  acknowledges it, closes and ends;
* ``fork``: after the first message forks a child that closes the connection and ends; then as ``busy``.

It prints a line for each message, and ``child ended`` and ``done``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import kombu

import channelsq.transport  # noqa: F401  (registers the URL schemes)


def say(line: str) -> None:
    """Print a line for the test to read."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(url: str, name: str, lease: str, what: str) -> None:
    connection = kombu.Connection(url, transport_options={"lease": float(lease)})
    taken: list[Any] = []

    def received(message: Any) -> None:
        taken.append(message)
        say(f"got {message.payload}")

    consumer = connection.Consumer(
        [kombu.Queue(name, kombu.Exchange(name), routing_key=name)], on_message=received, prefetch_count=100
    )
    consumer.consume()
    while what == "hold" or not taken:
        try:
            connection.drain_events(timeout=1)
        except TimeoutError:
            continue
    if what == "fork":
        child = os.fork()
        if not child:
            connection.release()
            sys.exit(0)
        os.waitpid(child, 0)
        say("child ended")
    sys.stdin.readline()
    for message in taken:
        message.ack()
    connection.release()
    say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
