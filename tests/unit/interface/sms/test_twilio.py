"""Twilio's signatures, webhooks and responses, without a network."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from django.core.exceptions import ImproperlyConfigured

from channelsq.interface.gateway import HttpRequest, Rejected, TryLater, Unsure
from channelsq.interface.sms import ApiResponse, Text, Twilio

URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FIELDS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+12349013030"),
    ("Digits", "1234"),
    ("From", "+12349013030"),
    ("To", "+18005551212"),
]
#: The signature of these in the tests of Twilio's own helper libraries.
SIGNATURE = "0/KCTR6DLpKmkAf8muzZqo1nDgQ="


def request(fields: list[tuple[str, str]], signature: str = "", kind: str | None = None) -> HttpRequest:
    headers = {"content-type": kind or "application/x-www-form-urlencoded", "x-twilio-signature": signature}
    return HttpRequest("POST", "/", "", headers, urlencode(fields).encode(), "-")


def twilio(**changes: object) -> Twilio:
    settings: dict[str, object] = {"account_sid": "AC1", "auth_token": "12345", "sender": "+1", **changes}
    return Twilio(**settings)  # type: ignore[arg-type]


def test_the_signature_is_twilios() -> None:
    assert twilio().is_signed(request(FIELDS, SIGNATURE), URL)
    assert twilio().is_signed(request(FIELDS[::-1], SIGNATURE), URL)
    assert twilio(auth_token=["new", "12345"]).is_signed(request(FIELDS, SIGNATURE), URL)


@pytest.mark.parametrize(
    ("changed", "url"),
    [
        (request(FIELDS, SIGNATURE), URL + "&x"),
        (request([*FIELDS, ("More", "1")], SIGNATURE), URL),
        (request(FIELDS, ""), URL),
        (request(FIELDS, "ü"), URL),
        (request(FIELDS, SIGNATURE, "application/json"), URL),
        (request([(f"f{number}", "") for number in range(201)], SIGNATURE), URL),
        (HttpRequest("POST", "/", "", request([]).headers, b"a=\xff", "-"), URL),
    ],
)
def test_other_requests_are_not_signed(changed: HttpRequest, url: str) -> None:
    assert not twilio().is_signed(changed, url)


def test_a_text_may_have_files() -> None:
    fields = [("MessageSid", "SM1"), ("From", "+1"), ("NumMedia", "2"), ("MediaUrl0", "https://a"), ("MediaUrl1", "b")]
    assert [each["url"] for each in twilio().read_incoming(request(fields)).media] == ["https://a", "b"]
    many = [*fields[:2], ("NumMedia", "99999999999999"), *fields[3:]]
    assert twilio().read_incoming(request(many)).media == ()


@pytest.mark.parametrize("missing", ["MessageSid", "MessageStatus"])
def test_a_status_needs_its_fields(missing: str) -> None:
    fields = [pair for pair in [("MessageSid", "SM1"), ("MessageStatus", "sent")] if pair[0] != missing]
    with pytest.raises(Rejected, match=missing):
        twilio().read_status(request(fields))


def test_calls() -> None:
    call = twilio(api_key="SK1", api_secret="s").call(Text("+2", "hi"), "https://site/status")
    assert (call.user, call.password) == ("SK1", "s")
    assert call.form == {"To": "+2", "Body": "hi", "From": "+1", "StatusCallback": "https://site/status"}
    assert "password" not in repr(call)
    assert twilio().call(Text("+2", "hi", "MG7"), "").form == {"To": "+2", "Body": "hi", "MessagingServiceSid": "MG7"}
    with pytest.raises(Rejected, match="sender"):
        twilio(sender="").call(Text("+2", "hi"), "")


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (429, b"", TryLater),
        (503, b"", TryLater),
        (500, b"{}", TryLater),
        (502, b"<html>", Unsure),
        (201, b"[]", Unsure),
        (201, b"nonsense", Unsure),
        (400, b'{"code": 21211, "message": "bad"}', Rejected),
        (302, b"", Rejected),
    ],
)
def test_responses(status: int, body: bytes, outcome: type[Exception]) -> None:
    with pytest.raises(outcome):
        twilio().read_response(ApiResponse(status, {"retry-after": "7"}, body))


@pytest.mark.parametrize("changes", [{"account_sid": ""}, {"auth_token": []}, {"auth_token": ""}, {"api_key": "SK"}])
def test_settings_that_cannot_be_used(changes: dict[str, object]) -> None:
    with pytest.raises(ImproperlyConfigured):
        twilio(**changes)
