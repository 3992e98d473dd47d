"""The command ``python -m channelsq.interface``: its options, its errors, its start and its end."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from channelsq.asgi import ChannelLayerWrapper
from channelsq.interface.basis.config import OPTIONS, ConfigError, InterfaceConfig, read_config
from channelsq.interface.basis.sockets import bind
from channelsq.interface.process.server import InterfaceServer
from channelsq.layers import InMemoryChannelLayer, RedisChannelLayer
from tests.support.fakes.acceptors import FakeAcceptor
from tests.support.ports import free_port
from tests.support.processes import ROOT, Process, Processes, environment, pretending
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

PROJECT = {"DJANGO_SETTINGS_MODULE": "tests.project.settings"}


def run(*args: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "channelsq.interface", *args],
        env=environment({"PYTHONPATH": str(ROOT), **(env or {})}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    """The command's error, which must be one line, without a traceback."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("channelsq interface: ")
    return lines[0]


def start(processes: Processes, *args: str, env: dict[str, str] | None = None) -> tuple[Process, int]:
    """Start the command with ``--port 0``; gives it and the port it tells."""
    process = processes.start(
        "python", "-m", "channelsq.interface", "--port", "0", *args, env={**PROJECT, **(env or {})}
    )
    match = process.wait_for_output(r"listening on http://127\.0\.0\.1:(\d+)")
    return process, int(match[1])


# -- options ----------------------------------------------------------------------------------


