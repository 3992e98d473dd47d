"""Notes, live."""

from __future__ import annotations

from typing import Any

from channelsq.binding.websockets import WebsocketBinding


class NoteBinding(WebsocketBinding):
    model = "project.Note"
    stream = "notes"
    fields = ["board", "text"]

    @classmethod
    def group_names(cls, instance: Any) -> list[str]:
        return [f"notes-{instance.board}"]

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        return bool(user.is_authenticated)
