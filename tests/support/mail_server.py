"""A local SMTP server that plays the site's mail server."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller

from tests.support.ports import free_port
from tests.support.waiting import wait_until


class MailServer:
    """The server; each mail takes the next of :attr:`answers`, or is taken.

    Args:
        port: a free port.
    """

    def __init__(self, port: int | None = None) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        #: The answers to the next mails.
        self.answers: list[str] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=port or free_port())
        self.port = self._controller.port
        self._controller.start()
        self._is_running = True

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a mail."""
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos))
        mail = message_from_bytes(envelope.content, EmailMessage, policy=policy.default)
        self.mails.append(mail)
        return self.answers.pop(0) if self.answers else "250 OK"

    def wait_for_mails(self, count: int) -> list[EmailMessage]:
        """Wait until so many mails have come."""
        wait_until(lambda: len(self.mails) >= count, f"{count} mails", 15)
        return self.mails

    def stop(self) -> None:
        """Stop the server; a second call does nothing."""
        if self._is_running:
            self._is_running = False
            self._controller.stop()
