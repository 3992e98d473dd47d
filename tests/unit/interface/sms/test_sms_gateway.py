"""Messages on ``sms.send``, and the addresses of webhooks."""

from __future__ import annotations

from typing import Any

import pytest

from channelsq.interface.gateway import Rejected
from channelsq.interface.sms.sms_gateway import public_url, text_of, webhook_path


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"text": "hi"}, '"to"'),
        ({"to": "+49\r\n1", "text": "hi"}, '"to"'),
        ({"to": "+" + "1" * 100, "text": "hi"}, '"to"'),
        ({"to": "+491", "text": "hi", "from": 7}, '"from"'),
        ({"to": "+491", "text": None}, '"text"'),
        ({"to": "+491", "text": "x" * 10_001}, '"text"'),
        ({"to": "+491", "text": ""}, '"text" is empty'),
        ({"to": "+491", "text": "hi", "media": "https://x"}, '"media"'),
        ({"to": "+491", "text": "hi", "media": ["file:///etc/passwd"]}, '"media"'),
        ({"to": "+491", "text": "hi", "media": ["https://x"] * 11}, '"media"'),
        ({"to": "+491", "text": "hi", "reference": "x" * 201}, '"reference"'),
    ],
)
def test_texts_that_cannot_be_sent(content: dict[str, Any], named: str) -> None:
    with pytest.raises(Rejected, match=named):
        text_of(content)


@pytest.mark.parametrize("address", ["+4915112345678", "whatsapp:+491", "12345", "Shop 7"])
def test_addresses(address: str) -> None:
    assert text_of({"to": address, "text": "hi", "from": address}).sender == address


def test_urls() -> None:
    assert public_url("https://example.com/base/") == "https://example.com/base"
    for text in ("example.com", "ftp://x", "https://x?y", "https://x#y"):
        with pytest.raises(ValueError, match="https"):
            public_url(text)
    assert webhook_path("/a/b") == "/a/b"
    for text in ("a", "/", "/a?b", "/a b"):
        with pytest.raises(ValueError, match="path"):
            webhook_path(text)
