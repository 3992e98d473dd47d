"""The interface server for email.

==================  ==============================================================================================
``email.receive``   mails to the site's domains, received by SMTP
``email.send``      mails to send by Django's email: ``to``, ``subject`` and ``text``, and more if wanted
``email.status``    the fate of mails that were sent
==================  ==============================================================================================
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
import smtplib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from django.core.mail import EmailMessage as DjangoEmail
from django.core.mail import get_connection

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper
from channelsq.diagnostics.causes import explained
from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.common_options import port
from channelsq.interface.basis.server_options import TIME, Option, host, seconds, size
from channelsq.interface.email.loops import automatic
from channelsq.interface.email.mail_parser import content_of, line, parse
from channelsq.interface.email.mail_writer import mail_of
from channelsq.interface.email.smtp_door import Received, SmtpDoor
from channelsq.interface.gateway.gateway import Gateway
from channelsq.interface.gateway.gateway_config import OPTIONS, GatewayConfig
from channelsq.interface.gateway.outcomes import Rejected, TryLater, Unsure

RECEIVE, SEND, STATUS = "email.receive", "email.send", "email.status"

_KNOWN = {"domains", "addresses"}

_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def file(text: str) -> str:
    """Read the path of an existing file."""
    if not Path(text).is_file():
        raise ValueError("give the path of an existing file")
    return text


@dataclass(frozen=True, slots=True)
class EmailConfig(GatewayConfig):
    """The settings of the email gateway; the domains are in ``CHANNEL_EMAIL``."""

    max_connections: int = 100
    rate: float = 5.0
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 8025
    smtp_timeout: float = 60.0
    max_mail_size: int = 10 * 1024 * 1024
    max_attachments: int = 512 * 1024
    send_timeout: float = 30.0
    tls_certificate: str = ""
    tls_key: str = ""


class EmailGateway(Gateway):
    """See the module."""

    protocol = "email"
    program = "python -m channelsq.interface.email"
    consumes = (SEND,)
    receipts = STATUS
    serves_together = True
    addresses = (*Gateway.addresses, ("smtp_host", "smtp_port"))
    config_class = EmailConfig
    options: ClassVar[tuple[Option, ...]] = (
        *OPTIONS,
        Option("smtp_host", host, "address to receive mails on", "HOST"),
        port("smtp_port", "port to receive mails on"),
        Option(
            "smtp_timeout",
            seconds(zero=False, remedy=TIME),
            "the longest silence of a mail server, and the longest time for a mail",
            "SECONDS",
        ),
        Option("max_mail_size", size(1024**3), "the largest mail; larger ones get 552", "BYTES"),
        Option(
            "max_attachments",
            size(1024**3, zero="for none"),
            "the most bytes of all attachments of a mail; further ones come without their content; 0 for none",
            "BYTES",
        ),
        Option(
            "send_timeout",
            seconds(zero=False, remedy=TIME),
            "wait this long for the site's mail server before the fate of a mail is unknown",
            "SECONDS",
        ),
        Option(
            "tls_certificate",
            file,
            "the certificate for STARTTLS, with its chain, in PEM",
            "PATH",
            shown_default="none",
        ),
        Option("tls_key", file, "its private key", "PATH", shown_default="none"),
    )

    config: EmailConfig

    def __init__(self, config: EmailConfig, layer: ChannelLayerWrapper) -> None:
        super().__init__(config, layer)
        self._domains, self._addresses = _recipients()
        self._smtp = SmtpDoor(
            self._deliver,
            self._accepts,
            self.stats,
            hostname=socket.gethostname(),
            connections=config.max_connections,
            mail_size=config.max_mail_size,
            seconds=config.smtp_timeout,
            tls=_tls(config),
        )
        self._sockets: list[socket.socket] = []
        #: The port on which mails are received, once it listens.
        self.smtp_port = 0

    async def open(self) -> None:
        self._sockets = self.bound("smtp_host", "smtp_port")
        self.smtp_port = self._sockets[0].getsockname()[1]
        await self._smtp.listen(self._sockets)

    async def close(self) -> None:
        await self._smtp.close()

    async def release(self) -> None:
        for bound in self._sockets:
            bound.close()

    def clients(self) -> int:
        return len(self._smtp.open)

    # -- mails that come in

    def _accepts(self, address: str) -> bool:
        address = address.lower()
        return address in self._addresses or address.rpartition("@")[2] in self._domains

    async def _deliver(self, received: Received) -> None:
        content = await asyncio.to_thread(self._read, received)
        answer = functools.partial(self._answer, received.sender, received.recipients[0], content)
        key = hashlib.sha256("\n".join([received.sender, *received.recipients, ""]).encode("utf-8", "replace"))
        key.update(received.data)
        await self.publish(RECEIVE, content, answer=answer, once=key.hexdigest())

    def _read(self, received: Received) -> dict[str, Any]:
        mail = parse(received.data)
        reason = automatic(mail, received.sender)
        if reason:
            self.stats.count("gateway.automatic")
            raise Rejected(f"an automatic mail is not accepted here: {line(reason)}", "automatic")
        content = content_of(mail, self.config.max_attachments)
        envelope = {"sender": received.sender, "to": list(received.recipients)}
        return {**content, **envelope, "client": received.client, "tls": received.is_encrypted}

    async def _answer(self, to: str, sender: str, mail: dict[str, Any], answer: dict[str, Any]) -> None:
        """Send a consumer's answer, in the mail's thread and through the channel."""
        subject = mail["subject"][:500]
        thread = {
            "from": sender,
            "subject": subject if subject.lower().startswith("re:") else f"Re: {subject}".strip(),
            "in_reply_to": mail["message_id"],
            "references": mail["references"],
        }
        await self.send_later(SEND, {**thread, **answer, "to": to})

    # -- mails that are sent

    async def carry(self, channel: str, content: dict[str, Any]) -> Mapping[str, Any]:
        mail = mail_of(content)
        await asyncio.to_thread(self._send, mail)
        return {"id": mail.extra_headers["Message-ID"], "to": ", ".join(mail.to), "from": mail.from_email}

    def _send(self, mail: DjangoEmail) -> None:
        """Hand a mail to the site's mail server; an error before the mail itself is sent is tried again."""
        connection = get_connection(timeout=self.config.send_timeout)
        try:
            connection.open()
        except (OSError, smtplib.SMTPException) as error:
            raise TryLater(f"the mail server cannot be reached: {explained(error)}") from error
        try:
            connection.send_messages([mail])
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            raise _refused(code, text) from error
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code, error.smtp_error) from error
        except (OSError, smtplib.SMTPException) as error:
            raise Unsure(f"the mail server did not answer: {explained(error)}") from error
        finally:
            connection.close()


