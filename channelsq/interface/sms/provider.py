"""The contract of a provider of text messages; it does no I/O.

A subclass of :class:`Provider` says how the provider signs its webhooks, what they mean, and how its API sends a text.
``CHANNEL_SMS["provider"]`` is its dotted path, and the other keys are its keyword arguments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from channelsq.interface.gateway.http_door import HttpRequest, HttpResponse


@dataclass(frozen=True, slots=True)
class Incoming:
    """A text that someone sent to one of the site's numbers."""

    #: The provider's id of the message: a repeated one is published once.
    id: str
    sender: str
    to: str
    text: str
    #: Pictures and other files, each with ``url`` and ``content_type``.
    media: tuple[dict[str, str], ...] = ()
    #: The provider's other fields.
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StatusChange:
    """News of a text that the site sent."""

    #: The provider's id of the message.
    id: str
    #: The provider's name of the status, such as ``"delivered"``.
    status: str
    sender: str = ""
    to: str = ""
    #: The provider's error code, if there is one.
    code: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A text to send."""

    to: str
    text: str
    sender: str = ""
    #: The URLs of pictures and other files.
    media: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call of the provider's API: a POST of a form, with HTTP basic authentication."""

    url: str
    form: Mapping[str, str | list[str]]
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """The response of the provider's API."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Provider(ABC):
    """A provider."""

    #: Its name, in messages.
    name: str

    @abstractmethod
    def is_signed(self, request: HttpRequest, url: str) -> bool:
        """Return whether the provider sent a webhook; compare secrets in constant time.

        Args:
            request: the webhook.
            url: the URL that the provider called, with its query.
        """

    @abstractmethod
    def read_incoming(self, request: HttpRequest) -> Incoming:
        """Return the text in a webhook whose signature is right.

        Raises:
            Rejected: it is not such a webhook.
        """

    @abstractmethod
    def read_status(self, request: HttpRequest) -> StatusChange:
        """Return the status in a webhook whose signature is right; errors as :meth:`read_incoming`."""

    @abstractmethod
    def accepted(self) -> HttpResponse:
        """Return the response to a webhook whose text was published, or had been published before."""

    @abstractmethod
    def call(self, text: Text, status_url: str) -> ApiCall:
        """Return the call that sends a text.

        Args:
            text: the text.
            status_url: the URL of the webhook for its statuses; empty if none is wanted.

        Raises:
            Rejected: the text cannot be sent.
        """

    @abstractmethod
    def read_response(self, response: ApiResponse) -> dict[str, Any]:
        """Return the fields of the receipt, with ``id``, of a text that the provider has taken.

        Raises:
            TryLater: the provider did not take it, and may do so later.
            Rejected: the provider refused it.
            Unsure: it is not known whether the provider took it.
        """
