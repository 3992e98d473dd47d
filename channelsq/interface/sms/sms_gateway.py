"""The interface server for text messages.

==================  ==============================================================================================
``sms.receive``     texts to the site's numbers, from the provider's webhook ``<path>/receive``
``sms.send``        texts to send: ``to`` and ``text``, perhaps ``from``, ``media`` and ``reference``
``sms.status``      the fate of texts that were sent: from the provider's API, and its webhook ``<path>/status``
==================  ==============================================================================================
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import httpx

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.diagnostics.causes import explained
from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.server_options import TIME, Option, seconds
from channelsq.interface.gateway.gateway import Gateway
from channelsq.interface.gateway.gateway_config import OPTIONS, GatewayConfig
from channelsq.interface.gateway.http_door import HttpRequest, HttpResponse
from channelsq.interface.gateway.outcomes import Rejected, TryLater, Unsure
from channelsq.interface.sms.provider import ApiResponse, Provider, Text

RECEIVE, SEND, STATUS = "sms.receive", "sms.send", "sms.status"

_TWILIO = "channelsq.interface.sms.twilio.Twilio"

#: The most bytes of the API's response that are read.
_MOST_RESPONSE = 64 * 1024

#: The longest address, text and reference, and the most files, of a text to send.
_ADDRESS, _LONGEST, _REFERENCE, _MOST_MEDIA = 64, 10_000, 200, 10

_NUMBER = re.compile(rf"[+0-9A-Za-z][-+0-9A-Za-z:_.@ ]{{0,{_ADDRESS - 1}}}")

#: Errors of httpx after which the provider has nothing.
_NOT_BEGUN = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def public_url(text: str) -> str:
    """Read the address of the site's webhooks, without a path."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("give the address by which the provider reaches this server, such as https://example.com")
    return text.rstrip("/")


def webhook_path(text: str) -> str:
    """Read the path of the webhooks."""
    if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)+", text):
        raise ValueError("give a path such as /sms")
    return text


@dataclass(frozen=True, slots=True)
class SmsConfig(GatewayConfig):
    """The settings of the SMS gateway, without those of the provider, which are in ``CHANNEL_SMS``."""

    max_body_size: int = 64 * 1024
    public_url: str = ""
    path: str = "/sms"
    api_timeout: float = 15.0