def _refused(code: int, text: bytes | str) -> TryLater | Rejected:
    shown = line(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)[:300]
    reason = f"the mail server answered {code}: {shown}"
    return TryLater(reason) if 400 <= code < 500 else Rejected(reason, str(code))


def _recipients() -> tuple[frozenset[str], frozenset[str]]:
    """Return the domains and addresses of ``CHANNEL_EMAIL`` whose mails are accepted, in lower case.

    Raises:
        ConfigError: the setting cannot be used.
    """
    settings = conf.email_settings()
    unknown = settings.keys() - _KNOWN
    if unknown:
        raise ConfigError(f"CHANNEL_EMAIL has the unknown key {min(unknown)!r}; it takes {', '.join(sorted(_KNOWN))}")
    found = {}
    for key in _KNOWN:
        value = settings.get(key, [])
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each for each in value):
            raise ConfigError(f"CHANNEL_EMAIL[{key!r}] must be a list of str, not {value!r:.80}")
        found[key] = frozenset(each.lower() for each in value)
    wrong = [each for each in found["domains"] if not _DOMAIN.fullmatch(each)]
    wrong += [each for each in found["addresses"] if "@" not in each]
    if wrong:
        raise ConfigError(f"CHANNEL_EMAIL cannot have {min(wrong)!r}: give domains without '@', and whole addresses")
    if not (found["domains"] or found["addresses"]):
        raise ConfigError(
            'CHANNEL_EMAIL names no "domains" and no "addresses" whose mails are accepted, such as '
            '{"domains": ["chat.example.com"]}'
        )
    return found["domains"], found["addresses"]


def _tls(config: EmailConfig) -> ssl.SSLContext | None:
    """Return the context for STARTTLS; None without a certificate.

    Raises:
        ConfigError: certificate and key do not fit.
    """
    if bool(config.tls_certificate) != bool(config.tls_key):
        raise ConfigError("--tls-certificate and --tls-key belong together: give both, or neither")
    if not config.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--tls-certificate and --tls-key cannot be used: {explained(error)}") from error
    return context
