"""The page "Add to your project": done as it says, behind a real nginx, as a Redis user with the page's rights."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from playwright.sync_api import Browser

from tests.support import needs
from tests.support.added import PAGE, Added, block
from tests.support.markdown import blocks, doc_page
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.servers import running_redis
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A Redis with the page's user."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server, redis.Redis(port=server.port) as client:
        assert client.execute_command(*block("ACL SETUSER").text.split()) == b"OK"
        yield client


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    processes = Processes(tmp_path_factory.mktemp("logs"))
    yield processes
    processes.stop()


@pytest.fixture(scope="module")
def shop(server: redis.Redis, running: Processes, tmp_path_factory: pytest.TempPathFactory) -> Added:
    """The project with the page's sections done, its interface server and its worker; Celery is on Redis."""
    port = server.connection_pool.connection_kwargs["port"]
    env = {
        "CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/0",
        "CHANNELS_URL": f"redis://channels:PASSWORD@127.0.0.1:{port}/1",
    }
    shop = Added(tmp_path_factory.mktemp("shop"), running, env)
    shop.make()
    shop.add()
    shop.interface("--proxy-headers")
    shop.worker()
    return shop


def test_a_task_pushes_to_a_socket(shop: Added) -> None:
    with shop.listen() as socket:
        shop.push()
        assert socket.recv(timeout=20) == "hello"


def test_interface_server_and_worker_say_which_redis(shop: Added) -> None:
    """The page's table sends a reader to these log lines."""
    port = shop.env["CHANNELS_URL"].rpartition(":")[2]
    for process in (*shop.processes.started[:2],):
        assert f"default (RedisChannelLayer at redis-streams://channels:**@127.0.0.1:{port})" in process.output


@pytest.mark.rabbitmq
def test_a_task_on_rabbitmq_pushes_to_a_socket(shop: Added, rabbitmq_url: str) -> None:
    worker = shop.start(
        "celery", "-A", "shop", "worker", "-n", "rabbit@%h", "-l", "INFO", CELERY_BROKER_URL=rabbitmq_url
    )
    worker.wait_for_output(r"\bready\.", timeout=60)
    with shop.listen() as socket:
        shop.push(CELERY_BROKER_URL=rabbitmq_url)
        assert socket.recv(timeout=20) == "hello"
    assert worker.terminate() == 0


def test_the_command_for_a_worker_of_sockets_alone(shop: Added) -> None:
    worker = shop.start(*block("-X celery").text.split(), "-n", "sockets@%h", "-l", "INFO")
    worker.wait_for_output(r"\bready\.", timeout=60)
    assert "consumers run in 8 threads of the worker" in worker.output
    assert ".> celery " not in worker.output
    assert worker.terminate() == 0


# -- behind nginx --------------------------------------------------------------------------------------


