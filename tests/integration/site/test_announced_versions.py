"""Processes announce their version, and tell of those that they do not understand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from channelsq import __version__
from tests.support.demo import fresh_redis
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

NEWEST = json.dumps({"wire": 3, "channelsq": "9.0", "unheard": 1})


class Site:
    """A project on a Redis of its own."""

    def __init__(self, directory: Path, url: str, scheme: str) -> None:
        self.project = Project(directory, url.replace("redis://", f"{scheme}://"), {"TEST_GROUPS": url})
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)

    def command(self, *args: str) -> str:
        process = self.project.processes.start("python", "-m", "django", "channels", *args, env=self.project.env)
        assert process.wait(60) == 0, process.output
        return process.output

    def listed(self) -> list[tuple[str, int, str | None]]:
        """Return name, version of the wire and version of each process."""
        (layer,) = json.loads(self.command("--json"))["layers"]
        return [(each["name"], each["wire"], each["version"]) for each in layer["interfaces"] + layer["workers"]]

    def announce(self, kind: str, name: str, text: str) -> None:
        self.client.set(f"channelsq:{kind}:{name}", text, px=60_000)
        self.client.sadd(f"channelsq:{kind}s", name)


@pytest.fixture(params=["redis-streams", "redis"])
def site(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, fresh_redis(redis_url), request.param)
    yield made
    made.project.stop()
    made.client.close()


def test_processes_are_listed_while_they_live(site: Site) -> None:
    assert "no interface server and no worker is announced" in site.command()
    site.project.start()
    assert wait_until(lambda: site.client.scard("channelsq:workers") and site.client.scard("channelsq:interfaces"), "")
    (interface,) = site.client.smembers("channelsq:interfaces")
    (worker,) = site.client.smembers("channelsq:workers")
    found = wait_until(lambda: listed if len(listed := site.listed()) == 2 else None, "both")
    assert found == [(interface, 1, __version__), (worker, 1, __version__)]
    assert 0 < site.client.pttl(f"channelsq:worker:{worker}") <= 30_000
    assert site.project.worker.terminate() == 0
    assert site.client.keys("channelsq:worker*") == []
    site.project.interface.terminate()
    assert site.listed() == []


def test_a_mixed_deploy_is_told_of(site: Site) -> None:
    site.announce("interface", "before", "1")
    site.announce("worker", "next@host", json.dumps({"wire": 2, "channelsq": "0.2"}))
    site.client.sadd("channelsq:workers", "dead@host")
    assert set(site.listed()) == {("before", 1, None), ("next@host", 2, "0.2")}
    assert "a mixed deploy: these versions understand each other" in site.command()
    assert site.client.smembers("channelsq:workers") == {"next@host"}
    site.announce("worker", "newest@host", NEWEST)
    text = site.command()
    assert "wire versions 1 and 3 do not understand each other: update one release at a time" in text
    assert "does not understand all of them" in text


def test_who_starts_tells_of_those_that_it_does_not_understand(site: Site) -> None:
    site.announce("worker", "next@host", json.dumps({"wire": 2, "channelsq": "0.2"}))
    site.announce("worker", "newest@host", NEWEST)
    site.project.start()
    for process in (site.project.interface, site.project.worker):
        line = process.wait_for_output(r".*does not understand: .*").group()
        assert "worker newest@host (channelsq 9.0, wire version 3); update one release at a time" in line
        assert f"channelsq {__version__}, wire version 1" in line
        assert "ERROR" in line
        assert "next@host" not in line