def test_help_explains_everything() -> None:
    done = run("--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for option in OPTIONS:
        assert option.flag in text
        assert re.search(re.escape(option.help[:30]), text)
        assert re.search(rf"\[env {option.variable}, default [^\]]+\]", text)


@pytest.mark.parametrize(
    ("flags", "env", "expected"),
    [
        ([], {}, {}),
        (["--port", "9000"], {}, {"port": 9000}),
        ([], {"CHANNELSQ_PORT": "9000"}, {"port": 9000}),
        ([], {"PORT": "9000"}, {"port": 9000, "host": "0.0.0.0"}),
        ([], {"PORT": ""}, {}),
        ([], {"PORT": "1", "CHANNELSQ_PORT": "2"}, {"port": 2, "host": "0.0.0.0"}),
        (["--port", "3"], {"PORT": "1", "CHANNELSQ_PORT": "2"}, {"port": 3, "host": "0.0.0.0"}),
        (["--host", "::1"], {"PORT": "1"}, {"port": 1, "host": "::1"}),
        (["--host", "[::1]"], {}, {"host": "::1"}),
        (["--unix-socket", "/tmp/x.sock"], {}, {"unix_socket": "/tmp/x.sock"}),
        (["--root-path", "/app/"], {}, {"root_path": "/app"}),
        (["--proxy-headers"], {}, {"proxy_headers": True}),
        ([], {"CHANNELSQ_PROXY_HEADERS": "yes"}, {"proxy_headers": True}),
        (["--no-proxy-headers"], {"CHANNELSQ_PROXY_HEADERS": "1"}, {"proxy_headers": False}),
        (["--access-log"], {"CHANNELSQ_ACCESS_LOG": "0"}, {"access_log": True}),
        (["--http-timeout", "1.5"], {}, {"http_timeout": 1.5}),
        (["--accept-timeout", "3", "--order-timeout", "4"], {}, {"accept_timeout": 3.0, "order_timeout": 4.0}),
        (["--ping-interval", "0"], {"CHANNELSQ_PING_TIMEOUT": "0"}, {"ping_interval": 0.0, "ping_timeout": 0.0}),
        (["--max-message-size", "64k"], {}, {"max_message_size": 65536}),
        ([], {"CHANNELSQ_MAX_MESSAGE_SIZE": "2M"}, {"max_message_size": 2097152}),
        (["-v", "2"], {}, {"verbosity": 2}),
        ([], {"CHANNELSQ_VERBOSITY": "0"}, {"verbosity": 0}),
    ],
)
def test_settings(flags: list[str], env: dict[str, str], expected: dict[str, Any]) -> None:
    assert read_config(flags, env) == InterfaceConfig(**expected)


@pytest.mark.parametrize(
    ("flags", "env", "problem"),
    [
        (["--port", "http"], {}, "--port cannot be 'http': give a port number"),
        (["--port", "65536"], {}, "--port cannot be '65536'"),
        ([], {"PORT": "-1"}, "PORT cannot be '-1'"),
        ([], {"CHANNELSQ_PORT": "x"}, "CHANNELSQ_PORT cannot be 'x'"),
        (["--host", ""], {}, "--host cannot be ''"),
        (["--host", "http://a"], {}, "--host cannot be 'http://a'"),
        (["--unix-socket", "x" * 120], {}, "at most 100 bytes"),
        (["--root-path", "app"], {}, "--root-path cannot be 'app': give a path that starts with a slash"),
        ([], {"CHANNELSQ_PROXY_HEADERS": "maybe"}, "CHANNELSQ_PROXY_HEADERS cannot be 'maybe': give 1 or 0"),
        (["--http-timeout", "0"], {}, "--http-timeout cannot be '0': give seconds above 0"),
        (["--http-timeout", "nan"], {}, "--http-timeout cannot be 'nan'"),
        (["--ping-interval", "-1"], {}, "or 0 to turn it off"),
        (["--max-message-size", "0"], {}, "--max-message-size cannot be '0': give bytes"),
        (["--max-message-size", "5g"], {}, "--max-message-size cannot be '5g'"),
        (["-v", "4"], {}, "--verbosity cannot be '4': give 0, 1, 2 or 3"),
        (["--prot", "1"], {}, "--prot"),
        (["--port"], {}, "--port"),
    ],
)
def test_bad_settings_name_value_and_remedy(flags: list[str], env: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        read_config(flags, env)


# -- errors of the command --------------------------------------------------------------------


def test_a_bad_option_is_one_line() -> None:
    assert "--port cannot be 'x'" in one_line_error(run("--port", "x"))
    assert "--nonsense" in one_line_error(run("--nonsense"))


def test_missing_settings_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").write_text("")
    assert "DJANGO_SETTINGS_MODULE is not set" in one_line_error(run(cwd=tmp_path))
    error = one_line_error(run(env={"DJANGO_SETTINGS_MODULE": "no.such.settings"}))
    assert "'no.such.settings'" in error


def test_config_settings_are_found(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").write_text("")
    (tmp_path / "config" / "settings.py").write_text("INSTALLED_APPS = ['channelsq']\nSECRET_KEY = 'x'\n")
    error = one_line_error(run(cwd=tmp_path))
    assert "CHANNEL_LAYERS has no layer 'default'" in error


@pytest.mark.parametrize(
    "line",
    [
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")',
        "    environ['DJANGO_SETTINGS_MODULE'] = '{}'  # as some write it",
    ],
)
@pytest.mark.parametrize("layout", ["shop/settings.py", "config/settings/local.py"])
def test_settings_are_those_of_manage_py(tmp_path: Path, line: str, layout: str) -> None:
    """Also where ``config.settings`` is a package without settings of its own."""
    settings = tmp_path / layout
    settings.parent.mkdir(parents=True)
    for folder in [settings.parent, *settings.parent.parents][: layout.count("/")]:
        (folder / "__init__.py").write_text("")
    settings.write_text("INSTALLED_APPS = ['channelsq']\nSECRET_KEY = 'x'\n")
    module = layout.removesuffix(".py").replace("/", ".")
    (tmp_path / "manage.py").write_text(
        f"raise SystemExit\n# 'DJANGO_SETTINGS_MODULE', 'x'\nif 1:\n    {line.format(module).strip()}\n"
    )
    assert "CHANNEL_LAYERS has no layer 'default'" in one_line_error(run(cwd=tmp_path))


def test_a_manage_py_that_names_several_settings_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text(
        "import os, sys\n"
        "if 'test' in sys.argv:\n    os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings.test'\n"
        "else:\n    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings.local')\n"
    )
    assert "DJANGO_SETTINGS_MODULE is not set" in one_line_error(run(cwd=tmp_path))


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "supervised"])
@pytest.mark.parametrize("package", [("uvicorn", "0.32.1"), ("websockets", "14.2")])
def test_a_package_that_is_too_old_is_one_line(
    tmp_path: Path, options: tuple[str, ...], package: tuple[str, str]
) -> None:
    error = one_line_error(run("-v", "0", *options, env=PROJECT | pretending(tmp_path, *package)))
    assert f"{' '.join(package)} is installed, and the interface server is made for {package[0]}" in error
    assert "environment of its own" in error


def test_a_package_that_is_newer_is_told_of(processes: Processes, tmp_path: Path) -> None:
    process, _ = start(processes, env=PROJECT | pretending(tmp_path, "uvicorn", "99.0"))
    assert "uvicorn 99.0 is installed, and the interface server is made for uvicorn" in process.output


def test_a_broken_layer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "INSTALLED_APPS = ['channelsq']\nSECRET_KEY = 'x'\n"
        "CHANNEL_LAYERS = {'default': {'BACKEND': 'no.such.Layer', 'ROUTING': []}}\n"
    )
    error = one_line_error(run(cwd=tmp_path, env={"DJANGO_SETTINGS_MODULE": "broken"}))
    assert "CHANNEL_LAYERS" in error


def test_a_broker_that_cannot_be_read_is_one_line() -> None:
    done = run("-v", "0", env={**PROJECT, "TEST_BROKER": "redi://127.0.0.1/0", "TEST_GROUPS": "redis://127.0.0.1/0"})
    assert "redi:// URL" in one_line_error(done)


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port), "-v", "0", env=PROJECT)
    error = one_line_error(done)
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in error
    assert "--port" in error


