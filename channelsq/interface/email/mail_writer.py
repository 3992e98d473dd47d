"""Mails to send: from a message on ``email.send`` to Django's email, with no way to add headers of one's own."""

from __future__ import annotations

import re
from email.utils import make_msgid, parseaddr
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email

from channelsq.interface.email.loops import LOOP_HEADER
from channelsq.interface.gateway.outcomes import Rejected

#: The most recipients, attachments, message ids of a thread, and characters of a line and of a text.
MOST_RECIPIENTS, MOST_ATTACHMENTS, MOST_REFERENCES, LONGEST_LINE, LONGEST_TEXT = 50, 20, 20, 900, 500_000

_ID = re.compile(r"<[^<>\s\x00-\x1f\x7f]{1,250}>")
_BAD = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,60}")


def mail_of(content: dict[str, Any]) -> EmailMultiAlternatives:
    """Return the mail in a message on ``email.send``.

    Raises:
        Rejected: a value cannot be used; the reason names it.
    """
    given = content.get("to")
    to = [given] if isinstance(given, str) else given
    if not isinstance(to, (list, tuple)) or not 1 <= len(to) <= MOST_RECIPIENTS:
        raise Rejected(f'"to" must be an address, or a list of at most {MOST_RECIPIENTS}, not {given!r:.80}')
    recipients = [_address(each, "to") for each in to]
    sender = _address(content.get("from") or settings.DEFAULT_FROM_EMAIL, "from")
    reply_to = [_address(content["reply_to"], "reply_to")] if content.get("reply_to") else []
    text, html = _text(content, "text"), _text(content, "html")
    if not text and not html:
        raise Rejected('"text" and "html" are both empty')
    automatic = content.get("automatic", True)
    headers = {"Message-ID": make_msgid(domain=parseaddr(sender)[1].rpartition("@")[2]), LOOP_HEADER: "yes"}
    answered = _ids(content.get("in_reply_to") or [], "in_reply_to")[:1]
    if automatic:
        headers["Auto-Submitted"] = "auto-replied" if answered else "auto-generated"
        headers["X-Auto-Response-Suppress"] = "All"
    if answered:
        headers["In-Reply-To"] = answered[0]
        references = _ids(content.get("references") or [], "references")
        headers["References"] = " ".join(dict.fromkeys([*references[-MOST_REFERENCES:], *answered]))
    mail = EmailMultiAlternatives(
        _line(content.get("subject") or "", "subject"), text, sender, recipients, reply_to=reply_to, headers=headers
    )
    if html:
        mail.attach_alternative(html, "text/html")
    for each in _attachments(content.get("attachments") or []):
        mail.attach(*each)
    return mail


def _line(value: object, key: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_LINE or _BAD.search(value):
        raise Rejected(f'"{key}" must be one line of at most {LONGEST_LINE} characters, not {value!r:.80}')
    return value


def _address(value: object, key: str) -> str:
    text = _line(value, key)
    try:
        validate_email(parseaddr(text)[1])
    except ValidationError:
        raise Rejected(f'"{key}" must be an email address, not {text!r:.80}') from None
    return text


def _text(content: dict[str, Any], key: str) -> str:
    value = content.get(key) or ""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise Rejected(f'"{key}" must be a str of at most {LONGEST_TEXT} characters, not {type(value).__name__}')
    return value


def _ids(value: object, key: str) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, str) and _ID.fullmatch(each) for each in found):
        raise Rejected(f'"{key}" must be message ids such as "<a@example.com>", not {value!r:.80}')
    return list(found)


def _attachments(value: object) -> list[tuple[str, bytes, str]]:
    if not isinstance(value, (list, tuple)) or len(value) > MOST_ATTACHMENTS:
        raise Rejected(f'"attachments" must be a list of at most {MOST_ATTACHMENTS}, not {value!r:.80}')
    found = []
    for each in value:
        match each:
            case {"name": str(name), "content": bytes(body)} if name:
                kind = each.get("content_type") or "application/octet-stream"
                if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
                    raise Rejected(f'the "content_type" of an attachment cannot be {kind!r:.80}')
                found.append((_line(name, "name"), body, kind))
            case _:
                raise Rejected('an attachment must be a dict with "name" (str) and "content" (bytes)')
    return found
