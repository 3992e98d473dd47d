"""Detection of mails that no person wrote: an answer to one may begin a loop of answers.

Sources: RFC 3834 (automatic responses), RFC 2919 and 2369 (mailing lists), RFC 5321, section 6.3 (loops).
"""

from __future__ import annotations

from email.message import Message

#: The header of mails that this server sends.
LOOP_HEADER = "X-Channelsq-Loop"

#: The most ``Received`` headers; a mail that circles gets one more with each server.
MOST_HOPS = 50

_PRECEDENCE = {"bulk", "junk", "list", "auto_reply"}
_AUTOMATIC = ("X-Autoreply", "X-Autorespond", "X-Loop", LOOP_HEADER)


def automatic(mail: Message, sender: str) -> str:
    """Return why a mail counts as automatic; empty if a person seems to have written it.

    Args:
        mail: the mail.
        sender: the sender of its envelope.
    """
    if not sender or str(mail.get("Return-Path", "")).strip() == "<>":
        return "it has no sender, as bounces have none"
    if sender.partition("@")[0].lower() == "mailer-daemon":
        return "it comes from a mailer daemon"
    submitted = str(mail.get("Auto-Submitted", "no")).partition(";")[0].strip().lower()
    if submitted != "no":
        return f"Auto-Submitted is {submitted[:40]}"
    precedence = str(mail.get("Precedence", "")).strip().lower()
    if precedence in _PRECEDENCE:
        return f"Precedence is {precedence}"
    names = [name.lower() for name in mail.keys()]  # noqa: SIM118 - a message's items are no dict's
    listed = next((name for name in names if name.startswith("list-")), "")
    if listed:
        return f"it comes from a mailing list ({listed[:40]})"
    for name in _AUTOMATIC:
        if name.lower() in names:
            return f"it has the header {name}"
    if mail.get_content_type() == "multipart/report":
        return "it is a report"
    if names.count("received") > MOST_HOPS:
        return f"it has passed more than {MOST_HOPS} servers"
    return ""
