"""The interface server's own pages."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from channelsq.exceptions import BrokerUnavailable
from channelsq.interface.basis.config import ConfigError, InterfaceConfig, read_config
from tests.support.interfaces import Call, Site, accept, echo, running
from tests.support.project import Project
from tests.support.servers import RedisServer
from tests.support.waiting import wait_until

ECHO = {"websocket.connect": accept, "websocket.receive": echo}


def answer(call: Call) -> None:
    call.reply(status=200, headers=[], content=b"the application's")


def get(site: Site, path: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, site.url + path)


def metrics(site: Site) -> dict[str, float]:
    """The values of the samples, by name."""
    lines = [line for line in get(site, "/-/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.partition(" ") for line in lines)}


def test_it_lives_and_is_ready_without_a_worker() -> None:
    with running({}) as site:
        for path, body in (("/-/health/live", "live\n"), ("/-/health/ready", "ready\n")):
            response = get(site, path)
            assert (response.status_code, response.text) == (200, body)
            assert response.headers["cache-control"] == "no-store"
            head = get(site, path, "HEAD")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(body))
            post = httpx.post(site.url + path, content=b"x" * 100_000)
            assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD")
        assert site.application.messages("http.request") == []


def test_all_other_paths_are_the_applications() -> None:
    with running({"http.request": answer}) as site:
        for path in ("/-/", "/-/health", "/-/health/live/", "/-/metrics", "/"):
            assert get(site, path).text == "the application's"


@pytest.mark.parametrize("path", ["/%2d/metrics", "/%2D/health/ready", "/-/health%2Flive", "/%2d/health/live?x=1"])
def test_a_path_with_escapes_is_the_applications(path: str) -> None:
    """A proxy that keeps others from the pages may compare what is written."""
    with running({"http.request": answer}, InterfaceConfig(metrics=True)) as site, site.raw() as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b"the application's" in client.read_to_end()


def test_the_path_is_an_option() -> None:
    with running({"http.request": answer}, InterfaceConfig(status_path="/_internal/x")) as site:
        assert get(site, "/_internal/x/health/live").text == "live\n"
        assert get(site, "/-/health/live").text == "the application's"
    with running({"http.request": answer}, InterfaceConfig(status_path="")) as site:
        assert get(site, "/-/health/live").text == "the application's"


@pytest.mark.parametrize(
    ("text", "path"), [("/-", "/-"), ("/a/b", "/a/b"), ("none", ""), ("", ""), ("/", None), ("x", None), ("/a/", None)]
)
def test_values_of_the_option(text: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(ConfigError, match="--status-path cannot be"):
            read_config(["--status-path", text], {})
    else:
        assert read_config(["--status-path", text], {}).status_path == path


def test_it_is_not_ready_while_the_broker_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a link that only knows what became of messages."""
    with running({"http.request": answer}) as site:

        def away(*args: Any) -> None:
            raise BrokerUnavailable("redis://nowhere", "gone")

        with monkeypatch.context() as patched:
            patched.setattr(site.layer.channel_layer, "dispatch", away)
            assert get(site, "/").status_code == 503
        response = get(site, "/-/health/ready")
        assert (response.status_code, response.text) == (503, "the broker cannot be reached\n")
        assert get(site, "/-/health/live").status_code == 200
        # It may be asked again after a while, although nothing has come meanwhile.
        site.server.context.link._failed_at -= 10
        assert get(site, "/-/health/ready").status_code == 200


@pytest.mark.redis
def test_it_is_ready_again_when_redis_is(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", server.url.replace("redis://", "redis-streams://"))
    try:
        project.start_interface()

        def is_ready() -> bool:
            return httpx.get(f"{project.url}/-/health/ready").status_code == 200

        wait_until(is_ready, "it to be ready")
        server.stop()
        wait_until(lambda: not is_ready(), "it to notice")
        assert httpx.get(f"{project.url}/-/health/live").status_code == 200
        server.start()
        wait_until(is_ready, "it to be ready again")
    finally:
        project.stop()
        server.stop()


def test_metrics_are_the_counters_and_what_there_is_now() -> None:
    with running({**ECHO, "http.request": answer}, InterfaceConfig(metrics=True)) as site:
        before = metrics(site)
        assert before["channelsq_websockets"] == 0
        assert before["channelsq_broker_reachable"] == 1
        with connect(site.ws_url) as socket:
            for _ in range(3):
                socket.send("x")
                socket.recv(10)
            now = metrics(site)
            assert now["channelsq_websockets"] == 1
            assert now["channelsq_connections"] >= 1
            assert now["channelsq_websocket_messages_received_total"] == 3
        get(site, "/")
        assert metrics(site)["channelsq_http_requests_total"] == 1
        response = get(site, "/-/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert "# TYPE channelsq_websocket_messages_received_total counter" in response.text


def test_metrics_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name, name=name)
        return real(name, *args, **kwargs)

    for module in ("scrape", "metric_names"):
        monkeypatch.delitem(sys.modules, f"channelsq.interface.pages.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(ConfigError, match=r"pip install 'channelsq\[metrics\]'"),
        running({}, InterfaceConfig(metrics=True)),
    ):
        pass
