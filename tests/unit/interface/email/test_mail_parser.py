"""Hostile and broken mails: each is refused, or becomes a bounded message that any layer takes."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsq.interface.email.loops import LOOP_HEADER, MOST_HOPS, automatic
from channelsq.interface.email.mail_parser import MOST_PARTS, content_of, line, parse
from channelsq.interface.gateway import Rejected
from channelsq.layers.wire import codec

PLAIN = b"From: a@b\r\nSubject: s\r\n\r\nhello\r\n"


@given(st.binary(max_size=500), st.sampled_from([b"", b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n"]))
def test_anything_becomes_a_message_or_is_refused(data: bytes, start: bytes) -> None:
    try:
        mail = parse(start + data)
        automatic(mail, "a@b.example")
        content = content_of(mail, 100)
    except Rejected:
        return
    codec.pack(content, 10_000_000)


def test_header_values_are_one_line() -> None:
    mail = parse(b"Subject: =?utf-8?q?a=0D=0ABcc:_x@y?=\r\nFrom: \xff\xfe\r\nReferences: <a@b> <c d> <e@f>\r\n\r\n")
    content = content_of(mail, 0)
    assert content["subject"] == "a Bcc: x@y"
    assert content["references"] == ["<a@b>", "<e@f>"]
    assert line("a\u2028b\ud800") == "a b?"


def test_parts_and_nesting_are_bounded() -> None:
    many = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\na\r\n" * (MOST_PARTS + 1) + b"--x--\r\n"
    with pytest.raises(Rejected, match="parts"):
        content_of(parse(many), 100)
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(50))
    with pytest.raises(Rejected, match="nested"):
        content_of(parse(deep), 100)


def test_unknown_charsets_and_mails_within_mails() -> None:
    mail = parse(b"Content-Type: text/plain; charset=nonsense\r\n\r\nh\xc3\xa4\r\n")
    assert content_of(mail, 0)["text"] == "hä\n"
    outer = EmailMessage()
    outer.set_content("see")
    outer.add_attachment(parse(PLAIN))
    content = content_of(parse(outer.as_bytes()), 1000)
    assert content["text"] == "see\n"
    (attached,) = content["attachments"]
    assert attached["content_type"] == "message/rfc822"
    assert b"hello" in attached["content"]


@pytest.mark.parametrize(
    ("headers", "sender", "found"),
    [
        (b"", "a@b", False),
        (b"Auto-Submitted: no; comment\r\n", "a@b", False),
        (b"Precedence: first-class\r\n", "a@b", False),
        (b"Received: x\r\n" * MOST_HOPS, "a@b", False),
        (b"", "", True),
        (b"", "Mailer-Daemon@b", True),
        (b"AUTO-SUBMITTED: Auto-Generated\r\n", "a@b", True),
        (b"Precedence: LIST\r\n", "a@b", True),
        (b"list-unsubscribe: <x>\r\n", "a@b", True),
        (b"X-Autoreply: yes\r\n", "a@b", True),
        (LOOP_HEADER.lower().encode() + b": yes\r\n", "a@b", True),
        (b"Return-Path: <>\r\n", "a@b", True),
        (b"Content-Type: multipart/report; boundary=x\r\n", "a@b", True),
        (b"Received: x\r\n" * (MOST_HOPS + 1), "a@b", True),
    ],
)
def test_automatic_mails(headers: bytes, sender: str, found: bool) -> None:
    assert bool(automatic(parse(headers + PLAIN), sender)) is found
