"""The parts of a received mail, as a message for consumers; bounded, whatever the mail contains.  No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser
from typing import Any

from channelsq.interface.gateway.outcomes import Rejected

#: The most parts, headers, characters of a header and of a file's name, and message ids of a thread.
MOST_PARTS, MOST_HEADERS, LONGEST_HEADER, LONGEST_NAME, MOST_REFERENCES = 100, 100, 1000, 255, 20

#: The deepest nesting of parts.
_DEEPEST = 20

_ID = re.compile(r"<[^<>\s\x00-\x1f\x7f]{1,250}>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


def parse(data: bytes) -> EmailMessage:
    """Return a mail.

    Raises:
        Rejected: it cannot be read.
    """
    try:
        return BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(data)
    except Exception as error:  # the parser raises many kinds for hostile input
        raise Rejected("the mail cannot be read") from error


def content_of(mail: EmailMessage, attachment_bytes: int) -> dict[str, Any]:
    """Return the content of a mail for ``email.receive``, without what the envelope says.

    Args:
        mail: the mail.
        attachment_bytes: the most bytes of all attachments together; further ones come without their content.

    Raises:
        Rejected: it has too many parts, or cannot be read.
    """
    try:
        return _content(mail, attachment_bytes)
    except Rejected:
        raise
    except Exception as error:  # the email package raises many kinds for hostile input
        raise Rejected("the mail cannot be read") from error


def _content(mail: EmailMessage, attachment_bytes: int) -> dict[str, Any]:
    texts: dict[str, str] = {}
    attachments: list[dict[str, Any]] = []
    left = attachment_bytes
    for number, part in enumerate(_leaves(mail, 0)):
        if number >= MOST_PARTS:
            raise Rejected(f"the mail has more than {MOST_PARTS} parts")
        kind = part.get_content_type()
        name = line(part.get_filename() or "")[:LONGEST_NAME]
        if kind in ("text/plain", "text/html") and not name and part.get_content_disposition() != "attachment":
            key = kind.removeprefix("text/").replace("plain", "text")
            if key not in texts:
                texts[key] = _text(part)
                continue
        body = _bytes(part)
        is_kept = len(body) <= left
        left -= len(body) if is_kept else 0
        attachments.append(
            {"name": name, "content_type": kind, "size": len(body), "content": body if is_kept else None}
        )
    references = _ID.findall(_header(mail, "References"))[-MOST_REFERENCES:]
    return {
        "from": line(_header(mail, "From")),
        "subject": line(_header(mail, "Subject")),
        "date": line(_header(mail, "Date")),
        "message_id": next(iter(_ID.findall(_header(mail, "Message-ID"))), ""),
        "in_reply_to": next(iter(_ID.findall(_header(mail, "In-Reply-To"))), ""),
        "references": references,
        "text": texts.get("text", ""),
        "html": texts.get("html", ""),
        "attachments": attachments,
        "headers": [
            [line(name)[:LONGEST_HEADER], line(value)[:LONGEST_HEADER]]
            for name, value in list(mail.raw_items())[:MOST_HEADERS]
        ],
    }


def line(value: object) -> str:
    """Return a text as one line of characters that UTF-8 can encode."""
    return _CONTROL.sub(" ", str(value).encode("utf-8", "replace").decode()).strip()


def _header(mail: EmailMessage, name: str) -> str:
    """Return the value of a header, cut; empty without one, or if it cannot be decoded."""
    try:
        return str(mail.get(name, ""))[: LONGEST_HEADER * 10]
    except Exception:  # of a malformed header
        return ""


def _leaves(part: Message, depth: int) -> Iterator[Message]:
    """Yield the parts that contain no others; a mail within the mail is one part."""
    if depth > _DEEPEST:
        raise Rejected(f"the mail's parts are nested deeper than {_DEEPEST}")
    if part.get_content_maintype() == "multipart" and part.is_multipart():
        for inner in part.get_payload():
            if isinstance(inner, Message):
                yield from _leaves(inner, depth + 1)
    else:
        yield part


def _bytes(part: Message) -> bytes:
    if part.is_multipart():  # a mail within the mail
        return b"".join(inner.as_bytes() for inner in part.get_payload() if isinstance(inner, Message))
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    body, charset = _bytes(part), part.get_content_charset("utf-8")
    try:
        text = body.decode(charset, "replace")
    except (LookupError, ValueError):  # an unknown charset
        text = body.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode().replace("\r\n", "\n")
