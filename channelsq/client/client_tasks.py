"""Live tasks as a client knows them: what the server says of them, and what is asked of it; without I/O."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, Literal

from channelsq.client.client_errors import ClientClosed, ClientError, TaskFailed
from channelsq.client.stream_text import StreamText
from channelsq.client.task_news import ENDED, LOST, TaskReport, TextChange

#: The most tasks that are kept, besides running ones that the program has asked for.
_MOST_TASKS = 100

Request = Literal["watch", "unwatch", "cancel"]
Send = Callable[[Request, str], None]


class Unread:
    """The news of a task for one reader: the last report, and the new text of each stream."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._waiting: dict[str | None, TaskReport | TextChange] = {}

    def add(self, news: TaskReport | TextChange) -> None:
        """Add news; a newer report replaces one that was not read, text is joined."""
        key = news.stream if isinstance(news, TextChange) else None
        before = self._waiting.pop(key, None)
        if isinstance(news, TextChange) and isinstance(before, TextChange) and not news.restarted:
            news = replace(news, piece=before.piece + news.piece, restarted=before.restarted)
        self._waiting[key] = news
        self.changed.set()

    def take(self) -> TaskReport | TextChange | None:
        """Return the oldest news; None if there is none."""
        for key in self._waiting:
            return self._waiting.pop(key)
        self.changed.clear()
        return None


