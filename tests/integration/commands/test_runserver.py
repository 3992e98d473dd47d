"""``manage.py runserver`` and ``runworker``, and what each command says on a layer that it cannot work with."""

from __future__ import annotations

import os
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.brokers import Broker, LayerClient
from tests.support.demo import Demo, copy_project, fresh_redis
from tests.support.ports import free_port, is_open
from tests.support.processes import Process, Processes, pretending
from tests.support.visitor import Visitor
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

PROJECT = {"DJANGO_SETTINGS_MODULE": "tests.project.settings"}


#: Seconds that a reply may take on an idle machine; a poll anywhere on its way would take longer.
LATE = 0.020


def interrupt(process: Process) -> None:
    """Send SIGINT to the whole foreground group, as Ctrl+C does."""
    os.killpg(process.pid, signal.SIGINT)


def fails(process: Process) -> str:
    """The output of a command that must fail, without a traceback."""
    assert process.wait() == 1, process.output
    assert "Traceback" not in process.output
    return process.output


def start_project(processes: Processes, *args: str, **env: str) -> tuple[Process, int]:
    """``manage.py runserver`` of the test project."""
    port = free_port()
    process = processes.start(
        "python", "-m", "tests.project.manage", "runserver", str(port), *args, env={**PROJECT, **env}
    )
    process.wait_for_port(port)
    return process, port


# -- starting, reloading, ending -------------------------------------------------------------------


def test_banner_reload_and_interrupt(processes: Processes, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    port = free_port()
    server = processes.start("python", "manage.py", "runserver", str(port), cwd=project)
    server.wait_for_port(port)
    url = f"http://127.0.0.1:{port}/new/"
    assert httpx.get(url).status_code == 404
    assert server.output.count("Starting development server at") == 1
    assert server.output.count("channelsq: in-memory channel layer") == 1

    server.wait_for_output(r'\[\d\d/\w{3}/\d{4} [\d:,]+\] 127\.0\.0\.1:\d+ "GET /new/" 404')

    # The new address is a view's; consumers are in the same process.
    urls = project / "config" / "urls.py"
    urls.write_text(
        urls.read_text()
        + "\nfrom django.http import HttpResponse\n"
        + "urlpatterns += [path('new/', lambda request: HttpResponse('new code'))]\n"
    )

    def reloads() -> bool:
        urls.touch()  # again: Django may have looked at it for the first time only after the change
        return "urls.py changed, reloading." in server.output

    def answers() -> bool:
        try:
            return httpx.get(url).text == "new code"
        except httpx.TransportError:
            return False

    wait_until(reloads, "a reload", 30, interval=2)
    wait_until(answers, "the new code answers", 30)
    assert server.output.count("Starting development server at") == 2
    interrupt(server)
    server.wait(10)
    assert "Traceback" not in server.output
    assert not is_open(port)


def test_interrupt_without_reload_closes_sockets(processes: Processes) -> None:
    server, port = start_project(processes, "--noreload")
    with connect(f"ws://127.0.0.1:{port}/chat/lobby/", proxy=None) as socket:
        socket.send("hello")
        assert "lobby: hello" in socket.recv(timeout=10)
        interrupt(server)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert server.wait(10) == 0
    assert "Traceback" not in server.output


def test_a_taken_port(processes: Processes) -> None:
    _, port = start_project(processes, "--noreload")
    again = processes.start("python", "-m", "tests.project.manage", "runserver", str(port), "--noreload", env=PROJECT)
    assert "That port is already in use." in fails(again)


def test_static_files(processes: Processes) -> None:
    def static_file(*args: str, **env: str) -> httpx.Response:
        _, port = start_project(processes, "--noreload", *args, **env)
        return httpx.get(f"http://127.0.0.1:{port}/static/project/file.txt")

    assert static_file(TEST_DEBUG="1").text == "a static file\n"
    assert static_file("--nostatic", TEST_DEBUG="1").status_code == 404
    assert static_file("--insecure").text == "a static file\n"


# -- quick ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("broker", ["embedded", pytest.param("redis", marks=pytest.mark.redis)])
def test_replies_come_at_once(request: pytest.FixtureRequest, processes: Processes, broker: str) -> None:
    env = {}
    if broker == "redis":
        url = fresh_redis(request.getfixturevalue("redis_url"))
        env = {"TEST_BROKER": url, "TEST_GROUPS": url}
    _, port = start_project(processes, "--noreload", **env)

    def quickest_median(call: Callable[[], object]) -> float:
        """Seconds; of some rounds, as other programs may have had the machine in one of them."""
        rounds = []
        for _ in range(8):
            times = []
            for _ in range(20):
                before = time.perf_counter()
                call()
                times.append(time.perf_counter() - before)
            rounds.append(statistics.median(times))
            if rounds[-1] < LATE:
                break
        return min(rounds)

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        http = quickest_median(lambda: client.get("/cookies/").raise_for_status())
    with connect(f"ws://127.0.0.1:{port}/chat/lobby/", proxy=None) as socket:

        def echo() -> None:
            socket.send("hello")
            assert "lobby: hello" in socket.recv(timeout=10)

        websocket = quickest_median(echo)
    assert http < LATE
    assert websocket < LATE


# -- apart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--noworker", "--nointerface"])
def test_in_memory_layer_cannot_be_taken_apart(processes: Processes, option: str) -> None:
    output = fails(processes.start("python", "manage.py", "runserver", option))
    assert "lives inside one process" in output
    assert "set REDIS_URL" in output


def test_nothing_to_run(processes: Processes) -> None:
    command = processes.start("python", "manage.py", "runserver", "--noworker", "--nointerface")
    assert "leave nothing to run" in fails(command)


def test_a_package_that_is_too_old(processes: Processes, tmp_path: Path) -> None:
    command = processes.start("python", "manage.py", "runserver", env=pretending(tmp_path, "uvicorn", "0.32.1"))
    assert "uvicorn 0.32.1 is installed" in fails(command)


@pytest.mark.redis
def test_interface_and_workers_apart(demo_template: Path, tmp_path: Path, redis_url: str) -> None:
    demo = Demo(demo_template, tmp_path, {"REDIS_URL": fresh_redis(redis_url)})
    alice = Visitor(demo.url)
    try:
        demo.start_runserver("--noreload", "--noworker")
        workers = demo.processes.start("python", "manage.py", "runserver", "--noreload", "--nointerface", env=demo.env)
        workers.wait_for_output("channelsq: workers alone")
        alice.log_in()
        with alice.room() as room:
            room.echo("hello")
        for process in (demo.server, workers):
            interrupt(process)
            assert process.wait(15) == 0
            assert "Traceback" not in process.output
    finally:
        alice.close()
        demo.stop()


@pytest.mark.parametrize(
    "command", [("python", "manage.py", "runworker"), ("celery", "-A", "app", "worker")], ids=["runworker", "celery"]
)
def test_workers_refuse_the_in_memory_layer(processes: Processes, command: tuple[str, ...]) -> None:
    output = fails(processes.start(*command))
    assert "lives inside one process" in output
    assert "Set REDIS_URL" in output


def test_wrong_settings_leave_celerys_other_commands_alone(processes: Processes) -> None:
    env = {**PROJECT, "TEST_BROKER": "redi://host", "TEST_GROUPS": "redis://host"}
    report = processes.start("celery", "-A", "tests.project", "report", env=env)
    assert report.wait() == 0, report.output


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({"TEST_CAPACITY": "-1"}, "CHANNEL_LAYERS['default']: CONFIG['capacity'] must be a number above 0, not -1"),
        ({"TEST_BROKER": "redi://host"}, "the redi:// URL of the broker cannot be used: No such transport: redi"),
    ],
)
def test_a_worker_with_unusable_settings_says_only_why(processes: Processes, env: dict[str, str], problem: str) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "TEST_GROUPS": "redis://host",
           "TEST_BROKER": "redis://host", **env}  # fmt: skip
    output = fails(processes.start("celery", "-A", "tests.project", "worker", env=env))
    assert output.startswith(f"channelsq: {problem}")
    assert output.count("\n") == 1