def test_a_port_that_is_taken_between_binding_and_listening_is_told() -> None:
    port = free_port()
    mine, theirs = bind("127.0.0.1", port), bind("127.0.0.1", port)
    layer = ChannelLayerWrapper(InMemoryChannelLayer(), "default", [])
    server = InterfaceServer(InterfaceConfig(port=port), layer, sockets=mine, install_signals=False)
    theirs[0].listen()
    with theirs[0], pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: address already in use"):
        server.run()


def test_an_unknown_host_is_one_line() -> None:
    error = one_line_error(run("--host", "203.0.113.77", "-v", "0", env=PROJECT))
    assert "203.0.113.77" in error
    assert "--host" in error


# -- start and end ----------------------------------------------------------------------------


def test_it_tells_where_it_listens_and_that_workers_are_inside(processes: Processes) -> None:
    process, port = start(processes)
    assert "the workers run in this process too" in process.output
    assert httpx.get(f"http://127.0.0.1:{port}/no-such-page").status_code == 404
    with connect(f"ws://127.0.0.1:{port}/chat/lobby/") as client:
        client.send("hello")
        assert client.recv(timeout=10) == "lobby: hello"
    assert process.terminate() == 0
    assert "Traceback" not in process.output


def test_replies_take_milliseconds(processes: Processes) -> None:
    _, port = start(processes)
    with connect(f"ws://127.0.0.1:{port}/chat/lobby/") as client:
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            client.send("x")
            client.recv(timeout=10)
            times.append(time.perf_counter() - begun)
    assert sorted(times)[len(times) // 2] < 0.02


@pytest.mark.parametrize("stop", ["SIGTERM", "SIGINT"])
def test_a_signal_closes_sockets_with_1012(processes: Processes, stop: str) -> None:
    import signal

    process, port = start(processes)
    with connect(f"ws://127.0.0.1:{port}/chat/lobby/") as client:
        begun = time.monotonic()
        process.signal(signal.Signals[stop])
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert process.wait(25) == 0
    assert time.monotonic() - begun < 10
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        raise AssertionError("it still listens")


def test_unix_sockets(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "s"
    args = ("--unix-socket", str(path))
    process = processes.start("python", "-m", "channelsq.interface", *args, env=PROJECT)
    process.wait_for_output(r"listening on unix:")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://localhost/no-such-page").status_code == 404
    with connect_unix(path) as websocket:
        websocket.send("hello")
        assert websocket.recv(timeout=10) == "lobby: hello"
    assert "address already in use" in one_line_error(run(*args, "-v", "0", env=PROJECT))
    process.kill()
    assert path.exists()
    again = processes.start("python", "-m", "channelsq.interface", *args, env=PROJECT)
    again.wait_for_output(r"listening on unix:")
    assert again.terminate() == 0
    plain = tmp_path / "plain"
    plain.write_text("")
    assert "not a socket" in one_line_error(run("--unix-socket", str(plain), "-v", "0", env=PROJECT))


def connect_unix(path: Path) -> Any:
    from websockets.sync.client import unix_connect

    return unix_connect(str(path), "ws://localhost/chat/lobby/")


def test_a_missing_broker_is_said_and_survived(processes: Processes) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    process, port = start(processes, env={"TEST_BROKER": url, "TEST_GROUPS": url})
    process.wait_for_output("no connection to " + re.escape(url))
    response = httpx.get(f"http://127.0.0.1:{port}/", timeout=30)
    assert response.status_code == 503
    assert "retry-after" in response.headers
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{port}/chat/a/", open_timeout=30):
        pass
    assert refused.value.response.status_code == 503
    assert process.running
    assert process.terminate() == 0
    assert "Traceback" not in process.output


@pytest.mark.redis
def test_the_disconnects_reach_the_broker_before_the_end(processes: Processes, redis_server: RedisServer) -> None:
    url = redis_server.url.rsplit("/", 1)[0].replace("redis:", "redis-streams:") + "/7"
    process, port = start(processes, env={"TEST_BROKER": url})
    layer = RedisChannelLayer(url=url)
    try:
        clients = contextlib.ExitStack()
        with clients:
            worker = FakeAcceptor(layer)
            for _ in range(3):
                with worker:
                    clients.enter_context(connect(f"ws://127.0.0.1:{port}/chat/a/"))
            assert process.terminate() == 0
        gone = [wait_until(lambda: layer.receive(["websocket.disconnect"])[1], "a disconnect") for _ in range(3)]
        assert [message["code"] for message in gone if message] == [1012] * 3
    finally:
        layer.flush()
        layer.close()


@pytest.mark.parametrize(("limit", "told"), [(500, True), (5000, False)])
def test_a_limit_of_files_below_the_connections_is_told(processes: Processes, limit: int, told: bool) -> None:
    command = f"ulimit -n {limit}; exec {sys.executable} -m channelsq.interface --port 0 --max-connections 1000"
    process = processes.start("sh", "-c", command, env=PROJECT)
    process.wait_for_output(r"listening on http://")
    said = f"may open {limit} files, but needs 1200 for --max-connections 1000"
    assert (said in process.output) is told
