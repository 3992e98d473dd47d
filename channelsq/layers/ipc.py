"""The channel layer for one machine: no broker, but a directory that its processes share."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from channelsq import conf
from channelsq.exceptions import BrokerUnavailable, InvalidChannelLayerError
from channelsq.ipc import SCHEME
from channelsq.ipc.directory import check_prefix, default_directory, directory_of, make_private, url_of
from channelsq.ipc.store import Store, store_at
from channelsq.layers.contract.layer_contract import ChannelState
from channelsq.layers.groups.begun_marks import KEPT, BegunStore
from channelsq.layers.groups.group_stores import GroupSizes, GroupStore
from channelsq.layers.kombu import KombuChannelLayer
from channelsq.layers.kombu_broker.broker_access import DEFAULT_PREFIX


class IPCChannelLayer(KombuChannelLayer):
    """Channels and groups between the processes of one machine and one user, in a SQLite file.

    The Celery app's broker is the same directory: ``ipc://`` and the prefix, or ``ipc://`` and the path.  An app that
    names no broker gets it by itself.

    Args:
        prefix: the site's name; each has a directory of its own among the temporary files of the user.
        path: that directory instead, an absolute path.  It is made if its parent is there, and must belong to the
            user and be closed to others (mode 0700).
        config: see :class:`BaseChannelLayer`.

    Raises:
        InvalidChannelLayerError: prefix or path cannot be used.
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
        super().__init__(url=url_of(directory), **config)

    @property
    def url(self) -> str:
        """The broker's URL: that of the directory, or if none was chosen that of the Celery app if it has such.

        Raises:
            InvalidChannelLayerError: the directory cannot be made, is another user's, or others can enter it.
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
        return store_at(directory_of(self.url))

    @property
    def groups_url(self) -> None:
        """None: the groups are in the directory."""
        return None

    def channel_state(self, channel: str) -> ChannelState:
        with _errors(self.store):
            waiting, held, expires = self.store.state(self.queue(channel).name)
        return ChannelState(waiting, held, None if expires is None else max(0.0, time.time() + self.expiry - expires))

    @property
    def _groups(self) -> GroupStore:
        return IPCGroups(self.store, self.group_expiry)

    @property
    def _has_groups(self) -> bool:
        return True

    @property
    def _begun(self) -> BegunStore:
        return IPCBegun(self.store)

    def close(self) -> None:
        super().close()
        self.store.close()


@contextmanager
def _errors(store: Store) -> Iterator[None]:
    """Turn what SQLite raises in the block into BrokerUnavailable."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise BrokerUnavailable(str(store.path), error) from error


class IPCBegun(BegunStore):
    """Marks in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, mark: str) -> bool:
        with _errors(self._store):
            return self._store.begin(mark, KEPT)

    def end(self, mark: str, after: float) -> None:
        with _errors(self._store):
            self._store.end(mark, after)

    def flush(self) -> None:
        with _errors(self._store):
            self._store.forget_begun()


class IPCGroups(GroupStore):
    """Groups in a store.

    Args:
        store: where.
        expiry: seconds that a membership lives after the last ``add``.
    """

    def __init__(self, store: Store, expiry: float) -> None:
        super().__init__(expiry)
        self._store = store

    def add(self, group: str, channel: str) -> None:
        with _errors(self._store):
            self._store.join(group, channel, self.expiry)

    def discard(self, group: str, channel: str) -> None:
        with _errors(self._store):
            self._store.leave(group, channel)

    def members(self, group: str) -> list[str]:
        with _errors(self._store):
            return self._store.members(group)

    def sizes(self, most: int, seconds: float) -> GroupSizes:
        with _errors(self._store):
            found = self._store.group_sizes(most + 1)
        return GroupSizes(dict(found[:most]), len(found) > most)

    def forget(self, channel: str) -> None:
        with _errors(self._store):
            self._store.leave(None, channel)

    def flush(self) -> None:
        with _errors(self._store):
            self._store.forget_groups()

    def close(self) -> None:
        """The store is the layer's to close."""