# -- runworker ------------------------------------------------------------------------------------


@pytest.fixture
def broker(redis_url: str) -> Broker:
    url = fresh_redis(redis_url)
    return Broker(url, url)


@pytest.fixture
def client(broker: Broker) -> Iterator[LayerClient]:
    client = LayerClient(broker)
    yield client
    client.close()


@pytest.mark.redis
def test_runworker_shows_each_message(processes: Processes, broker: Broker, client: LayerClient) -> None:
    worker = processes.start("python", "-m", "tests.project.manage", "runworker", "-v", "2", env=broker.env)
    worker.wait_for_output(r"\bready\.")
    client.send("echo", {"value": 1})
    assert client.receive()["echo"] == 1
    client.send("websocket.receive", {"path": "/chat/lobby/", "text": "hello", "order": 1})
    client.receive()
    worker.wait_for_output(r"echo -> tests\.project\.consumers\.echo \[")
    worker.wait_for_output(r"websocket\.receive -> tests\.project\.consumers\.receive \[")
    assert worker.terminate() == 0


@pytest.mark.redis
def test_runworkers_channel_processes_find_the_app(processes: Processes, broker: Broker, client: LayerClient) -> None:
    """Also if channelsq, which remembers the app, was imported before the project that creates it."""
    program = "import channelsq.conf, runpy, sys; sys.argv[1:] = ['runworker']; "
    program += "runpy.run_module('tests.project.manage', run_name='__main__')"
    worker = processes.start("python", "-c", program, env=broker.env)
    client.send("echo", {"value": 1})
    assert client.receive()["echo"] == 1
    assert worker.terminate() == 0
    assert "NoneType" not in worker.output


@pytest.mark.redis
def test_runworker_leaves_tasks_to_others_if_all_channels_match(processes: Processes, broker: Broker) -> None:
    worker = processes.start(
        *("python", "-m", "tests.project.manage", "runworker", "--only-channels", "*"), env=broker.env
    )
    worker.wait_for_output(r"\bready\.")
    assert not re.search(r"\.> celery +exchange=", worker.output)
    assert "websocket.receive" in worker.output


@pytest.mark.redis
def test_runworker_takes_the_channels_that_were_chosen(processes: Processes, broker: Broker) -> None:
    def queues(*args: str) -> set[str]:
        worker = processes.start("python", "-m", "tests.project.manage", "runworker", *args, env=broker.env)
        worker.wait_for_output(r"\bready\.")
        read = re.search(r"\.> default \(.*\): (.*)\n", worker.output)
        assert read is not None
        return {*re.findall(r"\.> (\S+) +exchange=", worker.output), *read[1].split(", ")}

    assert queues("--only-channels", "websocket.*", "--only-channels", "echo", "--exclude-channels", "*.connect") == {
        "websocket.receive",
        "websocket.disconnect",
        "echo",
        "channelsq.delayed",
    }
    rest = queues("--exclude-channels", "websocket.*")
    assert {"celery", "http.request", "echo"} <= rest
    assert not any(name.startswith("websocket.") for name in rest)
    none = processes.start(
        "python", "-m", "tests.project.manage", "runworker", "--only-channels", "tea", env=broker.env
    )
    assert "no channel is left to consume; the routing has" in fails(none)
