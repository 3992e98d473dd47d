"""A Django request made of an ``http.request`` (or ``websocket.connect``) message."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from django.conf import settings
from django.http import QueryDict, parse_cookie
from django.utils.functional import cached_property

from channelsq import conf, exceptions
from channelsq.delivery import attempts
from channelsq.delivery.attempts import PART
from channelsq.exceptions import RequestAborted, RequestIncomplete, RequestTimeout
from channelsq.http.django_http_internals import DjangoRequest
from channelsq.matching.filters import path_below
from channelsq.message import Message

logger = logging.getLogger("channelsq.http")

#: Headers without ``HTTP_`` in CGI, and so in META.
_UNPREFIXED = {"CONTENT_LENGTH", "CONTENT_TYPE"}

#: Characters that need no quoting in a URL's path (RFC 3986, section 3.3), besides letters and digits.
_UNQUOTED = "/:@!$&'()*+,;=~-._"

#: A WebSocket handshake is an HTTP request; ``is_secure()`` must be true for ``wss``.
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


def script_name(message: Message) -> str:
    """Return the path at which the application is mounted: ``FORCE_SCRIPT_NAME``, else ``root_path``."""
    return conf.forced_script_name() or str(message.get("root_path") or "")


class AsgiRequest(DjangoRequest):
    """Django's request, made of a message.

    The whole body is read here, from ``body`` and, if the message has one, from its ``body_channel``.  Data over
    ``FILE_UPLOAD_MAX_MEMORY_SIZE`` goes to a temporary file.

    Args:
        message: an ``http.request`` message.  A ``websocket.connect`` message works too: its session and user are those
            of the GET request that it is.

    Raises:
        RequestTimeout: the next part of the body did not come within ``body_receive_timeout``.
        RequestAborted: the client disconnected before its body was complete.
        RequestIncomplete: a part of the body was lost, and could not be sent again.
        ValueError: the message is not a request (UnicodeDecodeError: its text is not UTF-8); the text names the key.
    """

    #: Seconds that the next part of a body may take.  Counted again for each part, so that a large upload
    #: over a slow line gets through, while a stalled one does not hold a worker.
    body_receive_timeout: float = 60

    #: For views to raise.
    ResponseLater = exceptions.ResponseLater

    #: Set once a view has raised ResponseLater: no response is sent.
    response_later = False

    def __init__(self, message: Message) -> None:
        # HttpRequest.__init__ would set the attributes that are properties here.
        self.message = message
        #: The channel of this request's client.
        self.reply_channel = message.reply_channel
        self.resolver_match = None
        self.path = _text(message, "path")
        if not self.path:
            raise ValueError(f"{message!r} has no 'path'; a request needs one, such as '/'")
        self.script_name = script_name(message)
        self.path_info = path_below(self.path, self.script_name)
        self.method = (_text(message, "method") or "GET").upper()
        self._query_string = message.get("query_string") or b""
        if isinstance(self._query_string, str):
            self._query_string = self._query_string.encode()
        self.META = self._make_meta()
        self._parse_content_type()
        self._set_body(self._read_body())

    def _make_meta(self) -> dict[str, Any]:
        message = self.message
        meta: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "QUERY_STRING": self._query_string.decode(),
            "SCRIPT_NAME": self.script_name,
            "PATH_INFO": self.path_info,
            "SERVER_NAME": "unknown",
            "SERVER_PORT": "0",
            "wsgi.url_scheme": self._url_scheme(),  # for OpenTelemetry
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
        }
        if not self.path.isascii() or "OTEL_SEMCONV_STABILITY_OPT_IN" in os.environ:
            # As application servers set it.  Without it OpenTelemetry builds the URL from the path, which it decodes as
            # latin-1, and sets no URL under the newer names of attributes.
            query = f"?{meta['QUERY_STRING']}" if self._query_string else ""
            meta["REQUEST_URI"] = quote(self.path, safe=_UNQUOTED) + query
        if message.get("http_version"):
            meta["SERVER_PROTOCOL"] = f"HTTP/{message['http_version']}"
        if client := _address(message, "client"):
            meta["REMOTE_ADDR"] = meta["REMOTE_HOST"] = client[0]
            meta["REMOTE_PORT"] = client[1]
        if server := _address(message, "server"):
            # A UNIX socket has no port.
            meta["SERVER_NAME"], meta["SERVER_PORT"] = server[0], str(server[1] or 0)
        headers: dict[str, list[str]] = {}
        for name, value in _headers(message):
            # "X_Forwarded_For" would become the same META key as the trusted "X-Forwarded-For".
            if "_" not in name:
                key = name.upper().replace("-", "_")
                headers.setdefault(key if key in _UNPREFIXED else f"HTTP_{key}", []).append(value)
        for key, values in headers.items():
            # RFC 9113, section 8.2.3: the parts of a divided cookie header belong together with "; ".
            meta[key] = ("; " if key == "HTTP_COOKIE" else ",").join(values)
        return meta

    # -- the body -----------------------------------------------------------------------------

    def _read_body(self) -> BinaryIO:
        start, channel = _content(self.message.content, "body"), self.message.get("body_channel")
        if not channel and len(start) <= settings.FILE_UPLOAD_MAX_MEMORY_SIZE:
            # Most requests.  They need no close(): requests made only to find a session never get one.
            self._check_content_length(len(start))
            return BytesIO(start)
        body = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            max_size=settings.FILE_UPLOAD_MAX_MEMORY_SIZE, mode="w+b", dir=settings.FILE_UPLOAD_TEMP_DIR
        )
        try:
            body.write(start)
            self._write_parts(body, channel)
            self._check_content_length(body.tell())
        except BaseException:
            body.close()
            raise
        body.seek(0)
        return cast(BinaryIO, body)

    def _write_parts(self, body: Any, channel: str | None) -> None:
        """Write the parts on the body's channel; request them again, once, if a part was lost."""
        if channel and attempts.is_repeated(self.message) and not self.message._run.is_numbered:
            # The earlier run has read some parts, and this interface server does not send them again.
            raise RequestIncomplete(f"{self.method} {self.path}: an earlier run has read a part of its body")
        start = body.tell()
        try:
            self._copy_parts(body, channel)
        except RequestIncomplete as error:
            if self.message.reply_channel is None or self.message.reply_channel.attempt is None:
                raise
            logger.warning("%s; it is asked for again", error, extra={"action": "body_again"})
            attempts.ask(self.message)
            if not self.message._run.is_numbered:
                raise
            body.seek(start)
            body.truncate()
            self._copy_parts(body, self.message.get("body_channel"))

    def _copy_parts(self, body: Any, channel: str | None) -> None:
        expected = 0
        while channel:
            part = self._next_part(channel)
            if part.get("closed"):
                raise RequestAborted(f"{self.method} {self.path}: the client left or was refused amid its body")
            number = part.get(PART, expected)  # an older interface server does not number them
            if type(number) is not int or number > expected:
                raise RequestIncomplete(f"{self.method} {self.path}: part {expected} of its body was lost")
            if number < expected:  # sent twice, as the confirmation of the first try was lost
                continue
            expected += 1
            body.write(_content(part, "content"))
            if not part.get("more_content"):
                return

    def _next_part(self, channel: str) -> dict[str, Any]:
        deadline = time.monotonic() + self.body_receive_timeout
        while True:
            _, part = self.message.channel_layer.receive([channel], block=True)
            if part is not None:
                return part
            if time.monotonic() >= deadline:
                raise RequestTimeout(
                    f"{self.method} {self.path}: no more of the body came on {channel} for "
                    f"{self.body_receive_timeout} s (body_receive_timeout)"
                )

    def _check_content_length(self, size: int) -> None:
        """Compare the Content-Length with the received size, as Django's parsers rely on it."""
        if self.message.get("scheme") in _HTTP_SCHEMES:
            return
        declared = self.META.get("CONTENT_LENGTH")
        if not declared:
            # A chunked body has none, and without one Django's multipart parser treats it as empty.
            if size:
                self.META["CONTENT_LENGTH"] = str(size)
        elif not (declared.isascii() and declared.isdigit()) or int(declared) != size:
            raise ValueError(f"the Content-Length is {declared!r}, the body has {size} bytes")

    # -- the attributes of Django's own request classes ------------------------------------------

    def _url_scheme(self) -> str:
        scheme = self.message.get("scheme") or "http"
        return _HTTP_SCHEMES.get(scheme, scheme)

    @cached_property
    def GET(self) -> QueryDict:  # type: ignore[override]
        return QueryDict(self._query_string, encoding=self.encoding)

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]
        # META has bytes as latin-1; browsers send UTF-8.
        return parse_cookie(self.META.get("HTTP_COOKIE", "").encode("latin-1").decode(errors="replace"))

    def close(self) -> None:
        """Close the temporary files of the body and of the uploads."""
        super().close()
        self._close_body()


