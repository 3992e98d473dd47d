"""Messages on ``email.send``: none of them adds a header, or a recipient that it does not name."""

from __future__ import annotations

from typing import Any

import pytest

from channelsq.interface.email.mail_writer import mail_of
from channelsq.interface.gateway import Rejected

GOOD = {"to": "a@b.example", "subject": "s", "text": "t", "from": "Site <site@chat.example>"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"to": None}, '"to"'),
        ({"to": []}, '"to"'),
        ({"to": ["a@b.example"] * 51}, '"to"'),
        ({"to": "a@b.example\r\nBcc: c@d.example"}, '"to"'),
        ({"to": "nobody"}, '"to"'),
        ({"from": "x\n@y.example"}, '"from"'),
        ({"reply_to": "x"}, '"reply_to"'),
        ({"subject": "a\r\nBcc: c@d.example"}, '"subject"'),
        ({"subject": "a\x85b"}, '"subject"'),
        ({"subject": "x" * 901}, '"subject"'),
        ({"subject": 7}, '"subject"'),
        ({"text": ""}, "empty"),
        ({"text": 7}, '"text"'),
        ({"html": "x" * 500_001}, '"html"'),
        ({"in_reply_to": "<a\r\nX: y>"}, '"in_reply_to"'),
        ({"in_reply_to": "<a@b>", "references": ["x"]}, '"references"'),
        ({"attachments": [{"name": "a\r\nb", "content": b""}]}, '"name"'),
        ({"attachments": [{"name": "a", "content": "text"}]}, "attachment"),
        ({"attachments": [{"name": "a", "content": b"", "content_type": "a/b\r\nX: y"}]}, "content_type"),
        ({"attachments": [{}] * 21}, '"attachments"'),
    ],
)
def test_mails_that_cannot_be_sent(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(Rejected, match=named):
        mail_of({**GOOD, **changes})


def test_a_mail_of_a_person_is_not_marked_as_automatic() -> None:
    answer = {**GOOD, "in_reply_to": "<1@x>", "references": ["<0@x>", "<1@x>"]}
    marked, plain = mail_of(answer).message(), mail_of({**answer, "automatic": False}).message()
    assert marked["Auto-Submitted"] == "auto-replied"
    assert marked["References"] == "<0@x> <1@x>"
    assert "Auto-Submitted" not in plain
    assert plain["X-Channelsq-Loop"] == marked["X-Channelsq-Loop"] == "yes"
    assert plain["Message-ID"].endswith("@chat.example>")


def test_parts() -> None:
    files = [{"name": "ä.txt", "content": b"file", "content_type": "text/x-thing"}]
    mail = mail_of({**GOOD, "html": "<p>t</p>", "attachments": files, "to": ["A <a@b.example>", "c@d.example"]})
    kinds = [part.get_content_type() for part in mail.message().walk()]
    assert kinds[-1] == "text/x-thing"
    assert {"text/plain", "text/html"} <= set(kinds)
    assert mail.recipients() == ["A <a@b.example>", "c@d.example"]
