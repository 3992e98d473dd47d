"""The channel layer for one machine: no broker, but a directory that its processes share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from channelsq import conf
from channelsq.exceptions import InvalidChannelLayerError
from channelsq.ipc import SCHEME
from channelsq.ipc.directory import check_prefix, default_directory, directory_of, make_private, url_of
from channelsq.ipc.store import Store, store_at
from channelsq.layers.contract.layer_values import ChannelState, Deliver, Listener, Received, Send
from channelsq.layers.contract.outbox import collected_here
from channelsq.layers.contract.source_contract import Source, SourceOptions
from channelsq.layers.groups.begun_marks import BegunStore
from channelsq.layers.groups.group_stores import GroupStore
from channelsq.layers.ipc_broker.store_errors import store_errors
from channelsq.layers.ipc_broker.store_groups import StoreBegun, StoreGroups
from channelsq.layers.ipc_broker.store_listener import StoreListener
from channelsq.layers.ipc_broker.store_receiver import StoreReceiver
from channelsq.layers.ipc_broker.store_records import StoreRecords
from channelsq.layers.ipc_broker.store_sender import StoreOutbox, StoreSender
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.layers.kombu_broker.broker_access import DEFAULT_PREFIX


class IPCChannelLayer(KombuChannelLayer):
    """Channels and groups between the processes of one machine and one user, in a SQLite file.

    The Celery app's broker is the same directory: ``ipc://`` and the prefix, or ``ipc://`` and the path.  It is the
    default of an app that names no broker.

    Args:
        prefix: the site's name; each site has its own directory among the temporary files of the user.
        path: that directory instead, an absolute path.  It is created if its parent exists.  It must belong to the
            user and be closed to other users (mode 0700).
        config: see :class:`BaseChannelLayer`.

    Raises:
        InvalidChannelLayerError: prefix or path is invalid.
    """

    redis_schemes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *, prefix: str | None = None, path: str | os.PathLike[str] | None = None, **config: Any) -> None:
        refused = {"url", "groups_url", "transport_options", "channel_memory", "group_memory"} & config.keys()
        if refused:
            name = min(refused)
            raise InvalidChannelLayerError(
                f"IPCChannelLayer takes no CONFIG[{name!r}]: messages and groups are in the directory that 'prefix' or "
                "'path' names, and 'capacity' bounds them; leave it out"
            )
        self._chosen = prefix is not None or path is not None
        if path is None:
            directory = default_directory(DEFAULT_PREFIX if prefix is None else prefix)
        else:
            if prefix is not None:
                check_prefix(prefix)
            if not isinstance(path, (str, os.PathLike)) or not Path(path).is_absolute():
                raise InvalidChannelLayerError(f"CHANNEL_LAYERS CONFIG['path'] must be an absolute path, not {path!r}")
            directory = Path(path)
        self._checked = ""
        self._found: tuple[tuple[int, str | None], Store] | None = None  # by the process and the URL
        super().__init__(url=url_of(directory), **config)
        #: The sender of the layer.
        self.store_sender = StoreSender(self)
        self._store_receiver = StoreReceiver(self)

    @property
    def url(self) -> str:
        """The broker's URL: that of the directory; without prefix and path, the Celery app's if that is ``ipc://``.

        Raises:
            InvalidChannelLayerError: the directory cannot be created, belongs to another user, or is open to others.
        """
        url = self._url or ""
        if not self._chosen:
            given = conf.celery_broker_url()
            if given.partition("://")[0] == SCHEME:
                url = given
        if url != self._checked:
            make_private(directory_of(url))
            self._checked = url
        return url

    @property
    def store(self) -> Store:
        """This process's store."""
        place = os.getpid(), self._url if self._chosen else self.url
        found = self._found
        if found is None or found[0] != place:
            found = self._found = place, store_at(directory_of(self.url))
        return found[1]

    def source(self, options: SourceOptions) -> Source[Any]:
        from channelsq.layers.ipc_broker.store_source import StoreSource  # not at the top: only workers need it

        return StoreSource(self, lambda: self.store, self.store_sender, options)

    # -- sending

    def dispatch(self, sends: Sequence[Send]) -> None:
        self.store_sender.dispatch(self.store, sends)

    def settle(self, sends: Sequence[Send]) -> None:
        self.store_sender.settle(self.store, sends)

    def depth(self, channel: str) -> int:
        with self._errors():
            return self.store.size(self.queue(channel).name)

    @property
    def file(self) -> Path:
        store = self.store
        with self._errors():
            store.size(self.queue_name("channelsq-probe"))
        return store.path

    @contextmanager
    def separate_config(self) -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="channelsq-") as directory:
            yield {"prefix": None, "path": directory}

    def channel_state(self, channel: str) -> ChannelState:
        with self._errors():
            waiting, held, expires, dead, sent = self.store.state(self.queue(channel).name)
        oldest = None if expires is None else max(0.0, time.time() + self.expiry - expires)
        return ChannelState(waiting, held, oldest, dead, sent)

    def purge(self, channel: str) -> int:
        with self._errors():
            return self.store.purge(self.queue(channel).name)

    def probe(self, channel: str) -> None:
        with self._errors():
            self.store.write(lambda tx: None, adds=True)

    def _errors(self) -> AbstractContextManager[None]:
        return store_errors(self.store.path)

    # -- receiving

    def receive(self, channels: Iterable[str], block: bool = False) -> Received:
        wanted, store = self.check_wanted(channels), self.store
        with self._errors():
            return self._store_receiver.receive_from(store, wanted, self.block_timeout if block else 0)

    def listen(self, prefix: str, deliver: Deliver) -> Listener:
        self.check_wanted([prefix])
        return StoreListener(self, lambda: self.store, self.queue(prefix).name, deliver)

    # -- groups, and marks of runs

    @property
    def groups_url(self) -> None:
        """None, because the groups are in the directory."""
        return None

    @property
    def _groups(self) -> GroupStore:
        return StoreGroups(self.store, self.group_expiry)

    @property
    def _has_groups(self) -> bool:
        return True

    @property
    def _begun(self) -> BegunStore:
        return StoreBegun(self.store)

    @property
    def records(self) -> StoreRecords:
        return StoreRecords(self.store, self.protection)

    def end(self, mark: str, *, at_once: bool = False) -> None:
        outbox = collected_here.get()
        if not at_once and isinstance(outbox, StoreOutbox) and outbox.layer is self:
            outbox.marks = (*outbox.marks, mark)  # deleted with the message, in one transaction
        else:
            super().end(mark, at_once=at_once)

    # -- housekeeping

    def flush(self) -> None:
        """Purge the queues that this process has used, and delete every group, mark and record in the directory."""
        with self._errors():
            for queue in list(self.used):
                self.store.purge(queue)
        self.store_sender.forget_windows()
        self._store_receiver.clear()
        self._groups.flush()
        self._begun.flush()
        self.records.flush()

    def close(self) -> None:
        super().close()
        self.store.close()
