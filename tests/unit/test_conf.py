from __future__ import annotations

import re
import sys
import threading
from typing import Any

import celery
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from channelsq import conf
from channelsq.exceptions import InvalidChannelLayerError
from tests.support.apps import current

MEMORY = "channelsq.layers.InMemoryChannelLayer"
#: What no typed settings could have.
ODD_KEYS: dict[Any, Any] = {"x": 1, 5: 1, None: 1}
GOOD = {"BACKEND": MEMORY, "ROUTING": "app.routing.channel_routing"}


def test_settings_are_read_when_asked_for() -> None:
    for alias in ("one", "two"):
        with override_settings(CHANNEL_LAYERS={alias: GOOD}):
            assert list(conf.layer_configs()) == [alias]
            assert conf.layer_settings(alias).backend == MEMORY


def test_no_setting_is_no_layers() -> None:
    with override_settings():
        from django.conf import settings

        del settings.CHANNEL_LAYERS
        assert conf.layer_configs() == {}
        with pytest.raises(InvalidChannelLayerError, match=r"no layer 'default' \(there: none\)"):
            conf.layer_settings("default")


def test_what_an_entry_says() -> None:
    entry = {**GOOD, "CONFIG": {"expiry": 5}, "TEST_CONFIG": {}}
    with override_settings(CHANNEL_LAYERS={"default": entry}):
        found = conf.layer_settings("default")
    assert found.alias == "default"
    assert found.routing == "app.routing.channel_routing"
    assert found.config == {"expiry": 5}
    assert found.test_config == {}


@pytest.mark.parametrize("config", [{}, {"CONFIG": None, "TEST_CONFIG": None}, {"CONFIG": {}}], ids=repr)
def test_config_may_be_left_out(config: dict[str, Any]) -> None:
    with override_settings(CHANNEL_LAYERS={"default": {**GOOD, **config}}):
        found = conf.layer_settings("default")
    assert found.config == {}
    assert found.test_config is None


@pytest.mark.parametrize("routing", [[], {}, ()], ids=repr)
def test_an_empty_routing_is_a_routing(routing: Any) -> None:
    with override_settings(CHANNEL_LAYERS={"default": {**GOOD, "ROUTING": routing}}):
        assert conf.layer_settings("default").routing == routing


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (None, ["must be a dict of aliases, not NoneType", "CHANNEL_LAYERS = {"]),
        ([GOOD], ["must be a dict of aliases, not list", "CHANNEL_LAYERS = {"]),
        ({}, ["no layer 'default'", "there: none", "CHANNEL_LAYERS = {"]),
        ({"a": GOOD, "b": GOOD}, ["no layer 'default'", "there: 'a', 'b'"]),
        ({"default": None}, ["CHANNEL_LAYERS['default'] must be a dict, not None"]),
        ({"default": MEMORY}, ["must be a dict", MEMORY]),
        ({"default": {**GOOD, "Backend": 1}}, ["unknown keys ['Backend']", "'BACKEND', 'CONFIG'"]),
        ({"default": {**GOOD, **ODD_KEYS}}, ["unknown keys", "'x'", "5"]),
        ({"default": {"ROUTING": []}}, ["has no 'BACKEND'", "CHANNEL_LAYERS = {"]),
        ({"default": {**GOOD, "BACKEND": ""}}, ["has no 'BACKEND'"]),
        ({"default": {**GOOD, "BACKEND": dict}}, ["['BACKEND'] must be the dotted path", "<class 'dict'>"]),
        ({"default": {"BACKEND": MEMORY}}, ["has no 'ROUTING'", "app.routing.channel_routing"]),
        ({"default": {**GOOD, "ROUTING": None}}, ["has no 'ROUTING'"]),
        ({"default": {**GOOD, "CONFIG": "redis://"}}, ["['CONFIG'] must be a dict", "'redis://'"]),
        ({"default": {**GOOD, "TEST_CONFIG": ["x"]}}, ["['TEST_CONFIG'] must be a dict", "['x']"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else repr(value)[:40],
)
def test_wrong_settings(layers: Any, says: list[str]) -> None:
    with (
        override_settings(CHANNEL_LAYERS=layers),
        pytest.raises(InvalidChannelLayerError) as raised,
    ):
        conf.layer_settings("default")
    for part in says:
        assert part in str(raised.value)


def test_import_dotted() -> None:
    import os.path

    assert conf.import_dotted("os.path.join") is os.path.join
    assert conf.import_dotted("os.path") is os.path


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("join", "'join' is not a dotted path"),
        ("", "'' is not a dotted path"),
        (".join", "is not a dotted path"),
        ("..join", "is not a dotted path"),
        ("os..path", "is not a dotted path"),
        ("os.path.", "is not a dotted path"),
        ("os.path:join", "is not a dotted path"),
        ("os.path join", "is not a dotted path"),
        ("os.path.nothing", "'os.path' has nothing called 'nothing'"),
        ("os.nowhere.x", "os.nowhere"),
        ("nowhere.x", "nowhere"),
    ],
)
def test_dotted_paths_to_nothing(path: str, says: str) -> None:
    with pytest.raises(ImportError, match=re.escape(says)):
        conf.import_dotted(path)


def test_an_error_inside_the_module_is_not_hidden(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module_for_conf.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        conf.import_dotted("broken_module_for_conf.x")
    assert "broken_module_for_conf" not in sys.modules


def test_the_celery_app_is_the_projects_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = celery.Celery("mine", set_as_current=False)
    monkeypatch.setattr(conf, "_celery_app", None)
    with current(mine):
        conf.remember_celery_app()
    assert conf.celery_app() is mine
    found: list[celery.Celery] = []
    thread = threading.Thread(target=lambda: found.append(conf.celery_app()))
    thread.start()
    thread.join(10)
    assert found == [mine]


@pytest.mark.parametrize("value", [True, False])
def test_events_of_all_or_none(value: bool) -> None:
    with override_settings(CHANNEL_EVENTS=value):
        assert conf.sends_events() is value
        assert conf.sends_events("an id") is value


@pytest.mark.parametrize(("part", "least", "most"), [(0, 0, 0), (0.1, 60, 140), (1, 1000, 1000), (1.0, 1000, 1000)])
def test_events_of_a_sample(part: float, least: int, most: int) -> None:
    with override_settings(CHANNEL_EVENTS=part):
        assert conf.sends_events() is (part > 0)
        assert least <= sum(conf.sends_events(str(number)) for number in range(1000)) <= most


@pytest.mark.parametrize("value", ["yes", None, -0.1, 1.5, [1]])
def test_events_of_nothing_else(value: object) -> None:
    with override_settings(CHANNEL_EVENTS=value), pytest.raises(ImproperlyConfigured, match="CHANNEL_EVENTS"):
        conf.sends_events()


@pytest.mark.parametrize(("limit", "name"), [("messages", "CHANNEL_MAX_MESSAGES"), ("memory", "CHANNEL_MAX_MEMORY")])
def test_when_a_channel_process_is_replaced(limit: str, name: str) -> None:
    assert conf.recycled_after(limit) == 0
    with override_settings(**{name: 500}):
        assert conf.recycled_after(limit) == 500
    for value in (-1, 1.5, True, "many"):
        with override_settings(**{name: value}), pytest.raises(ImproperlyConfigured, match=name):
            conf.recycled_after(limit)
