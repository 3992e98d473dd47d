"""The parts with every stack running: echo, connect, fan-out, HTTP, publishing."""

from __future__ import annotations

import itertools
from functools import partial

from benchmarks.frames import WrongAnswer
from benchmarks.measuring import Run
from benchmarks.stacks import WS, Contestant, Peer

#: Connections of the HTTP load.
HTTP_CONNECTIONS = 50
PAGES = f"{HTTP_CONNECTIONS} connections"

#: Groups besides the one that gets the sends.
OTHER_GROUPS = (0, 1000, 10000)

#: The channel that only collects (it is in the settings of both projects), and the group with it as its one member.
SINK, COLLECTED = "bench.sink", "collected"

_numbers = itertools.count(1)


def choose_ws(run: Run) -> None:
    """Find the fastest WebSocket implementation of uvicorn for the peer, and use it."""
    rates: dict[str, float] = {}
    for ws in WS:
        peer = Peer(run.logs, ws)
        try:
            contestant = Contestant(ws, peer, "/echo/async/")
            run.wait_for(peer, contestant.path)
            run.open(contestant, 100)
            rates[ws] = run.client.ask("echo", warm=0.5, seconds=run.options.seconds, pids=[])["rate"]
            run.client.ask("close")
        except WrongAnswer as error:
            run.fail(f"uvicorn --ws {ws}: {error}")
        finally:
            peer.stop()
    if not rates:
        raise SystemExit("benchmarks: no WebSocket implementation of uvicorn answered")
    run.ws = max(rates, key=lambda ws: rates[ws])
    told = ", ".join(f"{ws} {rate:,.0f}" for ws, rate in rates.items())
    run.results.notes.append(
        f"uvicorn runs with `--ws {run.ws}`, the best of its implementations at 100 sockets that echo with an async "
        f"consumer (messages/s, one run of {run.options.seconds:g} s each): {told}."
    )
    print(f"  {told}", flush=True)


def echo(run: Run) -> None:
    """Let each socket send, wait for its echo, and send again."""
    for count in run.options.sockets:
        work = f"{count} {'socket' if count == 1 else 'sockets'}"
        run.turns("echo", work, run.echoes(), partial(count_echoes, run, count=count))


def count_echoes(run: Run, contestant: Contestant, count: int = 100) -> dict[str, float]:
    """Let ``count`` sockets echo for a while."""
    run.open(contestant, count)
    contestant.stack.settle()
    told = run.client.ask("echo", warm=0.3, seconds=run.options.seconds, pids=contestant.stack.pids())
    run.client.ask("close")
    return {
        "messages/s": told["rate"],
        "p50 ms": told["p50"],
        "p99 ms": told["p99"],
        "CPU us a message": told["cpu"],
        "client's core": told["client"],
    }


def connect(run: Run) -> None:
    """Measure handshakes, 50 at a time, until 1000 sockets are accepted."""

    def measure(contestant: Contestant) -> dict[str, float]:
        seconds = run.open(contestant, 1000)
        run.client.ask("close")
        return {"handshakes/s": 1000 / seconds}

    run.turns("connect", "1000 sockets", run.echoes(), measure)


def fanout(run: Run) -> None:
    """Measure group sends to every socket, from a consumer and from a separate process."""
    for count in run.options.members:

        def measure(contestant: Contestant, count: int = count) -> dict[str, float]:
            group = f"room-{next(_numbers)}"
            run.open(contestant, count, group=group)
            contestant.stack.settle()
            values: dict[str, float] = {}
            pids = contestant.stack.pids()
            for source in ("outside", "consumer"):
                sender = contestant.stack.sender_command(contestant.sender) if source == "outside" else None
                told = run.client.ask(
                    "fan", group=group, warm=0.2, seconds=run.options.seconds / 2, pids=pids, sender=sender
                )
                values[f"deliveries/s, sent from {source}"] = told["deliveries"]
                values[f"p50 ms to the last, sent from {source}"] = told["p50"]
            run.client.ask("close")
            return values

        run.turns("fanout", f"{count} members", run.rooms(), measure)


def http(run: Run) -> None:
    """Measure a trivial Django view."""
    run.turns("http", PAGES, run.pages(), partial(count_pages, run))


def count_pages(run: Run, contestant: Contestant) -> dict[str, float]:
    """Request the view for a while."""
    told = run.client.ask(
        "http",
        port=contestant.stack.port,
        path=contestant.path,
        body="Hello, world",
        connections=HTTP_CONNECTIONS,
        warm=0.3,
        seconds=run.options.seconds,
        pids=contestant.stack.pids(),
    )
    return {
        "requests/s": told["rate"],
        "p50 ms": told["p50"],
        "p99 ms": told["p99"],
        "CPU us a request": told["cpu"],
        "client's core": told["client"],
    }


def publish(run: Run) -> None:
    """Measure sends a second from one process, to a channel that only collects and to a group of this one member."""
    for target, name in (("channel", SINK), ("group", COLLECTED)):
        publishers = [
            # The request for the sender takes the place of a path.
            Contestant(f"{room.name}, {how}", room.stack, kind.format(target), room.sender)
            for room in run.rooms()
            # The pub/sub layer has no channels to read later, and no group without subscribers.
            if room.sender != "peer:pubsub" or target == "group"
            for kind, how in _kinds(room)
        ]
        run.turns("publish", f"{target} sends", publishers, partial(_publish, run, target=name, share=0.5))


def _kinds(room: Contestant) -> list[tuple[str, str]]:
    if room.sender == "ours":
        return [("{}", "from a script"), ("task-{}", "from a Celery task")]
    return [("{}-sync", "async_to_sync a send"), ("{}", "in one event loop")]


def _publish(run: Run, contestant: Contestant, target: str, share: float) -> dict[str, float]:
    sender = contestant.stack.sender(contestant.sender)
    try:
        if target == COLLECTED and contestant.sender != "peer:pubsub":
            sender.ask("make_groups", names=[target])
        sender.ask("rate", kind=contestant.path, seconds=0.1, target=target)
        told = sender.ask("rate", kind=contestant.path, seconds=run.options.seconds * share, target=target)
    finally:
        sender.stop()
    return {"sends/s": told["sent"] / told["seconds"]}


def groups(run: Run) -> None:
    """Measure group sends with more and more other groups."""
    rooms = [
        Contestant(room.name, room.stack, "group", room.sender) for room in run.rooms() if room.sender != "peer:pubsub"
    ]
    made = 0
    for count in OTHER_GROUPS:
        for room in rooms:
            sender = room.stack.sender(room.sender)
            try:
                sender.ask("make_groups", names=[f"other-{number}" for number in range(made, count)])
            finally:
                sender.stop()
        made = count
        run.turns("groups", f"{count} other groups", rooms, partial(_publish, run, target=COLLECTED, share=0.3))
