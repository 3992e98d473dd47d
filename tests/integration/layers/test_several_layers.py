"""Two channel layers in one project, each with its routing: interface servers, workers and a shell as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Process
from tests.support.sites import Site, ask, is_by, socket_on

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

REDIS = "channelsq.layers.RedisChannelLayer"


@pytest.fixture(scope="module")
def layers(redis_url: str) -> dict[str, Any]:
    url = redis_url.replace("redis:", "redis-streams:").rsplit("/", 1)[0] + "/5"
    return {
        # As Channels 1 writes it: streams are what the layer makes of it.
        "default": {"BACKEND": REDIS, "CONFIG": {"hosts": [redis_url.rsplit("/", 1)[0] + "/5"], "prefix": "one"}},
        "other": {"BACKEND": REDIS, "CONFIG": {"url": url, "prefix": "two", "capacity": 50}},
    }


@pytest.fixture(scope="module")
def site(layers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The interface of each layer."""
    site = Site(layers, tmp_path_factory.mktemp("several"))
    yield site
    site.processes.stop()


@pytest.fixture(scope="module")
def urls(site: Site) -> dict[str, str]:
    return {"default": site.interface()[1], "other": site.interface("--layer", "other")[1]}


@pytest.fixture(scope="module")
def worker(site: Site) -> Process:
    """One worker, which the Celery app gave no broker to."""
    return site.worker()


@pytest.mark.parametrize("alias", ["default", "other"])
def test_a_worker_consumes_every_layer_on_its_broker_and_replies_through_the_messages_own(
    urls: dict[str, str], worker: Process, alias: str
) -> None:
    with socket_on(urls[alias]) as socket:
        assert ask(socket, "where") == f"{alias} {alias} {worker.pid}"


@pytest.mark.parametrize(("here", "there"), [("default", "other"), ("other", "default")])
def test_a_consumer_sends_to_a_group_of_the_other_layer(
    urls: dict[str, str], worker: Process, here: str, there: str
) -> None:
    with socket_on(urls[here]) as mine, socket_on(urls[there]) as theirs:
        assert ask(theirs, "where").startswith(there)  # it has joined the room
        assert ask(mine, f"tell {there} hello") == f"{here} told {there}"
        assert theirs.recv(timeout=30) == f"hello from {here}"
        # A group of the same name on the own layer is another one.
        assert ask(mine, "where").startswith(here)


def test_nothing_is_sent_on_any_layer_by_a_consumer_that_fails(urls: dict[str, str], worker: Process) -> None:
    with socket_on(urls["default"]) as mine, socket_on(urls["other"]) as theirs:
        assert ask(theirs, "where").startswith("other")
        mine.send("tell other never")
        assert ask(mine, "where").startswith("default")
        assert ask(theirs, "where").startswith("other")


@pytest.mark.parametrize("alias", ["default", "other"])
def test_a_channel_of_one_layer_alone(urls: dict[str, str], worker: Process, alias: str) -> None:
    with socket_on(urls[alias]) as socket:
        assert ask(socket, "job") == "job done on other"


def test_a_retry_comes_back_to_its_own_layer(urls: dict[str, str], worker: Process) -> None:
    with socket_on(urls["default"]) as socket:
        assert ask(socket, "fail") == "retried on default"


def test_a_shell_sends_to_either_layer(site: Site, urls: dict[str, str], worker: Process) -> None:
    with socket_on(urls["default"]) as one, socket_on(urls["other"]) as two:
        assert ask(one, "where").startswith("default")
        assert ask(two, "where").startswith("other")
        site.run(
            "shell",
            "-c",
            "from channelsq import Group\n"
            "Group('room').send({'text': 'to the default'})\n"
            "Group('room', alias='other').send({'text': 'to the other'})",
        )
        assert one.recv(timeout=30) == "to the default"
        assert two.recv(timeout=30) == "to the other"


