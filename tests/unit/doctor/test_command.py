"""The doctor's report, and what is left out of it."""

from __future__ import annotations

import argparse
import io
import json
import re
import resource
import threading
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from channelsq import __version__
from channelsq.__main__ import main as program
from channelsq.doctor import command, loading, machine, project
from channelsq.doctor.command import Doctor
from channelsq.doctor.findings import Finding, Level, as_json, error, exit_code, not_applicable, ok, summary, warning
from channelsq.doctor.redaction import Redaction
from channelsq.doctor.screen import Screen
from tests.support.fakes.terminals import FakeTerminal
from tests.support.markdown import doc_page

FOUND = [
    ok("a", "well", "default", number=1),
    warning("b", "hm", "do this"),
    error("c", "no " * 60, "do that"),
    not_applicable("d", "none"),
]


@pytest.mark.parametrize(
    ("findings", "level", "code"),
    [
        (FOUND, Level.ERROR, 1),
        (FOUND[:2], Level.ERROR, 0),
        (FOUND[:2], Level.WARNING, 1),
        (FOUND[:1], Level.WARNING, 0),
        (FOUND, None, 0),
        ([], Level.WARNING, 0),
    ],
)
def test_exit_code(findings: list[Finding], level: Level | None, code: int) -> None:
    assert exit_code(findings, level) == code
    assert json.loads(as_json(findings, level))["failed"] is bool(code)


def test_json_is_stable() -> None:
    told = json.loads(as_json(FOUND, Level.ERROR))
    assert set(told) == {"schema", "channelsq", "level", "failed", "findings"}
    assert told["level"] == "error"
    assert told["findings"][0] == {
        "check": "a", "layer": "default", "level": "ok", "text": "well", "remedy": None, "data": {"number": 1}
    }  # fmt: skip
    assert [each["level"] for each in told["findings"]] == ["ok", "warning", "error", "not applicable"]
    assert json.loads(as_json([], Level.ERROR))["level"] == "ok"


def test_summary() -> None:
    assert summary(FOUND) == "1 error, 1 warning, 1 ok, 1 not applicable"
    assert summary([]) == "0 errors, 0 warnings, 0 ok, 0 not applicable"


@pytest.mark.parametrize("columns", [20, 60, 80, 300])
def test_text_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    screen = Screen(out)
    for finding in FOUND:
        screen.show(finding)
    assert max(map(len, out.getvalue().splitlines())) <= max(40, min(columns, 120))


