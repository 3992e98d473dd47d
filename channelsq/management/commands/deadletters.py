"""``manage.py deadletters``: messages that killed their workers; list, show, replay, delete."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from kombu.exceptions import ContentDisallowed, DecodeError, OperationalError

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.layers.wire.encryption import Encryption, is_sealed
from channelsq.operations.all_dead_letters import AnyDeadLetters, connections_of, letters_on
from channelsq.redis_core.compact import ForeignPayload
from channelsq.transport.dead_letter_store import DeadLetter
from channelsq.worker.dead_reports import read_arguments

#: The number of characters shown of a message's value.
SHOWN = 1000

_SEALED = "is encrypted with another key than those of CONFIG['symmetric_encryption_keys']"

_HEADINGS = ("ID", "CHANNEL", "WHEN", "DEATHS", "KEYS")


class Command(BaseCommand):
    """The command for the dead letters on one broker: a layer's, or the Celery app's."""

    help = (
        "Lists the dead letters: messages with which too many workers died, put aside by the broker transports "
        "redis-streams:// and ipc://. `show ID` prints one, `replay ID...` puts messages back into their channels, "
        "`delete ID...` deletes them for good."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the action, and the options that choose letters."""
        parser.add_argument(
            "action", nargs="?", choices=("list", "show", "replay", "delete"), default="list", help="Default: list."
        )
        parser.add_argument("ids", nargs="*", metavar="ID", help="Of dead letters, as list shows them.")
        parser.add_argument("--queue", metavar="NAME", help="Only those of this channel or queue.")
        parser.add_argument(
            "--layer",
            metavar="ALIAS",
            help="Those on the broker of this entry of CHANNEL_LAYERS (default: of the default layer, if workers read "
            "that apart from Celery's broker; else those on Celery's broker).",
        )
        parser.add_argument(
            "--all", action="store_true", dest="every", help="Replay or delete all, or with --queue all of it."
        )
        parser.add_argument(
            "--noinput", "--no-input", action="store_false", dest="interactive", help="Do not ask before delete --all."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the action.

        Raises:
            CommandError: the broker keeps no dead letters or does not answer, or the arguments name none.
        """
        action, ids, queue = options["action"], options["ids"], options["queue"]
        _check_arguments(action, ids, options["every"])
        self._encryption = _encryption(options["layer"])
        with ExitStack() as stack:
            connections = [stack.enter_context(each) for each in connections_of(options["layer"])]
            away: tuple[type[BaseException], ...] = (OperationalError, *connections[0].connection_errors)
            try:
                letters = letters_on(connections)
                if action == "list":
                    self._list(letters.all(queue))
                    return
                chosen = [_find(letters, identity, queue) for identity in dict.fromkeys(ids)]
                if action == "show":
                    self._show(chosen[0])
                elif action == "replay":
                    self._each(letters.replay, letters.all(queue) if options["every"] else chosen, "replayed")
                elif not options["every"] or not options["interactive"] or self._sure(queue):
                    self._each(letters.delete, letters.all(queue) if options["every"] else chosen, "deleted")
            except ValueError as error:
                raise CommandError(str(error)) from error
            except away as error:
                asked = " or ".join(each.as_uri() for each in connections)
                raise CommandError(f"the broker {asked} does not answer: {error}") from error

    def _list(self, letters: Iterable[DeadLetter]) -> None:
        found = [
            (each.id, each.queue, _when(each), str(each.deaths), _summary(each, self._encryption)) for each in letters
        ]
        if not found:
            self.stdout.write("no dead letters")
            return
        rows = [_HEADINGS, *found]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.stdout.write("  ".join([*cells, row[-1]]))

    def _show(self, letter: DeadLetter) -> None:
        lines = {
            "id": letter.id,
            "channel": letter.queue,
            "when": _when(letter),
            "deaths": str(letter.deaths),
            "reason": letter.reason,
            "task": str(letter.task),
            "message id": str(letter.task_id),
        }
        for name, value in lines.items():
            self.stdout.write(f"{name + ':':<12}{value}")
        content, problem = _content(letter, self._encryption)
        if problem is not None:
            self.stdout.write(f"{'content:':<12}{problem}")
            return
        self.stdout.write("content:")
        for key, value in content.items():
            shown = repr(value)
            more = len(shown) - SHOWN
            self.stdout.write(f"  {key}: {shown[:SHOWN]}{f' ... ({more} characters more)' if more > 0 else ''}")

    def _each(self, act: Any, letters: Iterable[DeadLetter], done: str) -> None:
        count = 0
        for letter in list(letters):
            if act(letter):
                count += 1
                self.stdout.write(f"{done} {letter.id} of {letter.queue}")
            else:
                self.stderr.write(f"{letter.id} of {letter.queue} is gone already")
        if count != 1:
            self.stdout.write(f"{count} dead letters {done}")

    def _sure(self, queue: str | None) -> bool:
        what = f"all dead letters of {queue}" if queue else "all dead letters"
        if input(f"Delete {what} for good? Type 'yes' to continue, or 'no' to cancel: ") == "yes":
            return True
        self.stdout.write("nothing deleted")
        return False


def _encryption(alias: str | None) -> Encryption:
    """Return the encryption of the chosen layer, or of the default one; without keys if there is none."""
    name = alias or conf.DEFAULT_CHANNEL_LAYER
    try:
        return channel_layers[name].channel_layer.protection.encryption
    except InvalidChannelLayerError:
        return Encryption("")


def _check_arguments(action: str, ids: list[str], every: bool) -> None:
    problem = None
    if action == "list" and (ids or every):
        problem = "list takes no ID and no --all; `deadletters show ID` prints one"
    elif action == "show" and (every or len(ids) != 1):
        problem = "show takes one ID, as `manage.py deadletters` lists them"
    elif action in ("replay", "delete") and bool(ids) == every:
        problem = f"{action} takes either IDs, as `manage.py deadletters` lists them, or --all"
    if problem:
        raise CommandError(problem)


def _find(letters: AnyDeadLetters, identity: str, queue: str | None) -> DeadLetter:
    found = letters.find(identity, queue)
    if not found:
        where = f" of {queue}" if queue else ""
        raise CommandError(f"there is no dead letter {identity!r}{where}; `manage.py deadletters` lists what there is")
    if len(found) > 1:
        queues = ", ".join(letter.queue for letter in found)
        raise CommandError(f"there are dead letters {identity} of several channels ({queues}); add --queue")
    return found[0]


def _when(letter: DeadLetter) -> str:
    return timezone.localtime(letter.died).isoformat(sep=" ", timespec="seconds")


def _content(letter: DeadLetter, encryption: Encryption | None = None) -> tuple[dict[str, Any], str | None]:
    """Return the values of a message by their keys, or the reason why they cannot be shown."""
    try:
        arguments = read_arguments(letter.payload)
    except (DecodeError, ContentDisallowed, ForeignPayload) as error:
        return {}, f"cannot be read: {error}"
    if arguments is None:
        return {}, "is no Celery task's"
    args, kwargs = arguments
    if len(args) == 2 and isinstance(args[0], str) and isinstance(args[1], dict) and _channel(letter) == args[0]:
        content: dict[str, Any] | None = args[1]  # a channel's message
        if is_sealed(content):
            content = None if encryption is None else encryption.content_of(letter.queue, args[1])
        return ({}, _SEALED) if content is None else (content, None)
    return {"args": args, "kwargs": kwargs}, None


def _channel(letter: DeadLetter) -> str:
    """Return the channel of a letter's queue, whose name may begin with a layer's prefix."""
    return letter.queue.rpartition(":")[2]


def _summary(letter: DeadLetter, encryption: Encryption | None = None) -> str:
    content, problem = _content(letter, encryption)
    if problem is not None:
        return f"({problem})"
    if letter.task != letter.queue:
        return f"(task {letter.task})"
    return ", ".join(sorted(map(str, content)))
