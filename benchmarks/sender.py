"""A separate process that sends: ``python -m benchmarks.sender ours`` or ``… peer:core``.

It reads a JSON object a line, and answers with one a line. ``group`` has no answer, as the sockets get the message. It
runs in either environment, so it imports only the modules of its side.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def sending(which: str) -> Any:
    """Return the sending side: ``ours``, or ``peer:`` with a layer's alias."""
    import django

    side, _, alias = which.partition(":")
    os.environ["DJANGO_SETTINGS_MODULE"] = f"benchmarks.sites.{side}.settings"
    if side == "ours":
        django.setup()
        from benchmarks.sites.ours.sending import Sending

        return Sending()
    django.setup()
    from benchmarks.sites.peer.sending import Sending as PeerSending

    return PeerSending(alias)


def answer(side: Any, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Run a request; return the answer."""
    match asked.pop("do"):
        case "group":
            side.group(**asked)
            return None
        case "rate":
            rate: dict[str, Any] = side.rate(**asked)
            return rate
        case "make_groups":
            side.make_groups(**asked)
            return {}
        case other:
            return {"error": f"no such thing to do: {other!r}"}


def main() -> None:
    """Answer requests until standard input ends."""
    side = sending(sys.argv[1])
    print("{}", flush=True)
    for line in sys.stdin:
        try:
            said = answer(side, json.loads(line))
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        if said is not None:
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