class SmsGateway(Gateway):
    """See the module."""

    protocol = "sms"
    program = "python -m channelsq.interface.sms"
    consumes = (SEND,)
    receipts = STATUS
    serves_together = True
    config_class = SmsConfig
    options: ClassVar[tuple[Option, ...]] = (
        *OPTIONS,
        Option(
            "public_url",
            public_url,
            "the address by which the provider reaches this server, without the path: webhooks are signed with it",
            "URL",
            shown_default="none, and it is required",
        ),
        Option("path", webhook_path, "the webhooks are PATH/receive and PATH/status", "PATH"),
        Option(
            "api_timeout",
            seconds(zero=False, remedy=TIME),
            "wait this long for the provider's API before the fate of a text is unknown",
            "SECONDS",
        ),
    )

    config: SmsConfig

    def __init__(self, config: SmsConfig, layer: ChannelLayerWrapper) -> None:
        super().__init__(config, layer)
        if not config.public_url:
            raise ConfigError(
                "--public-url is missing: give the address by which the provider reaches this server, such as "
                "https://example.com"
            )
        self._provider = _provider()
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        self._client = httpx.AsyncClient(
            timeout=self.config.api_timeout, limits=httpx.Limits(max_connections=self.config.sends)
        )

    # -- webhooks

    async def http(self, request: HttpRequest) -> HttpResponse:
        webhooks = {f"{self.config.path}/receive": self._receive, f"{self.config.path}/status": self._status}
        webhook = webhooks.get(request.path)
        if webhook is None:
            return HttpResponse(404, b"404 Not Found\n")
        if request.method != "POST":
            return HttpResponse(405, b"405 Method Not Allowed\n", headers={"allow": "POST"})
        query = f"?{request.query}" if request.query else ""
        if not self._provider.is_signed(request, f"{self.config.public_url}{request.path}{query}"):
            self.stats.count("gateway.unsigned")
            return HttpResponse(403, b"the signature is wrong\n")
        return await webhook(request)

    async def _receive(self, request: HttpRequest) -> HttpResponse:
        text = self._provider.read_incoming(request)
        content = {
            "provider": self._provider.name,
            "id": text.id,
            "from": text.sender,
            "to": text.to,
            "text": text.text,
            "media": list(text.media),
            "fields": dict(text.fields),
        }
        answer = functools.partial(self._answer, text.sender, text.to)
        await self.publish(RECEIVE, content, answer=answer, once=f"receive:{text.id}")
        return self._provider.accepted()

    async def _answer(self, to: str, sender: str, answer: dict[str, Any]) -> None:
        """Send a consumer's answer, through the channel: this process may stop before the provider takes it."""
        await self.send_later(SEND, {"from": sender, **answer, "to": to})

    async def _status(self, request: HttpRequest) -> HttpResponse:
        news = self._provider.read_status(request)
        if self.config.receipts:
            reference = parse_qs(request.query).get("reference", [""])[0]
            content = {
                "id": news.id,
                "status": news.status,
                "from": news.sender,
                "to": news.to,
                "code": news.code,
                "reason": "",
                "reference": reference,
            }
            await self.publish(STATUS, content, once=f"status:{news.id}:{news.status}")
        return HttpResponse(204)

    # -- the provider's API

    async def carry(self, channel: str, content: dict[str, Any]) -> Mapping[str, Any]:
        text = text_of(content)
        assert self._client is not None
        call = self._provider.call(text, self._status_url(content.get("reference", "")))
        try:
            async with self._client.stream(
                "POST", call.url, data=call.form, auth=httpx.BasicAuth(call.user, call.password)
            ) as response:
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > _MOST_RESPONSE:
                        raise Unsure("the provider's response is too large")
        except _NOT_BEGUN as error:
            raise TryLater(f"the provider cannot be reached: {explained(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unsure(f"the provider did not answer: {explained(error)}") from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        fields = self._provider.read_response(ApiResponse(response.status_code, headers, body))
        return {"to": text.to, "from": text.sender, **fields}

    def _status_url(self, reference: str) -> str:
        if not self.config.receipts:
            return ""
        query = f"?reference={quote(reference, safe='')}" if reference else ""
        return f"{self.config.public_url}{self.config.path}/status{query}"

    async def release(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def text_of(content: dict[str, Any]) -> Text:
    """Return the text in a message on ``sms.send``.

    Raises:
        Rejected: a value cannot be used; the reason names it.
    """
    to, text, sender = content.get("to"), content.get("text"), content.get("from") or ""
    media, reference = content.get("media") or [], content.get("reference", "")
    if not isinstance(to, str) or not _NUMBER.fullmatch(to):
        raise Rejected(f'"to" must be a phone number such as "+4915112345678", not {to!r:.80}')
    if not isinstance(sender, str) or (sender and not _NUMBER.fullmatch(sender)):
        raise Rejected(f'"from" must be a phone number or the id of a messaging service, not {sender!r:.80}')
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise Rejected(f'"text" must be a str of at most {_LONGEST} characters, not {type(text).__name__}')
    if not isinstance(media, (list, tuple)) or len(media) > _MOST_MEDIA or not all(map(_is_url, media)):
        raise Rejected(f'"media" must be a list of at most {_MOST_MEDIA} URLs, not {media!r:.80}')
    if not isinstance(reference, str) or len(reference) > _REFERENCE:
        raise Rejected(f'"reference" must be a str of at most {_REFERENCE} characters, not {reference!r:.80}')
    if not text and not media:
        raise Rejected('"text" is empty, and there are no "media"')
    return Text(to, text, sender, tuple(media))


def _is_url(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 2000 and value.startswith(("https://", "http://"))


def _provider() -> Provider:
    """Return the provider of ``CHANNEL_SMS``.

    Raises:
        ConfigError: the setting cannot be used.
    """
    settings = conf.sms_settings()
    path = settings.pop("provider", _TWILIO)
    try:
        made = conf.import_dotted(path)(**settings)
    except (ImportError, TypeError) as error:
        raise ConfigError(f"CHANNEL_SMS does not fit the provider {path!r}: {explained(error)}") from error
    if not isinstance(made, Provider):
        raise ConfigError(f"CHANNEL_SMS['provider'] {path!r} is not a subclass of channelsq.interface.sms.Provider")
    return made