class Nginx:
    """A real nginx with one server.

    Args:
        folder: an existing, empty one.
        lines: what stands in its server block.
    """

    def __init__(self, folder: Path, lines: str, processes: Processes) -> None:
        program = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
        if program is None:
            needs.missing("no nginx (apt install nginx)")
        self.port = free_port()
        temporary = " ".join(
            f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = folder / "nginx.conf"
        config.write_text(
            f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {folder}/pid; events {{}}\n"
            f"http {{ access_log off; {temporary}\nserver {{ listen 127.0.0.1:{self.port};\n{lines}\n}} }}\n"
        )
        self.process = processes.start(program, "-p", str(folder), "-e", "stderr", "-c", str(config))
        self.process.wait_for_port(self.port)


@pytest.fixture(scope="module")
def gunicorn(shop: Added) -> int:
    """The port of the project's gunicorn."""
    port = free_port()
    shop.start("gunicorn", "shop.wsgi", "--bind", f"127.0.0.1:{port}", "--no-control-socket").wait_for_port(port)
    return port


def nginx_lines(page: Path, port: int) -> str:
    """Return the locations of a page, with the interface server's port."""
    (found,) = [each.text for each in blocks(page) if each.language == "nginx"]
    assert re.search(r"127\.0\.0\.1:800[01]", found)
    return re.sub(r"127\.0\.0\.1:800[01]", f"127.0.0.1:{port}", found)


def test_gunicorn_keeps_the_pages(shop: Added, gunicorn: int, tmp_path: Path, running: Processes) -> None:
    lines = nginx_lines(PAGE, shop.port)
    pages = f"location / {{ proxy_pass http://127.0.0.1:{gunicorn}; proxy_set_header Host $http_host; }}"
    nginx = Nginx(tmp_path, lines + pages, running)
    page = httpx.get(f"http://127.0.0.1:{nginx.port}/admin/login/")
    assert page.status_code == 200
    straight = httpx.get(f"http://127.0.0.1:{gunicorn}/admin/login/")
    assert "gunicorn" in straight.headers["server"]
    assert page.headers["server"].startswith("nginx")
    with shop.listen(port=nginx.port) as socket:
        shop.push_quickly()
        assert socket.recv(timeout=20) == "hello"


@pytest.mark.browser
def test_a_browsers_page_of_gunicorn_hears_it(
    shop: Added, gunicorn: int, tmp_path: Path, running: Processes, chromium: Browser
) -> None:
    """The page's script, in a page behind nginx: an origin with a port, which must be let in."""
    pages = f"location / {{ proxy_pass http://127.0.0.1:{gunicorn}; proxy_set_header Host $http_host; }}"
    nginx = Nginx(tmp_path, nginx_lines(PAGE, shop.port) + pages, running)
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{nginx.port}/admin/login/")
    script = re.sub(r"</?script>", "", block("new WebSocket").text)
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.evaluate(f"() => {{ {script} }}")

    def is_heard() -> bool:
        shop.push_quickly()  # until the socket is in the group
        page.wait_for_timeout(200)
        return "hello" in heard

    wait_until(is_heard, "what a task pushed", timeout=20)
    page.close()


def test_gunicorn_leaves(shop: Added, tmp_path: Path, running: Processes) -> None:
    nginx = Nginx(tmp_path, nginx_lines(doc_page("deployment"), shop.port), running)
    assert httpx.get(f"http://127.0.0.1:{nginx.port}/admin/login/").status_code == 200
    assert httpx.get(f"http://127.0.0.1:{nginx.port}/-/health/ready").status_code == 403
    with shop.listen(port=nginx.port) as socket:
        shop.push_quickly()
        assert socket.recv(timeout=20) == "hello"


def test_an_interface_server_with_settings_of_its_own(shop: Added, tmp_path: Path) -> None:
    """The environment has channelsq alone, and nothing of the project."""
    found = block("the workers' concern")
    (tmp_path / found.file).write_text(found.text)
    port = free_port()
    process: Process = shop.start(
        "python", "-m", "channelsq.interface", "--port", str(port),
        cwd=tmp_path, DJANGO_SETTINGS_MODULE="interface_settings", SECRET_KEY="x", ALLOWED_HOSTS="127.0.0.1",
    )  # fmt: skip
    process.wait_for_port(port)
    with shop.listen(port=port) as socket:
        shop.push_quickly()
        assert socket.recv(timeout=20) == "hello"


# -- Redis ---------------------------------------------------------------------------------------------


def test_the_users_rights_are_enough_and_no_more(shop: Added, server: redis.Redis) -> None:
    """All that the tests above have run asked for nothing else."""
    response = httpx.post(f"http://127.0.0.1:{shop.port}/admin/login/", content=b"x" * 600_000)  # in parts
    assert response.status_code == 403
    assert "celery@" in shop.run("python", "manage.py", "channels")
    shop.run("python", "manage.py", "deadletters")
    assert server.acl_log() == []
    # The doctor asks for more, to say so.
    assert "The user may run all commands that the layer needs" in shop.run("python", "manage.py", "doctor")

    with redis.Redis.from_url(shop.env["CHANNELS_URL"]) as client:
        for refused in ("FLUSHDB", "KEYS *", "CONFIG GET *", "GET somebody:elses", "ACL WHOAMI", "SCRIPT FLUSH"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*refused.split())


def test_nothing_is_left_after_the_roll_back(shop: Added, server: redis.Redis, running: Processes) -> None:
    running.stop()
    shop.run("python", "manage.py", "shell", "-c", "from channelsq import Group; Group('room').send({'text': 'x'})")
    port = server.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, db=1) as channels, redis.Redis(port=port, db=0) as celery:
        for pattern in ("stream*", "channelsq:*"):
            for key in channels.keys(pattern):
                channels.delete(key)
        assert channels.keys() == []
        assert not [key for key in celery.scan_iter() if b"stream" in key or b"channelsq" in key or b"websocket" in key]
    assert "channelsq" not in shop.run("python", "manage.py", "showmigrations")
