"""Consumers in processes of a worker's own, beside its pool: how they die, end, and are replaced."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from channelsq import __version__
from tests.support.brokers import Broker, LayerClient, make_broker, operator
from tests.support.processes import Process, Processes
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

Start = Callable[..., Process]

#: Of a message, until it is a dead letter; each takes some seconds.
DEATHS = 3


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Broker:
    request.param = "redis-streams"
    return make_broker(request)


@pytest.fixture
def client(broker: Broker) -> Iterator[LayerClient]:
    client = LayerClient(broker)
    yield client
    client.close()


@pytest.fixture
def start(broker: Broker, processes: Processes, tmp_path: Path) -> Start:
    """Starts workers with channel processes; a solo worker, unless told otherwise, starts and ends sooner."""
    numbers = itertools.count()

    def start(
        *args: str,
        pool: str = "solo",
        queues: str = "hostile.kills_process,hostile.limited_answer,slow,echo,celery",
        **env: str,
    ) -> Process:
        known = {
            **broker.env,
            "TEST_DATABASE": str(tmp_path / "db"),
            "TEST_RECORDS": str(tmp_path),
            "TEST_VISIBILITY": "60",  # nobody waits for that
            "TEST_CAPACITY": "1000",
            "TEST_PROCESSES": "1",
            "TEST_THREADS": "8",
            **env,
        }
        name = f"{tmp_path.name}-{next(numbers)}@%h"
        options = ("-n", name, "--without-mingle", "--without-gossip", "-P", pool, "-c", "1", "-Q", queues)
        return processes.worker(*options, *args, env=known, app="tests.project")

    return start


def children(worker: Process) -> list[int]:
    """The channel processes of a worker."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if (
                parent == worker.pid
                and b"channelsq.worker.processes.channel_process" in (path / "cmdline").read_bytes()
            ):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def is_running(pid: int) -> bool:
    """Return whether a process lives, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def receive(client: LayerClient, count: int, timeout: float = 60.0) -> list[dict[str, Any]]:
    """That many answers."""
    return [client.receive(timeout) for _ in range(count)]


def arrived(client: LayerClient) -> Iterator[dict[str, Any]]:
    """The answers that are there."""
    while (answer := client.layer.receive([client.reply_channel])[1]) is not None:
        yield answer


def recorded(path: Path) -> list[list[str]]:
    """Return the records of the consumer that kills its process."""
    file = path / "kills-process"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_processes_that_cannot_start_are_reported_and_started_less_often(start: Start, tmp_path: Path) -> None:
    """The worker itself can load the project: only its processes meet the fault."""
    folder = tmp_path / "fault"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nif any('channel_process' in each for each in sys.orig_argv):\n    sys.exit('no such licence')\n"
    )
    worker = start(PYTHONPATH=str(folder))
    line = worker.wait_for_output(r"(\d) channel processes in a row ended before they read a channel.* in (\d+) s")
    assert line.groups() == ("2", "2")
    line = worker.wait_for_output(r"(3) channel processes in a row .* in (\d+) s")
    assert line[2] == "4"
    assert worker.terminate() == 0


def test_a_worker_that_forks_warns_of_threads_with_consumers(start: Start, client: LayerClient) -> None:
    worker = start("--channel-processes", "0", pool="prefork")
    worker.wait_for_output(r"consumers run in threads of a worker that forks")
    client.send("echo", {"value": 1})
    assert client.receive()["echo"] == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["segfault", "exit", "kill"])
@pytest.mark.ways("^(?!.*(exit|kill)])")
def test_a_message_that_kills_its_process(start: Start, client: LayerClient, tmp_path: Path, way: str) -> None:
    """It is a dead letter after so many deaths; the innocent that died with it are handled, and others meanwhile."""

    def deaths() -> list[list[str]]:
        return [line for line in recorded(tmp_path) if line[0] == way]

    worker = start(pool="prefork" if way == "segfault" else "solo", TEST_DEATHS=str(DEATHS))
    client.send("hostile.kills_process", {"way": "answer", "number": -1})
    assert client.receive(30)["pid"] != worker.pid
    for number in range(4):
        client.send("slow", {"seconds": 0.2, "order": number})
    client.send("hostile.kills_process", {"way": way, "number": 0, "order": 100, "code": 3})
    for number in range(4, 8):
        client.send("slow", {"seconds": 0, "order": number})
    sent = meanwhile = 0
    done: set[object] = set()
    echoed: set[object] = set()

    def is_over() -> bool:
        nonlocal sent, meanwhile
        if 100 not in done:
            sent += 1
            client.send("echo", {"value": sent})
        has_begun = bool(deaths())
        for answer in arrived(client):
            done.update([answer["done"]] if "done" in answer else [])
            echoed.update([answer["echo"]] if "echo" in answer else [])
            meanwhile += has_begun and "echo" in answer and 100 not in done
        return len(done) == 9 and len(echoed) == sent

    wait_until(is_over, "every answer", 200, interval=0.3)
    assert done == {*range(8), 100}
    assert meanwhile > 3
    assert f"{DEATHS} consumers died with the message" in worker.output
    assert len(deaths()) == len({pid for _, _, pid in deaths()}) == DEATHS
    assert len({identity for _, identity, _ in deaths()}) == 1
    assert worker.running
    assert worker.output.count("died of") == DEATHS


def test_recycled_by_messages(start: Start, client: LayerClient, tmp_path: Path) -> None:
    """Nothing is lost or run twice, and a consumer that runs may finish."""
    worker = start(CHANNEL_MAX_MESSAGES="20")
    client.send("slow", {"seconds": 4})
    slow = client.receive()["pid"]
    answers: list[dict[str, Any]] = []
    for number in range(300):
        client.send("hostile.kills_process", {"way": "answer", "number": number})
        answers += [client.receive(30)] if number > 50 else []  # as many as the channel can hold
    while len(answers) < 300 + 1:
        answers.append(client.receive(30))
    worker.wait_for_output("is recycled")
    assert sorted(answer["number"] for answer in answers if "number" in answer) == list(range(300))
    assert [answer["pid"] for answer in answers if "finished" in answer] == [slow]
    wait_until(lambda: len(children(worker)) == 1 and slow not in children(worker), "another process", 30)
    client.send("echo", {"value": 1})
    assert client.receive(30)["pid"] != slow
    assert "died" not in worker.output


def test_recycled_by_memory(start: Start, client: LayerClient) -> None:
    worker = start(CHANNEL_MAX_MEMORY=str(120 * 1024))
    client.send("hostile.kills_process", {"way": "grow", "number": 0})
    first = client.receive()["pid"]
    client.send("hostile.kills_process", {"way": "grow", "number": 1})
    client.receive()
    worker.wait_for_output("is recycled")

    def answers_elsewhere() -> bool:
        client.send("echo", {"value": 1})
        return bool(client.receive()["pid"] != first)

    wait_until(answers_elsewhere, "another process", 40)
    wait_until(lambda: first not in children(worker), "the end of the first")
    assert "died" not in worker.output


def test_the_worker_is_killed(start: Start, client: LayerClient) -> None:
    """Its channel processes give back what they have not begun, finish what they have, and end."""
    worker = start("--channel-threads", "1", pool="prefork")
    client.send("slow", {"seconds": 4, "order": 1})
    pid = client.receive()["pid"]
    assert children(worker) == [pid]
    client.send("echo", {"value": 1})
    os.kill(worker.pid, signal.SIGKILL)  # it alone
    worker.wait()
    start("--channel-threads", "1")
    answers = [client.receive(30) for _ in range(3)]
    assert {answer["pid"] for answer in answers if "finished" in answer} == {pid}
    assert {answer["pid"] for answer in answers if "echo" in answer} not in (set(), {pid})
    wait_until(lambda: not is_running(pid), "the end of the channel process", 20)
    assert client.nothing()


def test_two_processes(start: Start, client: LayerClient) -> None:
    """One goes on while the other is started again."""
    worker = start("--channel-threads", "2", TEST_PROCESSES="2")
    assert "consumers run in 2 processes of 2 threads" in worker.output
    wait_until(lambda: len(children(worker)) == 2, "two processes", 30)
    pids: set[object] = set()

    def both_answer() -> bool:
        for _ in range(4):
            client.send("slow", {"seconds": 0.3})
        pids.update(answer["pid"] for answer in receive(client, 8) if "pid" in answer)
        return len(pids) == 2

    wait_until(both_answer, "answers of both", 40)
    killed, other = children(worker)
    os.kill(killed, signal.SIGKILL)
    client.send("echo", {"value": 1})
    assert client.receive()["pid"] != killed
    wait_until(lambda: len(children(worker)) == 2 and killed not in children(worker), "another process", 30)
    assert worker.terminate() == 0
    assert not is_running(other)


def test_threads_of_the_worker_beside_a_prefork_pool(start: Start, client: LayerClient) -> None:
    worker = start("--channel-processes", "0", "--channel-threads", "3", pool="prefork")
    assert "consumers run in 3 threads of the worker" in worker.output
    assert children(worker) == []
    for _ in range(3):
        client.send("slow", {"seconds": 1})
    answers = receive(client, 6)
    assert [set(answer) for answer in answers[:3]] == [{"pid", "started"}] * 3  # at once
    assert {answer["pid"] for answer in answers} == {worker.pid}
    client.send("hostile.limited_answer", {"seconds": 0, "order": 1})
    answer = client.receive()
    assert (answer["pid"] != worker.pid, client.receive()) == (True, {"done": 1})
    assert worker.terminate() == 0


@pytest.mark.ways("other ways")
def test_processes_beside_greenlets(start: Start, client: LayerClient) -> None:
    """In a worker with gevent every socket is set not to block, those that its children inherit, too."""
    worker = start(pool="gevent")
    client.send("slow", {"seconds": 2, "order": 1})
    pid = client.receive()["pid"]
    assert children(worker) == [pid]
    os.kill(pid, signal.SIGKILL)
    assert client.receive(40)["pid"] != pid
    worker.signal(signal.SIGTERM)
    assert "finished" in client.receive()
    assert client.receive() == {"done": 1}
    assert worker.wait() == 0


def test_a_time_limit_is_kept_by_celerys_pool(start: Start, client: LayerClient, broker: Broker) -> None:
    worker = start("-E", pool="prefork")
    client.send("hostile.limited_answer", {"seconds": 0, "order": 1})
    answer = client.receive()
    assert str(answer["process"]).startswith("ForkPoolWorker")
    assert answer["pid"] not in children(worker)
    assert client.receive() == {"done": 1}
    assert f"tests.project.hostile.limited_answer[{answer['id']}] received" in worker.output
    client.send("hostile.limited_answer", {"seconds": 60, "order": 2})
    assert answer["id"] != client.receive()["id"]
    assert client.receive() == {"done": 2}
    worker.wait_for_output("Hard time limit .* exceeded")
    client.send("hostile.limited_answer", {"seconds": 0, "order": 3})
    wait_until(lambda: client.receive() == {"done": 3}, "the next one")  # Celery tells of the limit twice


def test_revoke_with_terminate(start: Start, client: LayerClient, broker: Broker) -> None:
    """A consumer's thread cannot be ended, and whoever asks for that is told; the worker goes on."""
    start("-E")
    client.send("slow", {"seconds": 3, "order": 1})
    client.receive()
    with operator(broker) as app:

        def find() -> str | None:
            active = app.control.inspect(timeout=1).active() or {}
            return next((request["id"] for request in chain(*active.values())), None)

        replies = app.control.revoke(wait_until(find, "the request", 20), terminate=True, reply=True, timeout=5)
    assert "cannot be terminated" in json.dumps(replies)
    assert "finished" in client.receive()
    assert client.receive() == {"done": 1}


