"""`manage.py doctor` on sites that run, and on such that do not."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from channelsq import __version__
from channelsq.layers import RedisChannelLayer
from tests.support.demo import fresh_redis
from tests.support.doctor import Report, run_doctor
from tests.support.processes import Processes
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

#: All that is looked at on a site on Redis Streams.
CHECKS = {
    "settings.installed", "settings.checks", "celery.app", "celery.broker", "machine.files", "redis.reachable",
    "redis.version", "redis.role", "redis.policy", "redis.memory", "redis.evicted", "redis.persistence",
    "redis.clients", "redis.latency", "redis.clock", "redis.rights", "interfaces", "versions", "consumers", "depths",
    "echo",
}  # fmt: skip


class Site:
    """A project on streams, whose processes are started and stopped by its tests."""

    def __init__(self, directory: Path, url: str) -> None:
        self.url = url
        self.project = Project(directory, url.replace("redis://", "redis-streams://"), {"TEST_GROUPS": url})
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)

    def doctor(self, *args: str, program: str = "django") -> Report:
        return run_doctor(self.project.processes, self.project.env, *args, program=program)

    def announce(self, worker: str, wire: int) -> None:
        """Have a worker of another version announced, which reads nothing."""
        told = json.dumps({"wire": wire, "channelsq": "9.0", "channels": []})
        self.client.set(f"channelsq:worker:{worker}", told, px=60_000)
        self.client.sadd("channelsq:workers", worker)

    def text(self, *args: str) -> str:
        env = {**self.project.env, "COLUMNS": "100"}
        process = self.project.processes.start("python", "-m", "django", "doctor", *args, env=env)
        process.wait(90)
        return process.output


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("doctor"), fresh_redis(redis_url))
    made.project.start()
    wait_until(lambda: made.client.scard("channelsq:workers") and made.client.scard("channelsq:interfaces"), "both")
    yield made
    made.project.stop()
    made.client.close()


def test_a_site_that_works(site: Site) -> None:
    before = set(site.client.scan_iter())
    report = site.doctor()
    assert report.code == 0, report.output
    assert set(report.levels) == CHECKS
    assert {check for check, level in report.levels.items() if level != "ok"} <= {
        "settings.checks",  # of production, on the test project's settings
        "redis.persistence",
    }
    told = report.told
    assert (told["schema"], told["channelsq"], told["level"], told["failed"]) == (1, __version__, "warning", False)
    assert report["redis.persistence"]["remedy"].startswith("Set appendonly yes")
    assert report["redis.version"]["data"]["version"].split()[0] in ("Redis", "Valkey")
    assert report["redis.version"]["data"]["server"] == site.url.replace("redis://", "redis-streams://")
    consumers = report["consumers"]["data"]["consumers"]
    (worker,) = site.client.smembers("channelsq:workers")
    assert consumers["websocket.receive"] == [worker]
    echo = report["echo"]["data"]
    assert echo["worker"].endswith(f":{site.project.worker.pid}")
    assert 0 < echo["median_ms"] <= echo["longest_ms"] < 5000
    # Nothing is left of it but that its interface server has ended, and Celery's reply queue.
    left = set(site.client.scan_iter()) - before
    assert {key for key in left if not key.startswith(("channelsq:buried:", "stream:", "_kombu"))} == set()
    assert site.client.scard("channelsq:interfaces") == 1


def test_the_echo_by_way_of_the_running_interface_server(site: Site) -> None:
    report = site.doctor("--url", site.project.ws_url, program="channelsq")
    assert report["echo"]["level"] == "ok"
    assert site.project.ws_url in report["echo"]["text"]
    assert report["settings"]["level"] == "ok"
    nowhere = site.doctor("--url", "ws://127.0.0.1:1", "--skip", "settings*")
    assert nowhere.code == 1
    assert nowhere["echo"]["level"] == "error"
    assert not [check for check in nowhere.levels if check.startswith("settings")]
    page = site.doctor("--url", site.project.ws_url.replace("ws://", "http://") + "/somewhere/else")
    assert page["echo"]["level"] == "ok"  # wherever the path is mounted


def test_no_consumer_of_the_application_hears_of_the_echo(site: Site) -> None:
    before = site.project.worker_output
    site.doctor()
    assert site.project.worker_output == before


def test_a_worker_that_hangs_holds_up_nobody(site: Site) -> None:
    site.project.worker.signal_all(signal.SIGSTOP)
    try:
        began = time.monotonic()
        report = site.doctor("--timeout", "1")
        assert time.monotonic() - began < 30
    finally:
        site.project.worker.signal_all(signal.SIGCONT)
    assert report.code == 1
    assert report["consumers"]["level"] == "ok"  # it has announced itself not long ago
    assert report["inspect"]["level"] == "warning"
    assert "silent" in report["inspect"]["text"]
    assert report["echo"]["level"] == "error"
    assert "Start a worker" in report["echo"]["remedy"]


def test_text_for_people(site: Site) -> None:
    text = site.text()
    assert "\x1b" not in text  # it is no terminal
    assert max(map(len, text.splitlines())) <= 100
    assert "layer default\n" in text
    assert "fix: Set appendonly yes" in text
    assert text.rstrip().endswith("ok, 0 not applicable")
    quiet = site.text("--quiet")
    assert "  ok " not in quiet
    assert "fix: Set appendonly yes" in quiet


def test_a_deploy_fails_from_a_level_on(site: Site) -> None:
    skipped = ("--skip", "echo", "--skip", "consumers", "--skip", "settings.*")
    assert site.doctor(*skipped, "--fail-level", "warning").code == 1
    assert site.doctor(*skipped, "--fail-level", "warning", "--skip", "redis.persistence").code == 0
    assert site.doctor("--layer", "nowhere").code == 1


def test_channels_without_a_worker(redis_url: str, tmp_path: Path) -> None:
    site = Site(tmp_path, fresh_redis(redis_url))
    try:
        began = time.monotonic()
        report = site.doctor()
        assert time.monotonic() - began < 30
        assert report.code == 1
        assert report["consumers"]["level"] == "error"
        assert "celery -A <app> worker" in report["consumers"]["remedy"]
        assert report["interfaces"]["level"] == "warning"
        assert report["echo"]["level"] == "not applicable"
        assert report["depths"]["level"] == "ok"
        layer = RedisChannelLayer(url=site.project.env["TEST_BROKER"])
        layer.dispatch([layer.prepare("slow", {"number": number}) for number in range(85)])
        site.announce("next@host", wire=2)
        report = site.doctor("--skip", "consumers", "--skip", "echo")
        assert report.code == 0
        assert report["depths"]["text"] == "Nearly full: slow (85 of 100)."
        assert report["versions"]["level"] == "warning"
        assert "mixed deploy" in report["versions"]["text"]
        layer.dispatch([layer.prepare("slow", {"number": number}) for number in range(15)])
        layer.close()
        site.announce("next@host", wire=3)
        report = site.doctor("--skip", "consumers", "--skip", "echo")
        assert report.code == 1
        assert report["depths"]["text"] == "Full: slow (100 of 100)."
        assert report["versions"]["level"] == "error"
        assert "worker next@host (channelsq 9.0, wire version 3)" in report["versions"]["text"]
        site.client.delete("channelsq:worker:next@host")
        site.project.start_worker("-Q", "http.request,http.disconnect")
        wait_until(lambda: site.client.scard("channelsq:workers"), "the worker")
        report = site.doctor("--timeout", "1")
        assert report["consumers"]["level"] == "error"
        assert "No worker consumes" in report["consumers"]["text"]
        assert "websocket.connect" in report["consumers"]["text"]
        assert "http.request" not in report["consumers"]["text"]
        assert report["echo"]["level"] == "error"
    finally:
        site.project.stop()
        site.client.close()


# -- other layers ---------------------------------------------------------------------------------


def test_a_layer_in_memory(processes: Processes) -> None:
    report = run_doctor(processes, {"DJANGO_SETTINGS_MODULE": "tests.project.settings"})
    assert report.code == 0, report.output
    assert report["broker.reachable"]["level"] == report["consumers"]["level"] == "not applicable"
    assert report["echo"]["level"] == "ok"
    assert "a worker inside" in report["echo"]["text"]


def test_a_layer_in_a_file(processes: Processes, tmp_path: Path) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.doctors_settings", "TEST_IPC": str(tmp_path / "ipc")}
    assert run_doctor(processes, env)["consumers"]["level"] == "error"
    processes.worker("-P", "solo", env=env, app="tests.project")
    report = run_doctor(processes, env)
    assert report.code == 0, report.output
    assert report["interfaces"]["level"] == "not applicable"
    assert {report[check]["level"] for check in ("broker.reachable", "broker.room", "consumers", "echo")} == {"ok"}
    # And what `channels` shows of such a layer.
    shown = processes.start("python", "-m", "django", "channels", "--json", env=env)
    assert shown.wait(60) == 0
    (layer,) = json.loads(shown.output)["layers"]
    (worker,) = layer["workers"]
    assert layer["interfaces"] is None
    assert {"websocket.connect", "echo"} <= set(worker["channels"])
    assert all(each["consumers"] == [worker["name"]] for each in layer["channels"])


@pytest.mark.rabbitmq
def test_a_layer_on_rabbitmq(processes: Processes, rabbitmq_url: str, redis_url: str) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "TEST_BROKER": rabbitmq_url, "TEST_GROUPS": redis_url}
    report = run_doctor(processes, env)
    assert "RabbitMQ" in report["broker.reachable"]["text"]
    assert report["broker.rights"]["data"]["milliseconds"] > 0
    assert report["redis.reachable"]["level"] == "ok"
    assert report["consumers"]["level"] == "error"
    wrong = run_doctor(processes, {**env, "TEST_BROKER": "amqp://guest:s3cr3tpassw0rd@127.0.0.1:5672//"})
    assert wrong["broker.reachable"]["level"] == "error"
    assert "s3cr3t" not in wrong.output
    assert wrong["echo"]["level"] == "not applicable"


def test_a_layer_on_kombus_redis_transport(processes: Processes, redis_url: str) -> None:
    url = fresh_redis(redis_url)
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "TEST_BROKER": url, "TEST_GROUPS": url}
    report = run_doctor(processes, env)
    assert report.levels["redis.rights"] == "ok"
    assert report["consumers"]["level"] == "error"


def test_a_server_that_is_away(processes: Processes) -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.project.settings", "TEST_GROUPS": "redis://127.0.0.1:1/0"}
    report = run_doctor(processes, {**env, "TEST_BROKER": "redis-streams://:s3cr3tpassw0rd@127.0.0.1:1/0"})
    assert report.code == 1
    assert report.levels["redis.reachable"] == "error"
    assert "s3cr3t" not in report.output
    assert report["echo"]["level"] == "not applicable"


# -- settings that cannot be loaded ---------------------------------------------------------------


BROKEN = {
    "a wrong name": ("", "shop.setings", "shop.setings cannot be imported", "look like settings here: shop.settings"),
    "an import that fails": ("import nowhere_to_be_found", "shop.settings", "nowhere_to_be_found", "Install"),
    "a variable": ("import os\nos.environ['SHOP_KEY']", "shop.settings", "settings.py, line 2", "SHOP_KEY"),
    "a syntax error": ("DEBUG = (", "shop.settings", "settings.py, line 1", "Correct that line"),
    "an app": ("INSTALLED_APPS = ['nowhere']", "shop.settings", "INSTALLED_APPS", "nowhere"),
    "without channelsq": ("SECRET_KEY = 'x'", "shop.settings", "is not in INSTALLED_APPS", "first"),
    "a URL": (
        "int('redis://:s3cr3tpassw0rd@host')", "shop.settings", "redis://***@host", "Correct the settings",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_settings_that_cannot_be_loaded(processes: Processes, tmp_path: Path, broken: str) -> None:
    source, module, text, remedy = BROKEN[broken]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "settings.py").write_text(source)
    (tmp_path / "manage.py").write_text(f'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{module}")')
    process = processes.start("python", "-m", "channelsq", "doctor", cwd=tmp_path)
    assert process.wait(60) == 1, process.output
    output = " ".join(process.output.split())
    assert "Traceback" not in output
    assert "s3cr3t" not in output
    assert remedy in output
    assert text in output
    assert process.output.rstrip().endswith("not applicable")


def test_no_settings_at_all(processes: Processes, tmp_path: Path) -> None:
    setting = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")'
    (tmp_path / "manage.py").write_text("\n".join(map(setting.format, ("one.settings", "other.settings"))))
    process = processes.start("python", "-m", "channelsq", "doctor", cwd=tmp_path)
    assert process.wait(60) == 1
    assert "set DJANGO_SETTINGS_MODULE" in " ".join(process.output.split())
    unknown = processes.start("python", "-m", "channelsq", "docter", cwd=tmp_path)
    assert unknown.wait(60) == 2
    assert "there is no command 'docter'" in unknown.output
