"""Live tasks, and a consumer that starts them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import chain, chord, group, shared_task
from celery.exceptions import SoftTimeLimitExceeded

from channelsq import Group
from channelsq.live import PublicError, listeners, progress, start, stream
from channelsq.message import Message
from tests.project.records import record, wait_for_go


@shared_task
def count(rows: int, wait: str = "") -> int:
    """Report many rows; wait for a file in the middle."""
    for row in range(1, rows + 1):
        progress(row, rows, "rows")
        if wait and row == rows // 2:
            wait_for_go(wait + ".go", 60)
    return rows


@shared_task(acks_late=True, reject_on_worker_lost=True)
def count_surely(rows: int, wait: str) -> int:
    """Report many rows, again if a worker dies."""
    return int(count(rows, wait))


@shared_task
def write(words: list[str], wait: str = "") -> None:
    """Write text, with a wait for a file in the middle."""
    with stream("answer") as out:
        for number, word in enumerate(words):
            out.write(word)
            if wait and number == len(words) // 2:
                wait_for_go(wait + ".go", 60)


@shared_task(bind=True, max_retries=3, default_retry_delay=0)
def flaky(self: Any, times: int) -> str:
    """Fail so often, then succeed; each try writes text anew."""
    with stream("answer") as out:
        out.write(f"try {self.request.retries}")
        if self.request.retries < times:
            raise self.retry(countdown=0)
    return "done"


@shared_task
def fail(secret: str, public: str = "") -> None:
    """Fail, with a message for the page or with none."""
    raise PublicError(public) if public else ValueError(secret)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def dies_once(name: str) -> str:
    """Kill the process at the first run."""
    with stream("answer") as out:
        out.write("a run that dies, ")
        path = Path(os.environ["TEST_RECORDS"]) / name
        if not path.exists():
            progress(1, 2, "first run")
            wait_for_go(name + "-go" + ".go", 60)
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        out.write("a run that lives")
    return "survived"


@shared_task
def dies() -> None:
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def add(*numbers: Any) -> float:
    """Return a sum."""
    return sum(sum(each) if isinstance(each, list) else each for each in numbers)


@shared_task
def fails_for(number: int, bad: int) -> int:
    """Fail for one number."""
    if number == bad:
        raise PublicError(f"{number} is bad")
    return number


@shared_task
def calls(name: str) -> None:
    """Call another task, which reports to the same audience."""
    called.delay(name)
    wait_for_go(name + ".go", 60)


@shared_task
def calls_function(name: str) -> None:
    """Call another task as a function, in this one."""
    called(name)


@shared_task
def called(name: str) -> None:
    """Report for the caller."""
    progress(7, 9, "from the called task")
    with stream("called") as out:
        out.write("text of the called task")
    record(name, "called")


@shared_task
def until_left(name: str) -> None:
    """Work until nobody listens."""
    while listeners(grace=1.0):
        time.sleep(0.02)
    record(name, "left alone")


def work_on(name: str) -> None:
    """Work until the running task is cancelled."""
    record(name, "began")
    try:
        while True:
            progress(1, None, "endless")
            time.sleep(0.02)
    except BaseException as error:
        record(name, type(error).__name__)
        raise


@shared_task
def endless(name: str) -> None:
    """Work until it is cancelled."""
    work_on(name)


@shared_task
def endless_text(name: str) -> None:
    """Write until it is cancelled, and report no progress."""
    record(name, "began")
    try:
        with stream("answer") as out:
            while True:
                out.write(".")
                time.sleep(0.02)
    except BaseException as error:
        record(name, type(error).__name__)
        raise


@shared_task
def endless_wait(name: str) -> None:
    """Ask for listeners until it is cancelled."""
    record(name, "began")
    try:
        while listeners():
            time.sleep(0.02)
    except BaseException as error:
        record(name, type(error).__name__)
        raise


@shared_task(time_limit=2)
def too_long() -> None:
    """Run into the hard time limit."""
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            continue


#: What a page may start, by its name.
SIGNATURES: dict[str, Any] = {
    "chain": lambda: chain(add.s(1, 2), add.s(3), add.s(4)),
    "group": lambda: group(add.s(number, 1) for number in range(10)),
    "chord": lambda: chord([add.s(number, 1) for number in range(10)], add.s()),
    "group-fails": lambda: group(fails_for.s(number, 3) for number in range(5)),
    "chord-fails": lambda: chord([fails_for.s(number, 3) for number in range(5)], add.s()),
    "chain-fails": lambda: chain(fails_for.s(3, 3), add.s(3)),
    "nested": lambda: chain(add.s(1, 1), group(add.s(1), chain(add.s(2), add.s(3))), add.s()),
}


def receive(message: Message) -> None:
    """Start what the page names: ``{"start": name, "args": […], "to": "me", "nobody" or a group}``."""
    asked = json.loads(message["text"])
    if "join" in asked:
        Group(asked["join"]).add(message.reply_channel)
        message.reply_channel.send({"text": json.dumps({"joined": asked["join"]})})
        return
    name, to = asked["start"], asked.get("to", "me")
    made = SIGNATURES.get(name)
    signature = made() if made else globals()[name].s(*asked.get("args", ()))
    if to == "nobody":  # called as every Celery user does
        message.reply_channel.send({"text": json.dumps({"started": signature.delay().id})})
        return
    live = start(signature, to=message.reply_channel if to == "me" else Group(to))
    message.reply_channel.send({"text": json.dumps({"started": live.id})})


def may_cancel(message: Message, task: str) -> bool:
    """Refuse on one path."""
    return "refused" not in str(message["path"])