def test_a_process_that_hangs_does_not_hold_up_a_cold_shutdown(start: Start, client: LayerClient) -> None:
    worker = start(pool="prefork")
    client.send("slow", {"seconds": 0, "order": 1})
    pid = client.receive()["pid"]
    receive(client, 2)
    os.kill(pid, signal.SIGSTOP)
    worker.signal(signal.SIGQUIT)
    worker.wait(30)
    assert not is_running(pid)
    assert f"the channel process {pid} is killed" in worker.output


def test_a_warm_shutdown_becomes_a_cold_one(start: Start, client: LayerClient) -> None:
    worker = start(pool="prefork")
    client.send("slow", {"seconds": 60, "order": 1})
    pid = client.receive()["pid"]
    worker.signal(signal.SIGTERM)
    worker.wait_for_output("Warm shutdown")
    worker.signal(signal.SIGQUIT)
    worker.wait(20)
    assert not is_running(pid)
    assert "died" not in worker.output
    again = start()
    assert client.receive(30)["pid"] != pid  # it is run again
    again.kill()  # the message would be waited for


@pytest.mark.ways("other ways")
def test_the_autoscaler_counts_tasks_alone(start: Start, client: LayerClient, broker: Broker) -> None:
    start("--autoscale", "4,1", pool="prefork")

    def processes(app: Celery) -> int:
        (stats,) = wait_until(lambda: app.control.inspect(timeout=2).stats(), "an answer", 20).values()
        return len(stats["pool"]["processes"])

    with operator(broker) as app:
        assert processes(app) == 1
        for _ in range(30):
            client.send("slow", {"seconds": 1})
        finished = 0
        while finished < 30:
            finished += "finished" in client.receive()
            assert finished % 8 or processes(app) == 1
        for number in range(12):
            app.send_task("tests.project.tasks.write", ("tasks", str(number), 2.0))
        wait_until(lambda: processes(app) > 1, "more processes for tasks", 30)


def test_the_command_channels(start: Start, broker: Broker, processes: Processes) -> None:
    start(queues="slow,echo")
    for options, told in (((), ""), (("--json",), "json")):
        command = processes.start("celery", "-A", "tests.project", "channels", "-t", "3", *options, env=broker.env)
        assert command.wait(60) == 0
        if told:
            (answer,) = json.loads(command.output[command.output.index("{") :]).values()
            assert answer["reads"] == {"default": ["channelsq.delayed", "echo", "slow"]}
            assert answer["runs"] == "consumers run in a process of 8 threads"
            assert (answer["channelsq"], answer["wire"]) == (__version__, 1)
            assert answer["streaming"] == {"default": {"running": 0, "limit": 4}}
        else:
            where = f"consumers run in a process of 8 threads, channelsq {__version__}, wire version 1"
            assert f"{where}\n    default: channelsq.delayed, echo, slow\n" in command.output
            assert "    default: 0 streaming responses, of at most 4\n" in command.output