def test_colours_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(out: io.StringIO) -> str:
        Screen(out).show(FOUND[1])
        return out.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[33;1mwarning" in shown(FakeTerminal())
    assert "\x1b" not in shown(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(FakeTerminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown(FakeTerminal())


# -- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no way to redis://:pa55w0rd@host:6379/0 today", "no way to redis://***@host:6379/0 today"),
        ("amqp://user:p@ss:w/rd@host//", "amqp://***@host//"),
        ("Port could not be cast to integer value as 'pa55w0rd'", "Port could not be cast to integer value as '***'"),
        ("redis is a word, and so is redis-streams://host", "redis is a word, and so is redis-streams://host"),
        ("the key is for the tests alone", "the key is ***"),
        ("AnApiToken", "***"),
        ("a%40b%2Fc and a@b/c", "*** and ***"),
    ],
)
def test_secrets_are_left_out(monkeypatch: pytest.MonkeyPatch, text: str, left: str) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:pa55w0rd@host:6379/0")
    monkeypatch.setenv("OTHER_URL", "redis://:redis@host:6379/0")
    monkeypatch.setenv("SHOP_API_TOKEN", "AnApiToken")
    assert Redaction(["amqp://user:a%40b%2Fc@host"])(text) == left
    assert Redaction(["amqp://user:a%40b%2Fc@host"]).of_data({"a": [text, 1, None]}) == {"a": [left, 1, None]}


# -- the command ----------------------------------------------------------------------------------


def run(**options: Any) -> tuple[int, dict[str, Any]]:
    out = io.StringIO()
    defaults = {
        "as_json": True,
        "fail_level": "error",
        "layer": None,
        "skip": [],
        "quiet": False,
        "timeout": 5.0,
        "url": None,
    }
    code = Doctor({**defaults, **options}, out).run()
    return code, json.loads(out.getvalue())


def test_an_examination_that_fails_or_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        yield ok("settings.checks", "so far so good")
        raise RuntimeError("sorry")

    monkeypatch.setattr(project, "check_settings", fails)
    code, told = run(skip=["echo"])
    assert code == 1
    assert [each["text"] for each in told["findings"] if each["check"] == "settings.checks"] == [
        "so far so good",
        "Checking settings.checks failed: RuntimeError: sorry",
    ]
    never = threading.Event()
    monkeypatch.setattr(project, "check_settings", lambda: iter(lambda: never.wait(), True))
    monkeypatch.setattr(command, "_PATIENCE", 0.1)
    try:
        code, told = run(skip=["echo"], timeout=0.1)
    finally:
        never.set()
    assert code == 1
    assert any("was stopped" in each["text"] for each in told["findings"])


def test_layers_that_cannot_be_used() -> None:
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "nowhere.Layer", "ROUTING": []}}):
        code, told = run()
    assert code == 1
    assert {each["data"].get("id") for each in told["findings"]} >= {"channelsq.E001"}
    with override_settings(CHANNEL_LAYERS=[]):
        assert run()[0] == 1
    with override_settings(CHANNEL_LAYERS={}):
        code, told = run()
    assert code == 0
    assert {each["data"].get("id") for each in told["findings"]} >= {"channelsq.W001"}


def test_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 1024))
    (found,) = machine.check_files()
    assert found.level is Level.WARNING
    assert "LimitNOFILE=10200" in found.remedy
    monkeypatch.setenv("CHANNELSQ_MAX_CONNECTIONS", "500")
    (found,) = machine.check_files()
    assert found.level is Level.OK
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, resource.RLIM_INFINITY))
    monkeypatch.delenv("CHANNELSQ_MAX_CONNECTIONS")
    (found,) = machine.check_files()
    assert "any number of" in found.text
    monkeypatch.setenv("CHANNELSQ_MAX_CONNECTIONS", "many")
    (found,) = machine.check_files()
    assert found.level is Level.WARNING
    assert "many" in found.text


def test_every_check_is_in_the_documentation() -> None:
    """And the other way round."""
    made = re.compile(r"""\b(?:ok|warning|error|not_applicable|make|Finding)\(\s*"([a-z.]+)",""")
    sources = "".join(path.read_text() for path in Path(command.__file__).parent.glob("*.py"))
    found = set(made.findall(sources)) | {loading._CHECK}
    page = doc_page("operations").read_text().partition("### The checks")[2].partition("###")[0]
    assert (
        set(re.findall(r"`([a-z.]+)`", "".join(line.split("|")[1] for line in page.splitlines() if "|" in line)))
        == found
    )


def test_the_program_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert program(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert program(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(f"  {command}  " in usage for command in ("doctor", "channels", "deadletters", "interface"))
    assert program([]) == 2
    assert program(["nothing"]) == 2
    assert "there is no command 'nothing'" in capsys.readouterr().err


def test_tasks_that_run_eagerly_are_told_of() -> None:
    _, told = run(skip=["echo"])
    assert "celery.eager" in [each["check"] for each in told["findings"] if each["level"] == "warning"]


@pytest.mark.parametrize("text", ["chat.example.com", "ftp://chat.example.com", "https://", ""])
def test_an_address_that_is_none_is_told_with_an_example(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--url", text])
    assert f"give a URL such as wss://chat.example.com, not {text!r}" in capsys.readouterr().err
    assert parser.parse_args(["--url", "https://chat.example.com/x"]).url == "wss://chat.example.com/x"