def _text(message: Message, key: str) -> str:
    value = message.get(key)
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError(f"a request's {key!r} must be a str, not {value!r}")
    return value


def _content(content: Mapping[str, Any], key: str) -> bytes:
    value = content.get(key) or b""
    if not isinstance(value, bytes):
        raise ValueError(f"a request's {key!r} must be bytes, not {type(value).__name__}")
    return value


def _address(message: Message, key: str) -> tuple[str, Any] | None:
    value = message.get(key)
    if not value:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"a request's {key!r} must be [host, port] or None, not {value!r}")
    return str(value[0]), value[1]


def _headers(message: Message) -> Iterator[tuple[str, str]]:
    """Yield the headers, which are pairs of bytes, or, from tests and older code, a dict."""
    headers = message.get("headers") or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    if not isinstance(headers, (Mapping, list, tuple)):
        raise ValueError(f"a request's 'headers' must be [[name, value], …] in bytes, not {headers!r:.80}")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"a request's header must be [name, value] in bytes, not {pair!r:.80}")
        name, value = pair
        yield _header_text(name), _header_text(value)


def _header_text(value: object) -> str:
    # HTTP allows only ASCII, and other bytes must survive: latin-1 keeps every byte.
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value.encode().decode("latin-1")
    raise ValueError(f"a request's header must be [name, value] in bytes, not {value!r:.80}")
