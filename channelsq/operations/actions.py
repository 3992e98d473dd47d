"""The actions of ``manage.py channels`` on a layer, after a confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management import CommandError, call_command

from channelsq.asgi import channel_layers
from channelsq.routing import consumed_channels


class LayerActions:
    """The actions on one layer.

    Args:
        alias: the layer's alias.
        out: the stream for the results.
        interactive: whether to ask the user first.
    """

    def __init__(self, alias: str, out: Any, *, interactive: bool) -> None:
        self._layer = channel_layers[alias]
        self._out = out
        self._interactive = interactive
        if self._layer.in_process:
            raise CommandError(f"the channel layer {self._layer} lives inside one process: nothing here can change it")

    def purge(self, channels: Sequence[str]) -> None:
        """Delete the waiting messages of channels; messages that workers have taken stay.

        Raises:
            CommandError: workers do not consume such a channel, or the layer does not support it.
            BrokerUnavailable: the broker does not answer.
        """
        self._layer.router.check_default()
        known = consumed_channels(self._layer.router)
        unknown = sorted({*channels} - {*known})
        if not channels or unknown:
            problem = f"there is no channel {', '.join(map(repr, unknown))}" if unknown else "purge takes channels"
            raise CommandError(f"{problem}; the layer {self._layer.alias!r} has {', '.join(known)}")
        waiting = {channel: self._layer.channel_layer.depth(channel) for channel in channels}
        shown = ", ".join(f"{channel} ({'?' if depth is None else depth})" for channel, depth in waiting.items())
        if not self._is_sure(f"Delete the messages that wait in {shown}?", "nothing deleted"):
            return
        for channel in dict.fromkeys(channels):
            try:
                number = self._layer.channel_layer.purge(channel)
            except NotImplementedError as error:
                raise CommandError(str(error)) from error
            self._out.write(f"deleted {number} message{'' if number == 1 else 's'} of {channel}\n")

    def replay(self, ids: Sequence[str], *, every: bool) -> None:
        """Put dead letters back into their channels; see ``manage.py deadletters``, which also lists and deletes them.

        Raises:
            CommandError: the layer keeps no dead letters, or the arguments name none.
        """
        if bool(ids) == every:
            raise CommandError("replay takes either ids, as `manage.py deadletters` lists them, or --all")
        what = "all dead letters" if every else f"the dead letters {', '.join(ids)}"
        question = f"Have workers handle {what} once more?  Workers died with them."
        if self._is_sure(question, "nothing replayed"):
            call_command("deadletters", "replay", *ids, layer=self._layer.alias, every=every, stdout=self._out)

    def _is_sure(self, question: str, otherwise: str) -> bool:
        if not self._interactive or input(f"{question} Type 'yes' to continue, or 'no' to cancel: ") == "yes":
            return True
        self._out.write(f"{otherwise}\n")
        return False
