"""The provider Twilio, and others with its format.

Sources: Twilio's documentation of its request signatures ("Webhooks security"), of the Messages resource and of its
status callbacks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl

from django.core.exceptions import ImproperlyConfigured

from channelsq.interface.gateway.http_door import HttpRequest, HttpResponse
from channelsq.interface.gateway.outcomes import Rejected, TryLater, Unsure
from channelsq.interface.sms.provider import ApiCall, ApiResponse, Incoming, Provider, StatusChange, Text

#: The most fields of a webhook.
_MOST_FIELDS = 200

#: The most files of one text.
_MOST_MEDIA = 10

#: Fields of a webhook that have a place of their own in the message.
_KNOWN = {"MessageSid", "SmsSid", "SmsMessageSid", "From", "To", "Body", "NumMedia", "AccountSid", "ApiVersion"}

#: Responses of a server that did not begin to send the text.
_NOT_NOW = (429, 500, 503)


class Twilio(Provider):
    """Twilio's API and webhooks.

    Args:
        account_sid: the account.
        auth_token: the token that signs webhooks; a list to rotate it, the one in use first.
        sender: the number, or the messaging service (``MG…``), that sends texts without ``from``.
        api_key, api_secret: a key for the API, instead of the account's token.
        api_url: the address of the API.

    Raises:
        ImproperlyConfigured: a value is missing or cannot be used.
    """

    name = "twilio"

    def __init__(
        self,
        *,
        account_sid: str = "",
        auth_token: str | list[str] | tuple[str, ...] = "",
        sender: str = "",
        api_key: str = "",
        api_secret: str = "",
        api_url: str = "https://api.twilio.com",
    ) -> None:
        tokens = [auth_token] if isinstance(auth_token, str) else list(auth_token)
        if not (account_sid and tokens and all(isinstance(token, str) and token for token in tokens)):
            raise ImproperlyConfigured(
                'CHANNEL_SMS needs "account_sid" and "auth_token", as Twilio\'s console shows them'
            )
        if bool(api_key) != bool(api_secret):
            raise ImproperlyConfigured('CHANNEL_SMS needs both "api_key" and "api_secret", or neither')
        self._account = account_sid
        self._tokens = [token.encode() for token in tokens]
        self._sender = sender
        self._user, self._password = (api_key, api_secret) if api_key else (account_sid, tokens[0])
        self._url = f"{api_url.rstrip('/')}/2010-04-01/Accounts/{account_sid}/Messages.json"

    def is_signed(self, request: HttpRequest, url: str) -> bool:
        given = request.headers.get("x-twilio-signature", "").encode()
        try:
            fields = _form(request)
        except Rejected:
            return False
        signed = (url + "".join(name + value for name, value in sorted(set(fields)))).encode()
        # Every token is compared, so that the time tells nothing about which one is right.
        matches = [hmac.compare_digest(given, _signature(token, signed)) for token in self._tokens]
        return any(matches)

    def read_incoming(self, request: HttpRequest) -> Incoming:
        fields = dict(_form(request))
        message_id, sender = _required(fields, "MessageSid"), _required(fields, "From")
        number = fields.get("NumMedia", "0")
        count = min(int(number), _MOST_MEDIA) if number.isdigit() and len(number) < 4 else 0
        media = tuple(
            {"url": fields[f"MediaUrl{each}"], "content_type": fields.get(f"MediaContentType{each}", "")}
            for each in range(count)
            if f"MediaUrl{each}" in fields
        )
        others = {name: value for name, value in fields.items() if name not in _KNOWN and not name.startswith("Media")}
        return Incoming(message_id, sender, fields.get("To", ""), fields.get("Body", ""), media, others)

    def read_status(self, request: HttpRequest) -> StatusChange:
        fields = dict(_form(request))
        return StatusChange(
            _required(fields, "MessageSid"),
            _required(fields, "MessageStatus"),
            fields.get("From", ""),
            fields.get("To", ""),
            fields.get("ErrorCode", ""),
        )

    def accepted(self) -> HttpResponse:
        # Texts are answered through the API: the response to the webhook does not wait for a consumer.
        return HttpResponse(200, b'<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml; charset=utf-8")

    def call(self, text: Text, status_url: str) -> ApiCall:
        sender = text.sender or self._sender
        if not sender:
            raise Rejected('the message has no "from", and CHANNEL_SMS no "sender"')
        form: dict[str, str | list[str]] = {"To": text.to, "Body": text.text}
        form["MessagingServiceSid" if sender.startswith("MG") else "From"] = sender
        if text.media:
            form["MediaUrl"] = list(text.media)
        if status_url:
            form["StatusCallback"] = status_url
        return ApiCall(self._url, form, self._user, self._password)

    def read_response(self, response: ApiResponse) -> dict[str, Any]:
        try:
            answer = json.loads(response.body)
        except ValueError:
            answer = {}
        if not isinstance(answer, dict):
            answer = {}
        reason = f"HTTP {response.status}: {str(answer.get('message', ''))[:300]}".rstrip(": ")
        if response.status in (200, 201):
            if not isinstance(answer.get("sid"), str):
                raise Unsure(f"{reason}, and no sid")
            return {"id": answer["sid"], "status": str(answer.get("status", "queued"))}
        if response.status in _NOT_NOW:
            raise TryLater(reason, _seconds(response.headers.get("retry-after", "")))
        if response.status >= 500:  # for example of a proxy that lost the API's response
            raise Unsure(reason)
        raise Rejected(reason, str(answer.get("code", "")))


def _signature(token: bytes, signed: bytes) -> bytes:
    return base64.b64encode(hmac.new(token, signed, hashlib.sha1).digest())


def _form(request: HttpRequest) -> list[tuple[str, str]]:
    """Return the fields of a webhook's form.

    Raises:
        Rejected: it is not a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method != "POST" or kind != "application/x-www-form-urlencoded":
        raise Rejected("a webhook must be a POST of application/x-www-form-urlencoded")
    try:
        return parse_qsl(
            request.body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError as error:  # also of the decoding
        raise Rejected("the webhook's form cannot be read") from error


def _required(fields: dict[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not value:
        raise Rejected(f"the webhook has no {name}")
    return value


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() and len(text) < 6 else None
