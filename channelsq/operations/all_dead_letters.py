"""The dead letters on the servers of one layer, or on Celery's broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.core.management import CommandError
from kombu import Connection

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.ipc.ipc_transport import Transport
from channelsq.ipc.store_dead_letters import StoredDeadLetters
from channelsq.transport.dead_letter_store import DeadLetter, DeadLetters


class AllDeadLetters:
    """The dead letters on several servers, as if they were on one.

    Args:
        parts: those of each server.
    """

    def __init__(self, parts: Sequence[DeadLetters]) -> None:
        self._parts = tuple(parts)

    def all(self, queue: str | None = None) -> Iterator[DeadLetter]:
        """Yield the dead letters of one queue, or of all, server by server."""
        for part in self._parts:
            yield from part.all(queue)

    def find(self, identity: str, queue: str | None = None) -> list[DeadLetter]:
        """Return the dead letters with an id, of one queue or of all; more than one is rare."""
        return [letter for part in self._parts for letter in part.find(identity, queue)]

    def replay(self, letter: DeadLetter) -> bool:
        """Put the message at the end of its queue on its server; return False if the dead letter is gone."""
        return any(part.replay(letter) for part in self._parts)

    def delete(self, letter: DeadLetter) -> bool:
        """Delete the dead letter; return False if it is gone."""
        return any(part.delete(letter) for part in self._parts)


#: The dead letters on any kind of broker that keeps them.
AnyDeadLetters = DeadLetters | StoredDeadLetters | AllDeadLetters


def connections_of(alias: str | None) -> list[Connection]:
    """Return a connection to each server of a layer's broker.

    Args:
        alias: the layer's alias.  None chooses the default layer if workers read it apart from Celery's broker, and
            Celery's broker otherwise.

    Raises:
        CommandError: there is no such layer, or it has no broker.
    """
    if alias is None:
        default = conf.DEFAULT_CHANNEL_LAYER
        if default not in channel_layers.configs or not channel_layers[default].has_source:
            return [conf.celery_app().connection_for_write()]
        alias = default
    try:
        parts = channel_layers[alias].channel_layer.parts
    except InvalidChannelLayerError as error:
        raise CommandError(str(error)) from error
    connections = [each for part in parts if (each := part.broker_connection()) is not None]
    if not connections:
        raise CommandError(f"the channel layer {alias!r} is on no broker, so that it keeps no dead letters")
    return connections


def letters_on(connections: Sequence[Connection]) -> AnyDeadLetters:
    """Return the dead letters on a broker.

    Raises:
        ValueError: it keeps none.
        kombu.exceptions.OperationalError: it does not answer.
    """
    first = connections[0]
    if isinstance(first.transport, Transport):
        return StoredDeadLetters(first.transport.store)
    if len(connections) > 1:
        return AllDeadLetters([DeadLetters(each) for each in connections])
    return DeadLetters(first)