def test_runworker_of_one_layer_leaves_the_others_alone(layers: dict[str, Any], tmp_path: Path, redis_url: str) -> None:
    url = redis_url.replace("redis:", "redis-streams:").rsplit("/", 1)[0] + "/6"
    config = {alias: {**entry, "CONFIG": {**entry["CONFIG"], "url": url}} for alias, entry in layers.items()}
    del config["default"]["CONFIG"]["hosts"]
    site = Site(config, tmp_path)
    try:
        _, default_url = site.interface()
        _, other_url = site.interface("--layer", "other")
        other = site.manage("runworker", "--layer", "other")
        other.wait_for_output(r"\bready\.")
        with socket_on(other_url) as socket:
            answer = ask(socket, "where")
            assert answer.startswith("other other ")
            assert is_by(answer, other)
        default = site.manage("runworker", "--alias", "default")
        default.wait_for_output(r"\bready\.")
        with socket_on(default_url) as socket:
            answer = ask(socket, "where")
            assert answer.startswith("default default ")
            assert is_by(answer, default)
            assert ask(socket, "job") == "job done on other"
        nowhere = site.manage("runworker", "--layer", "nowhere")
        assert nowhere.wait() == 1
        assert "no layer 'nowhere'" in nowhere.output
    finally:
        site.processes.stop()


def test_two_layers_of_one_prefix_are_refused(layers: dict[str, Any], tmp_path: Path) -> None:
    config = {alias: {**entry, "CONFIG": {**entry["CONFIG"], "prefix": "one"}} for alias, entry in layers.items()}
    site = Site(config, tmp_path)
    try:
        check = site.manage("check")
        assert check.wait() == 1
        worker = site.processes.start("celery", "-A", "tests.layers_project", "worker", env=site.env)
        assert worker.wait(60) == 1
        for output in (check.output, worker.output):
            assert "CHANNEL_LAYERS['default'] and CHANNEL_LAYERS['other'] are on one broker" in output
            assert "['prefix'] = 'other'" in output
    finally:
        site.processes.stop()


def test_a_layer_on_another_broker_is_the_workers_too(tmp_path: Path, redis_url: str) -> None:
    """Their queues have the same names, as neither has a prefix."""
    elsewhere = redis_url.replace("redis:", "redis-streams:").rsplit("/", 1)[0] + "/8"
    here = elsewhere.removesuffix("8") + "9"
    config = {
        "default": {"BACKEND": REDIS, "CONFIG": {"url": here}},
        "other": {"BACKEND": REDIS, "CONFIG": {"url": elsewhere}},
    }
    site = Site(config, tmp_path)
    try:
        worker = site.worker()
        _, first_url = site.interface()
        _, url = site.interface("--layer", "other")
        with socket_on(first_url) as first, socket_on(url) as socket:
            assert ask(first, "where") == f"default default {worker.pid}"
            assert ask(socket, "where") == f"other other {worker.pid}"
            assert ask(socket, "tell default hello") == "other told default"
            assert first.recv(timeout=30) == "hello from other"
            assert ask(first, "tell other hello") == "default told other"
            assert socket.recv(timeout=30) == "hello from default"
            assert ask(first, "fail") == "retried on default"
        assert "DuplicateTaskNameWarning" not in worker.output
        assert worker.terminate() == 0
        chosen = site.worker("-Q", "websocket.connect,websocket.receive")  # of both
        with socket_on(first_url) as first, socket_on(url) as socket:
            assert ask(first, "where") == f"default default {chosen.pid}"
            assert ask(socket, "where") == f"other other {chosen.pid}"
    finally:
        site.processes.stop()


def test_memory_layers_have_their_workers_inside(tmp_path: Path) -> None:
    memory = {"BACKEND": "channelsq.layers.InMemoryChannelLayer"}
    site = Site({"default": memory, "other": memory}, tmp_path)
    try:
        _, url = site.interface()
        with socket_on(url) as socket:
            assert ask(socket, "where").startswith("default default ")
            assert ask(socket, "job") == "job done on other"
    finally:
        site.processes.stop()


def test_an_interface_of_no_layer_is_refused(layers: dict[str, Any], tmp_path: Path) -> None:
    site = Site(layers, tmp_path)
    try:
        process = site.processes.start("python", "-m", "channelsq.interface", "--layer", "nowhere", env=site.env)
        assert process.wait(30) == 2
        assert "CHANNEL_LAYERS has no layer 'nowhere'" in process.output
    finally:
        site.processes.stop()
