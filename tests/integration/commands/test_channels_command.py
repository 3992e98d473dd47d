"""`manage.py channels` on a site that runs: what it shows, and what it does."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import override_settings
from websockets.sync.client import connect

from channelsq import __version__, route
from channelsq.asgi import channel_layers
from channelsq.layers import RedisChannelLayer
from channelsq.operations import snapshot
from channelsq.redis_core.compact import encode_compact
from tests.support.demo import fresh_redis
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


class Site:
    """A project on streams with a worker of threads, an interface server and three sockets."""

    def __init__(self, directory: Path, url: str) -> None:
        self.project = Project(directory, url.replace("redis://", "redis-streams://"), {"TEST_GROUPS": url})
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)

    def run(self, *args: str, code: int = 0) -> str:
        process = self.project.processes.start("python", "-m", "django", "channels", *args, env=self.project.env)
        assert process.wait(60) == code, process.output
        return process.output

    def layer(self, *args: str) -> dict[str, Any]:
        (found,) = json.loads(self.run("--json", *args))["layers"]
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("channels"), fresh_redis(redis_url))
    made.project.start_interface()
    made.project.start_worker("-X", "slow")
    wait_until(lambda: made.client.scard("channelsq:workers") and made.client.scard("channelsq:interfaces"), "both")
    (interface,) = made.client.smembers("channelsq:interfaces")
    with contextlib.ExitStack() as stack:
        for number in range(3):
            stack.enter_context(connect(f"{made.project.ws_url}/chat/{number}/", compression=None))
        wait_until(lambda: made.client.hlen(f"channelsq:sockets:{interface}") == 3, "three sockets")
        yield made
    made.project.stop()
    made.client.close()


def test_json(site: Site) -> None:
    whole = json.loads(site.run("--json"))
    assert (whole["schema"], whole["channelsq"]) == (1, __version__)
    (found,) = whole["layers"]
    assert (found["layer"], found["backend"]) == ("default", "channelsq.layers.RedisChannelLayer")
    assert (found["problem"], found["private"]) == (None, False)
    (worker,), (interface,) = found["workers"], found["interfaces"]
    channels = {each["channel"]: each for each in found["channels"]}
    assert channels["websocket.receive"] == {
        "channel": "websocket.receive", "waiting": 0, "held": 0, "oldest": None, "dead": 0, "capacity": 100,
        "sent": channels["websocket.receive"]["sent"], "consumers": [worker["name"]],
    }  # fmt: skip
    assert channels["slow"]["consumers"] == []
    assert worker["pid"] == site.project.worker.pid
    assert (worker["version"], worker["wire"], worker["understood"]) == (__version__, 1, True)
    assert worker["runs"] == "consumers run in 2 threads of the worker"
    assert "slow" not in worker["channels"]
    assert interface["pid"] == site.project.interface.pid
    assert interface["sockets"] == 3
    assert found["members"] is found["sockets"] is None


def test_messages_that_wait_and_their_age(site: Site) -> None:
    layer = RedisChannelLayer(url=site.project.env["TEST_BROKER"])
    try:
        for number in range(3):
            layer.send("slow", {"number": number})
        waits = {each["channel"]: each for each in site.layer()["channels"]}["slow"]
        assert waits["waiting"] == 3
        assert 0 <= waits["oldest"] < 60
        assert re.search(r"^slow +3 +0 +\d+\.\d s +100 +0 +none$", site.run(), re.MULTILINE)
        asked = "Delete the messages that wait in slow (3)?"
        assert asked in purge(site, "no")
        assert layer.depth("slow") == 3
        assert "deleted 3 messages of slow" in purge(site, "yes")
        assert layer.depth("slow") == 0
        layer.send("slow", {"number": 4})
        assert site.run("purge", "slow", "--yes") == "deleted 1 message of slow\n"
    finally:
        layer.close()


def purge(site: Site, answer: str) -> str:
    """Purge a channel in this process, with an answer to its question."""
    layer = {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": {"url": site.project.env["TEST_BROKER"]}}
    asked: list[str] = []

    def answered(question: str) -> str:
        asked.append(question)
        return answer

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, use({**layer, "ROUTING": [route("slow", print)]}):
        patch.setattr("builtins.input", answered)
        call_command("channels", "purge", "slow", stdout=out)
    return "".join(asked) + out.getvalue()


def use(*layers: dict[str, Any]) -> Any:
    aliases = ["default", "other"]
    return override_settings(CHANNEL_LAYERS=dict(zip(aliases, layers, strict=False)))


def test_groups_members_and_sockets(site: Site) -> None:
    url = site.project.env["TEST_BROKER"]
    with use({"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": {"url": url}, "ROUTING": []}):
        layer = channel_layers["default"].channel_layer
        found = listed("--sockets")["sockets"]
        sockets = [each["channel"] for each in found["shown"]]
        assert sorted(each["path"] for each in found["shown"]) == ["/chat/0/", "/chat/1/", "/chat/2/"]
        for channel in sockets:
            layer.group_add("lobby", channel)
        layer.group_add("attic", sockets[0])
        groups = listed()["groups"]
        assert {"group": "lobby", "members": 3} in groups["shown"]
        assert groups["cut"] is False
        limited = listed("--limit", "1")["groups"]
        assert [each["members"] for each in limited["shown"]] == [3]
        assert limited["total"] == groups["total"] >= 2
        members = listed("--group", "lobby")["members"]
        assert sorted(each["channel"] for each in members["shown"]) == sorted(sockets)
        assert {each["path"] for each in members["shown"]} == {"/chat/0/", "/chat/1/", "/chat/2/"}
        assert "and 1 more members; --limit shows more" in run("--group", "lobby", "--limit", "2")
        assert "no members" in run("--group", "nobody")
        assert "GROUP" not in run("--no-groups")
        assert listed("--no-groups")["groups"] is None
        for channel in sockets:
            layer.forget_channel(channel)
        layer.close()


def test_dead_letters_are_counted_and_replayed(site: Site) -> None:
    data = encode_compact("slow", "id-1", b"\x93\x92\xa4slow\x80\x80\x80", 60_000)
    binary: Any = redis.Redis.from_url(site.project.env["TEST_GROUPS"])
    identity = binary.xadd("stream-dead:slow", {"m": data, "s": "slow", "d": 5, "r": "signal 9"}).decode()
    binary.close()
    assert {each["channel"]: each["dead"] for each in site.layer()["channels"]}["slow"] == 1
    assert "replay takes either ids" in site.run("replay", code=1)
    assert f"replayed {identity} of slow" in site.run("replay", identity, "--yes")
    state = {each["channel"]: each for each in site.layer()["channels"]}["slow"]
    assert (state["dead"], state["waiting"]) == (0, 1)
    site.run("purge", "slow", "--noinput")


def test_watching(site: Site) -> None:
    lines = site.run("--json", "--watch", "0.1", "--count", "3").splitlines()
    assert [json.loads(line)["layers"][0]["layer"] for line in lines] == ["default"] * 3
    text = site.run("--watch", "0.1", "--count", "2", "--no-groups")
    assert text.count("every 0.1 s, Ctrl-C ends") == text.count("layer default: RedisChannelLayer") == 2
    assert "\x1b" not in text


def test_without_manage_py(site: Site) -> None:
    process = site.project.processes.start("python", "-m", "channelsq", "channels", "--json", env=site.project.env)
    assert process.wait(60) == 0
    assert json.loads(process.output)["layers"][0]["layer"] == "default"


def test_arguments_that_do_not_fit(site: Site) -> None:
    for args, says in {
        ("show", "slow"): "show takes no names",
        ("purge",): "purge takes channels; the layer 'default' has answer, ",
        ("purge", "nowhere"): "there is no channel 'nowhere'; the layer 'default' has answer, ",
        ("--layer", "nowhere"): "CHANNEL_LAYERS has no layer 'nowhere'; it has default",
        ("--group", "not a name"): "not a name",
        ("replay", "1-1", "--yes"): "there is no dead letter '1-1'",
    }.items():
        assert says in site.run(*args, code=1)
    assert "give a number above 0, not '0'" in site.run("--watch", "0", code=2)


# -- in this process --------------------------------------------------------------------------------


def run(*args: str, code: int = 0) -> str:
    out = io.StringIO()
    with pytest.raises(SystemExit, match=str(code)) if code else contextlib.nullcontext():
        call_command("channels", *args, stdout=out)
    return out.getvalue()


def listed(*args: str) -> dict[str, Any]:
    (found,) = json.loads(run("--json", *args))["layers"]
    assert isinstance(found, dict)
    return found


def test_a_hundred_thousand_groups_are_not_all_looked_at(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = fresh_redis(redis_url)
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.sadd(f"channelsq:group:{{room-{number}}}", *range(1 + (number == 7)))
            pipe.set(f"other:{number}", "1")
        pipe.execute()
    monkeypatch.setattr(snapshot, "MOST_GROUPS", 500)
    layer = {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": {"url": url}, "ROUTING": []}
    with use(layer):
        text = run("--limit", "3")
        assert len(re.findall(r"^room-\d+ +1$|^room-7 +2$", text, re.MULTILINE)) == 3
        assert "the largest of 500 groups that were looked at; there are more" in text
        monkeypatch.setattr(snapshot, "MOST_GROUPS", 50_000)
        text = run("--limit", "3")
        assert re.search(r"^room-7 +2$", text, re.MULTILINE)
        assert "and 19997 smaller groups; --limit shows more" in text
        monkeypatch.setattr(snapshot, "_COUNTED_FOR", 0.0001)
        assert "there are more" in run()
        channel_layers["default"].close()


def test_a_layer_that_is_away_does_not_hide_the_others(redis_url: str) -> None:
    away = {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": {"url": "redis://:s3cr3t@127.0.0.1:1/0"}}
    here = {"BACKEND": "channelsq.layers.RedisChannelLayer", "CONFIG": {"url": fresh_redis(redis_url)}}
    with use({**away, "ROUTING": []}, {**here, "ROUTING": [route("jobs", print)]}):
        text = run(code=1)
        assert "no connection to redis://" in text
        assert "s3cr3t" not in text
        assert re.search(r"^jobs +0 .*none$", text, re.MULTILINE)
        first, second = json.loads(run("--json", code=1))["layers"]
        assert first["problem"]
        assert second["problem"] is None
        assert run("--layer", "other") == text[text.index("layer other") :]
        channel_layers["default"].close()
        channel_layers["other"].close()


def test_a_layer_inside_one_process() -> None:
    with use({"BACKEND": "channelsq.layers.InMemoryChannelLayer", "ROUTING": []}):
        assert "it lives inside one process" in run()
        assert json.loads(run("--json"))["layers"][0]["private"] is True
        with pytest.raises(CommandError, match="lives inside one process"):
            run("purge", "http.request", "--yes")


def test_a_layer_that_cannot_be_made() -> None:
    with use({"BACKEND": "nowhere.Layer", "ROUTING": []}):
        assert "'nowhere.Layer' cannot be imported" in run(code=1)
