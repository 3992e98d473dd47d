"""The fixtures for pytest, in a project that only installs channelsq."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.processes import ROOT


def run_pytest(directory: Path, test: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A pytest of its own on one test module, without the settings of this one."""
    (directory / "test_it.py").write_text(textwrap.dedent(test))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "DJANGO"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "-c", "/dev/null", *args],
        cwd=directory,
        env={**env, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_fixtures_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "project_settings.py").write_text(
        textwrap.dedent("""
            SECRET_KEY = "x"
            INSTALLED_APPS = ["channelsq"]
            CHANNEL_LAYERS = {"default": {"BACKEND": "channelsq.layers.RedisChannelLayer",
                                          "CONFIG": {"url": "redis-streams://127.0.0.1:1/0"},
                                          "ROUTING": "project_routing.routing"}}
        """)
    )
    (tmp_path / "project_routing.py").write_text(
        textwrap.dedent("""
            from channelsq import Group, route

            def connect(message):
                Group("all").add(message.reply_channel)
                message.reply_channel.send({"accept": True})

            routing = [route("websocket.connect", connect)]
        """)
    )
    done = run_pytest(
        tmp_path,
        """
        from channelsq import Group, channel_layers
        from channelsq.test import WSClient

        def test_layer(channel_layer):
            assert channel_layers["default"] is channel_layer
            assert channel_layer.routing == "project_routing.routing"
            Group("all").add("some")
            Group("all").send({"a": 1})
            assert channel_layer.receive(["some"]) == ("some", {"a": 1})

        def test_client(ws_client):
            ws_client.send_and_consume("websocket.connect")
            another = WSClient()
            another.send_and_consume("websocket.connect")
            Group("all").send({"text": "1"})
            assert ws_client.receive() == another.receive() == 1

        def test_another_layer(channel_layer):
            assert channel_layer.group_channels("all") == []
        """,
        "--ds",
        "project_settings",
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_project_without_django_notices_nothing(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path,
        """
        import sys

        def test_nothing_is_imported():
            assert not {"django", "celery", "kombu", "uvicorn"} & set(sys.modules)
        """,
        "-p",
        "no:django",
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_fixtures_say_what_they_are(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "def test_nothing(): pass", "--fixtures")
    assert "channel_layer -- " in done.stdout
    assert "ws_client -- " in done.stdout
