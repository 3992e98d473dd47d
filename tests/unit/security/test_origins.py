"""The pages that may open a WebSocket."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from channelsq.security.origins import OriginPolicy

HOST = b"example.com:8000"


def policy(hosts: list[str], origins: list[str] | None = None, required: bool = False) -> OriginPolicy:
    return OriginPolicy(hosts, origins or [], required)


@pytest.mark.parametrize(
    ("hosts", "origin", "taken"),
    [
        (["example.com"], b"https://example.com", True),
        (["example.com"], b"http://EXAMPLE.com:1234", True),
        (["example.com"], b"https://www.example.com", False),
        ([".example.com"], b"https://www.example.com", True),
        (["example.com"], b"https://example.com.evil.example", False),
        (["example.com"], b"https://evilexample.com", False),
        (["example.com"], b"https://evil.example", False),
        (["[::1]"], b"http://[::1]:8000", True),
        (["example.com"], b"null", False),
        (["example.com"], b"", False),
        (["example.com"], b"no url", False),
        (["example.com"], b"http://[::1", False),
        (["example.com"], b"https://ex\xc3\xa4mple.com", False),
        ([], b"https://example.com", False),
        # Everything may be asked for, but not by every page: only those of the very host and port.
        (["*"], b"https://evil.example", False),
        (["*"], b"http://example.com:8000", True),
        (["*"], b"https://Example.com:8000", True),
        (["*"], b"http://example.com", False),
        (["*"], b"ftp://example.com:8000", False),
        (["*", "friend.example"], b"https://friend.example", True),
    ],
)
def test_allowed_hosts(hosts: list[str], origin: bytes, taken: bool) -> None:
    assert (policy(hosts).refusal([origin], HOST) is None) == taken


@pytest.mark.parametrize(
    ("origins", "origin", "taken"),
    [
        (["https://friend.example"], b"https://friend.example", True),
        (["https://friend.example"], b"https://Friend.example", True),
        (["https://friend.example"], b"http://friend.example", False),
        (["https://friend.example"], b"https://friend.example:8443", False),
        (["https://*.friend.example"], b"https://www.friend.example", True),
        (["https://*.friend.example"], b"https://friend.example", False),
        (["https://*.friend.example"], b"http://www.friend.example", False),
        (["https://*.friend.example"], b"https://www.friend.example.evil.example", False),
        (["null"], b"null", True),
        (["file://"], b"file://", True),
        (["capacitor://localhost"], b"capacitor://localhost", True),
        (["capacitor://localhost"], b"file://", False),
        (["*"], b"null", True),
        (["*"], b"https://evil.example", True),
    ],
)
def test_allowed_origins(origins: list[str], origin: bytes, taken: bool) -> None:
    assert (policy([], origins).refusal([origin], HOST) is None) == taken


def test_clients_that_are_no_browsers_send_no_origin() -> None:
    assert policy(["example.com"]).refusal([], HOST) is None
    assert policy(["example.com"], required=True).refusal([], HOST) == "there is no Origin header"
    assert policy([], ["*"], required=True).refusal([], HOST) == "there is no Origin header"


def test_a_refusal_names_the_origin_and_no_more_than_that() -> None:
    assert policy([]).refusal([b"https://evil.example"], HOST) == "the origin 'https://evil.example' is not allowed"
    assert len(policy([]).refusal([b"https://" + b"x" * 10_000], HOST) or "") < 300
    assert policy(["a"]).refusal([b"http://a", b"http://a"], HOST) == "there are several Origin headers"


def test_the_settings(settings: Any) -> None:
    settings.ALLOWED_HOSTS = []
    settings.DEBUG = True
    assert OriginPolicy.from_settings().refusal([b"http://localhost:3000"], b"localhost:8000") is None
    settings.DEBUG = False
    assert OriginPolicy.from_settings().refusal([b"http://localhost:3000"], b"localhost:8000")
    settings.CSRF_TRUSTED_ORIGINS = ["https://*.trusted.example"]
    settings.CHANNEL_ALLOWED_ORIGINS = ["http://localhost:3000", "file://", "capacitor://localhost", "null"]
    assert OriginPolicy.from_settings().refusal([b"https://www.trusted.example"], HOST) is None
    assert OriginPolicy.from_settings().refusal([b"http://localhost:3000"], b"localhost:8000") is None


@pytest.mark.parametrize(
    "value", ["https://example.com", 7, [7], ["example.com"], ["https://example.com/path"], ["https://"]]
)
def test_origins_that_are_none(settings: Any, value: Any) -> None:
    settings.CHANNEL_ALLOWED_ORIGINS = value
    with pytest.raises(ImproperlyConfigured, match="CHANNEL_ALLOWED_ORIGINS cannot"):
        OriginPolicy.from_settings()


def test_a_switch_that_is_none(settings: Any) -> None:
    settings.CHANNEL_REQUIRE_ORIGIN = "yes"
    with pytest.raises(ImproperlyConfigured, match="CHANNEL_REQUIRE_ORIGIN must be True or False"):
        OriginPolicy.from_settings()
