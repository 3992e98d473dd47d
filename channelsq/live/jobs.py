"""A live task in its layer: where its state is kept, and how its audience is told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from channelsq import conf
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from channelsq.core import names
from channelsq.exceptions import ChannelsqError, InvalidChannelLayerError
from channelsq.layers.groups.records import RecordStore
from channelsq.live.job_state import JobState
from channelsq.live.task_page import fragment

logger = logging.getLogger("channelsq.live")

#: The field of a record with the state.
_STATE = "state"

#: The field with the groups to tell: pages that cancel a task by its ticket do not know them.
GROUPS = "groups"

#: A field that is written last, to let the record end sooner.
_ENDED = "ended"


def group_of(job: str) -> str:
    """Return the group of the sockets that watch a live task."""
    return f"channelsq.task.{job}"


def html_group_of(job: str) -> str:
    """Return the group of the sockets that watch a live task and get HTML."""
    return f"channelsq.task-html.{job}"


def frame(payload: dict[str, Any]) -> str:
    """Return the text of a WebSocket frame for the browser library."""
    return json.dumps({"stream": names.LIVE_STREAM, "payload": payload}, separators=(",", ":"), ensure_ascii=False)


class Job(NamedTuple):
    """A live task, as each process that has a part in it knows it."""

    #: Its id: that of the Celery task, or of the result of the canvas.
    id: str
    #: The alias of its layer.
    alias: str
    #: The groups to tell, besides that of the sockets which watch it.
    groups: tuple[str, ...] = ()

    @property
    def layer(self) -> ChannelLayerWrapper:
        """The layer with its state, and with the sockets of its audience."""
        return channel_layers[self.alias]

    @property
    def record(self) -> str:
        """The name of its record."""
        return f"task:{self.id}"

    @property
    def records(self) -> RecordStore:
        """The records of the layer.

        Raises:
            InvalidChannelLayerError: the layer has no place for them.
        """
        records = self.layer.channel_layer.records
        if records is None:
            raise InvalidChannelLayerError(
                f"the layer {self.alias!r} has no place for the state of live tasks: set "
                f"CHANNEL_LAYERS[{self.alias!r}]['CONFIG']['groups_url'] to a Redis"
            )
        return records

    def read(self) -> tuple[JobState | None, dict[str, bytes]]:
        """Return the state, None if it is not known any more, and the other fields of the record."""
        fields = self.records.read(self.record)
        state = fields.pop(_STATE, None)
        return None if state is None else JobState.load(state), fields

    def write(self, fields: dict[str, bytes]) -> None:
        """Set further fields of the record, which lives for as long as a ticket until the task has ended."""
        self.records.write(self.record, fields, conf.live_settings().ticket_age)

    def create(self, state: JobState) -> None:
        """Write the first state, and the groups to tell."""
        groups = {GROUPS: "\n".join(self.groups).encode()} if self.groups else {}
        self.write({_STATE: state.dump(), **groups})

    def change(self, work: Callable[[JobState], bool]) -> tuple[JobState | None, bool]:
        """Change the state, although other processes do so as well.

        Args:
            work: called with the state, perhaps several times; returns whether it has changed it.

        Returns:
            The state afterwards, None if it is not known any more; and whether it was changed.
        """
        found: list[tuple[JobState | None, bool]] = []

        def attempt(data: bytes | None) -> bytes | None:
            state = None if data is None else JobState.load(data)
            changed = state is not None and work(state)
            found.append((state, changed))
            return state.dump() if state is not None and changed else None

        settings = conf.live_settings()
        self.records.change(self.record, _STATE, attempt, settings.ticket_age)
        state, changed = found[-1]
        if state is not None and changed and state.has_ended:
            self.records.write(self.record, {_ENDED: b""}, settings.keep)
        return state, changed

    def tell(self, payload: dict[str, Any], *, is_droppable: bool = False) -> None:
        """Send a payload to the audience, at once.

        Args:
            payload: see :meth:`JobState.payload`.
            is_droppable: whether clients that read slowly may miss it.
        """
        message: dict[str, Any] = {"text": frame(payload)}
        if is_droppable:
            message["droppable"] = True
        layer = self.layer.channel_layer
        self.layer.dispatch([layer.prepare_group(group, message) for group in self.audience])

    @property
    def audience(self) -> Sequence[str]:
        """The groups that are told."""
        return (group_of(self.id), *self.groups)

    def update(self, work: Callable[[JobState], bool], *, is_droppable: bool = False) -> JobState | None:
        """Change the state, and tell the audience if that has changed anything; errors as those of the layer."""
        state, changed = self.change(work)
        if state is not None and changed:
            self.tell_state(state, is_droppable=is_droppable)
        return state

    def tell_state(self, state: JobState, *, is_droppable: bool = False) -> None:
        """Send a state to the audience, at once."""
        payload = state.payload(self.id)
        self.tell(payload, is_droppable=is_droppable)
        if state.is_html:
            layer, message = self.layer.channel_layer, {"text": fragment(payload)}
            layer.dispatch([layer.prepare_group(html_group_of(self.id), message)])

    def try_update(self, work: Callable[[JobState], bool]) -> JobState | None:
        """Call :meth:`update`; log an error of the layer."""
        try:
            return self.update(work)
        except ChannelsqError as error:
            logger.warning("live task %s: %s", self.id, error, extra={"action": "live_task_untold"})
            return None