class ClientTask:
    """A live task of the server, as :meth:`Client.task` returns it.

    ``await task`` returns its result, or raises :class:`TaskFailed`.  ``async for news in task`` yields a
    :class:`TaskReport` for its states and a :class:`TextChange` for its text until it has ended, beginning with what is
    known.  A reader that is slower than the task gets its newest state, and all text.
    """

    def __init__(self, id: str, send: Send) -> None:  # noqa: A002 - as the attribute
        self.id = id
        #: The permission to watch the task; None before it came.
        self.ticket: str | None = None
        #: The newest state.
        self.report = TaskReport()
        #: The text of each stream.
        self.texts: dict[str, str] = {}
        self._send = send
        self._streams: dict[str, StreamText] = {}
        self._number = -1
        self._is_claimed = False
        #: Whether a message came, or was asked for, on this connection.
        self._is_heard = False
        #: Whether the answer to "watch" has not come yet.
        self._is_asked = False
        self._is_left = False
        self._cancels: list[asyncio.Future[bool]] = []
        self._readers: list[Unread] = []
        self._settled = asyncio.Event()
        self._failure: ClientError | None = None

    def __repr__(self) -> str:
        return f"<ClientTask {self.id} {self.report.state}>"

    @property
    def state(self) -> str | None:
        """The state of the newest report."""
        return self.report.state

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the result.

        Raises:
            TaskFailed: the task failed or was revoked, or cannot be watched.
            ClientClosed: the client was closed before.
        """
        return self._result().__await__()

    async def _result(self) -> Any:
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure
        return self.report.result

    async def __aiter__(self) -> AsyncIterator[TaskReport | TextChange]:
        """Yield states and text until the task has ended; raises ClientClosed if the client was closed before."""
        unread = Unread()
        if self.report.state is not None:
            unread.add(self.report)
        for name, stream in self._streams.items():
            unread.add(TextChange(name, stream.text, stream.text, True, stream.ended))
        self._readers.append(unread)
        try:
            while True:
                while (news := unread.take()) is not None:
                    yield news
                if isinstance(self._failure, ClientClosed):
                    raise self._failure
                if self._is_complete:
                    return
                await unread.changed.wait()
        finally:
            self._readers.remove(unread)

    @property
    def _is_complete(self) -> bool:
        """Whether neither states nor text will come any more."""
        if self.report.state in LOST:
            return True
        return self.report.has_ended and not self._is_asked

    async def cancel(self) -> bool:
        """Cancel the task; return False if that is not allowed, or it has ended otherwise.

        It waits for a connection, and for the task's ticket.

        Raises:
            ClientClosed: the client was closed before the answer.
        """
        if self.report.has_ended:
            return False
        if isinstance(self._failure, ClientClosed):
            raise self._failure
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._cancels.append(answer)
        if self._is_left:
            self._watch()
        if self.ticket is not None and len(self._cancels) == 1:
            self._send("cancel", self.ticket)
        return await answer

    def unwatch(self) -> None:
        """Ignore the task until :meth:`Client.task` is called with its ticket again."""
        self._is_left, self._is_asked = True, False
        if self.ticket is not None and not self._cancels:
            self._send("unwatch", self.ticket)

    def _watch(self) -> None:
        self._is_left = False
        if self.ticket is not None and not self._is_asked:
            self._is_asked = self._is_heard = True
            self._send("watch", self.ticket)

    # -- for the client alone

    def _claim(self, ticket: str | None) -> None:
        """Note that the program has asked for the task, and watch it unless it is watched already."""
        is_needed = self._is_left or not self._is_heard or self.ticket is None
        is_first = self.ticket is None and ticket is not None
        self.ticket = ticket or self.ticket
        self._is_claimed = True
        if is_needed:
            self._watch()
        if is_first and ticket is not None and self._cancels:
            self._send("cancel", ticket)

    def _resume(self) -> None:
        """Ask again on a new connection."""
        is_open = self._is_asked or self.report.state not in ENDED | LOST
        self._is_asked = self._is_heard = False
        if is_open and not self._is_left:
            self._watch()
        if self.ticket is not None and self._cancels:
            self._send("cancel", self.ticket)

    def _close(self, error: ClientClosed) -> None:
        """Let everything fail that waits for the task."""
        if not self._settled.is_set():
            self._failure = error
            self._settled.set()
        for answer in self._cancels:
            if not answer.done():
                answer.set_exception(error)
        self._cancels.clear()
        for reader in self._readers:
            reader.changed.set()

    def _hear(self, payload: Mapping[str, Any]) -> None:
        """Take a message."""
        if self._is_left and not self._cancels:
            return
        self._is_heard = True
        if payload.get("cancel") == "refused":
            self._answer_cancel(False)
        elif "stream" in payload:
            self._hear_text(payload)
        elif payload.get("state") == "refused":
            self._hear_refusal(payload)
        elif "state" in payload:
            self._hear_state(payload)

    def _hear_state(self, payload: Mapping[str, Any]) -> None:
        state, ticket, number = payload["state"], payload.get("ticket"), payload.get("n", -1)
        if ticket:
            is_first = self.ticket is None
            self.ticket = ticket
            if is_first and self._cancels:
                self._send("cancel", ticket)
            if self._is_asked:
                self._hear_answer()
        if state == "unknown":
            self._lose(state, f"the server does not know the task {self.id}")
        elif number > self._number and not self.report.has_ended:
            self._number = number
            names = ("state", "done", "total", "text", "parts", "result", "omitted", "error")
            self.report = TaskReport(**{name: payload[name] for name in names if name in payload})
            if self.report.has_ended:
                self._settle(None if state == "success" else self.report.error or f"the task {self.id} was revoked")
                self._answer_cancel(state == "revoked")
            self._tell(self.report)
        for reader in self._readers:  # an answer may complete the text
            reader.changed.set()

    def _hear_refusal(self, payload: Mapping[str, Any]) -> None:
        # The server returns the beginning of a ticket that is too long.
        if self.ticket is None or not self.ticket.startswith(payload.get("ticket", " ")):
            return
        self._answer_cancel(False)
        if self._is_asked:  # else only cancel() was refused
            self._is_asked = False
            self._lose("refused", str(payload.get("error", "")))

    def _lose(self, state: str, error: str) -> None:
        self._answer_cancel(False)
        if not self.report.has_ended and self.report.state != state:
            self.report = replace(self.report, state=state, error=error)
            self._settle(error)
            self._tell(self.report)

    def _settle(self, error: str | None) -> None:
        if not self._settled.is_set():
            self._failure = None if error is None else TaskFailed(str(self.report.state), error)
            self._settled.set()

    def _answer_cancel(self, cancelled: bool) -> None:
        answers, self._cancels = self._cancels, []
        for answer in answers:
            if not answer.done():
                answer.set_result(cancelled)
        if answers and self._is_left:
            self.unwatch()

    def _hear_text(self, payload: Mapping[str, Any]) -> None:
        name = payload["stream"]
        stream = self._streams.setdefault(name, StreamText())
        self._note(name, stream.take(payload))
        if stream.gap == -1 and not stream.is_partial:
            return
        if self.ticket is None:
            if stream.gap != -1:
                self._note(name, stream.skip())
        elif not self._is_asked:
            stream.asked, stream.is_partial = stream.gap, False
            self._watch()

    def _hear_answer(self) -> None:
        """Handle the end of an answer to "watch".

        A gap that the answer has not filled stays; a later one is asked for again.
        """
        self._is_asked = False
        for name, stream in self._streams.items():
            while -1 < stream.gap <= stream.asked:
                self._note(name, stream.skip())
            stream.asked = stream.gap
            if stream.gap != -1:
                self._watch()

    def _note(self, name: str, change: tuple[str, bool, bool]) -> None:
        piece, restarted, is_changed = change
        stream = self._streams[name]
        self.texts[name] = stream.text
        if is_changed:
            self._tell(TextChange(name, piece, stream.text, restarted, stream.ended))

    def _tell(self, news: TaskReport | TextChange) -> None:
        for reader in self._readers:
            reader.add(news)


class ClientTasks:
    """The live tasks of a client.

    Args:
        send: called with a request and its ticket.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._tasks: dict[str, ClientTask] = {}

    def get(self, ticket_or_id: str) -> ClientTask:
        task_id, colon, _ = ticket_or_id.partition(":")
        if not task_id:
            raise ValueError(f"task() takes the ticket or the id of a task, not {ticket_or_id!r}")
        ticket = ticket_or_id if colon else None
        task = self._tasks.get(task_id)
        if task is None or (task.report.state in LOST and ticket not in (None, task.ticket)):
            task = self._add(task_id)
        task._claim(ticket)
        return task

    def receive(self, payload: Any) -> ClientTask | None:
        """Take a message; return its task if that is a new one."""
        if not isinstance(payload, dict):
            return None
        task_id, _, _ = str(payload.get("id", payload.get("ticket", ""))).partition(":")
        known = self._tasks.get(task_id)
        if not task_id or (known is None and payload.get("state") == "refused"):
            return None
        task = known or self._add(task_id)
        task._hear(payload)
        return None if known else task

    def _add(self, task_id: str) -> ClientTask:
        self._tasks.pop(task_id, None)
        if len(self._tasks) >= _MOST_TASKS:
            tasks = self._tasks.values()
            ended = (each.id for each in tasks if each.report.state in ENDED | LOST)
            gone = next(ended, None) or next((each.id for each in tasks if not each._is_claimed), None)
            if gone is not None:
                del self._tasks[gone]
        task = self._tasks[task_id] = ClientTask(task_id, self._send)
        return task

    def resume(self) -> None:
        """Ask again on a new connection."""
        for task in self._tasks.values():
            task._resume()

    def close(self, error: ClientClosed) -> None:
        for task in self._tasks.values():
            task._close(error)
