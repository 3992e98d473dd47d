"""Asynchronous iterators, walked by synchronous code one item at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from typing import Any, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from channelsq import shutdown

T = TypeVar("T")

#: Seconds between two looks whether a source that is waited for must end, as its worker shuts down.
_LOOK_EVERY = 0.5


def iterate(source: AsyncIterator[T]) -> Generator[T, None, None]:
    """The items of ``source``, each handed on as soon as it is there.

    ``source`` runs in an event loop of its own that stands still between two items.  Closing the generator
    closes ``source``, so that its ``finally`` runs.

    Raises:
        RuntimeError: called in a thread whose event loop is running.
        ShuttingDown: the worker has no time left.
    """
    with asyncio.Runner() as runner:
        context = ThreadSensitiveContext()
        # Entered in the runner's own context, which every run() below shares: what the source calls
        # through sync_to_async stays in one thread, and its database connections end with it.
        runner.run(_begin(context))
        watch = _Watch(runner.get_loop())
        try:
            while True:
                try:
                    item = runner.run(watch.next(source))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            runner.run(_finish(context, watch))


async def _begin(context: ThreadSensitiveContext) -> None:
    await context.__aenter__()  # type: ignore[no-untyped-call]


class _Watch:
    """Ends the wait for an item when the worker's shutdown has no time left; else a source that waits would not end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._task = loop.create_task(self._look())

    async def next(self, source: AsyncIterator[T]) -> T:
        self._waiting = asyncio.current_task()
        try:
            return await anext(source)
        except asyncio.CancelledError:
            if self._cancelled:
                raise shutdown.ShuttingDown("the worker is shutting down") from None
            raise
        finally:
            self._waiting = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._waiting is not None and shutdown.is_over():
                self._cancelled = True
                self._waiting.cancel()

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def _finish(context: ThreadSensitiveContext, watch: _Watch) -> None:
    await watch.stop()
    await asyncio.get_running_loop().shutdown_asyncgens()
    await sync_to_async(connections.close_all)()
    await context.__aexit__(None, None, None)  # type: ignore[no-untyped-call]
