"""Sockets of live pages, which the interface server lets join their groups without a consumer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from channelsq import conf
from channelsq.core import names
from channelsq.exceptions import BadFrame
from channelsq.fragments.joining import PageSocket, answer_connect, answer_frame, is_of_page, lost_note
from channelsq.fragments.page_groups import form_of
from channelsq.interface.link.replies import Replies

logger = logging.getLogger("channelsq.interface")

#: The threads that ask the layer.  At most one message of a socket waits for them at a time.
_THREADS = 4

_Answers = list[dict[str, Any]]


class PageJoins:
    """The answers of one interface server to sockets of live pages.

    With ``CHANNEL_LIVE["may_join"]`` a worker answers all that needs a ticket, as the project's function may need the
    database.

    Args:
        root_path: the path under which the site is mounted, or "".
        alias: the alias of the server's layer.
    """

    def __init__(self, root_path: str, alias: str) -> None:
        self._alias = alias
        settings = conf.live_settings()
        prefixes = (conf.forced_script_name(), root_path, "")
        self._paths = frozenset(prefix.rstrip("/") + settings.path for prefix in prefixes)
        self._reads_tickets = not settings.may_join
        self._threads: ThreadPoolExecutor | None = None

    def are_for(self, path: str) -> bool:
        """Return whether sockets of a path may be those of live pages."""
        return path in self._paths

    def answer(self, replies: Replies, channel: str, content: dict[str, Any] | str | bytes, order: int) -> bool:
        """Answer a message of a socket, and report it done, later; return False to leave it to the workers.

        Args:
            replies: the replies to the sockets of this server.
            channel: the socket's reply channel.
            content: its message: the content of a connect, or a frame.
            order: of the message.
        """
        work = self._answer_to(content, channel)
        if work is None:
            return False
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "channelsq-pages")
        self._threads.submit(_reply, replies, channel, work, order)
        return True

    def _answer_to(self, content: dict[str, Any] | str | bytes, channel: str) -> Callable[[], _Answers] | None:
        """Return a function that returns the answers to a message of a socket; None for one that workers answer."""
        socket = PageSocket(channel, self._alias)
        if isinstance(content, str) and content.startswith(names.PAGE_FRAME):
            text = content
            is_ours = self._reads_tickets or text == names.PAGE_PING
            return (lambda: answer_frame(text, socket)) if is_ours else None
        if not isinstance(content, dict) or "query_string" not in content:
            return None
        query: bytes = content["query_string"]
        if is_of_page(query):
            return (lambda: [answer_connect(query, socket)]) if self._reads_tickets else None
        return None if b"ticket=" in query else lambda: [{"accept": True}]

    def stop(self) -> None:
        """Give up the answers that have not begun."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def tell_pages(replies: Replies, lost: Iterable[tuple[str, str, float]]) -> None:
    """Tell live pages to load themselves again, as fragments may have been lost together with memberships.

    Args:
        replies: the replies to the sockets of this server.
        lost: the memberships: each a group, a channel, and the seconds until it ends.
    """
    channels: dict[str, set[str]] = {}
    for group, channel, _ in lost:
        form = form_of(group)
        if form is not None:
            channels.setdefault(form, set()).add(channel)
    for form, found in channels.items():
        replies.deliver(list(found), {"text": lost_note(form)})


def _reply(replies: Replies, channel: str, work: Callable[[], _Answers], order: int) -> None:
    try:
        answers = work()
    except BadFrame as error:
        answers = [{"close": 1003, "reason": str(error)}]
    except Exception:
        logger.exception("%s: a live page cannot join", channel, extra={"action": "page_failed"})
        answers = [{"close": 1011}]
    for answer in answers:
        replies.deliver((channel,), answer)
    replies.deliver((channel,), {"done": order})
