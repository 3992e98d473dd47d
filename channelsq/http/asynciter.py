"""Asynchronous iterators, iterated by synchronous code one item at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from channelsq.delivery import shutdown

T = TypeVar("T")

#: Seconds between two checks whether a waiting source must end, as its worker shuts down.
_LOOK_EVERY = 0.5


def iterate(source: AsyncIterator[T], quiet: float | None = None) -> Generator[T | None, None, None]:
    """Yield the items of ``source``, each as soon as it is produced.

    ``source`` runs in its own event loop, which stops between two items.  Closing the generator closes ``source``, also
    while it waits, so that its ``finally`` runs.

    Args:
        source: the iterator.
        quiet: seconds after which None is yielded if no item has come; None for never.

    Raises:
        RuntimeError: called in a thread whose event loop is running.
        ShuttingDown: the worker has no time left.
    """
    with asyncio.Runner() as runner:
        # Shared by every run() below: functions that the source calls through sync_to_async stay in one thread, and
        # their database connections are closed at the end.
        shared = copy_context()
        context = ThreadSensitiveContext()
        runner.run(_begin(context), context=shared)
        walk = _Walk(source, runner.get_loop(), shared)
        try:
            while True:
                try:
                    item = runner.run(walk.next(quiet), context=shared)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            runner.run(_finish(context, walk), context=shared)


async def _begin(context: ThreadSensitiveContext) -> None:
    await context.__aenter__()  # type: ignore[no-untyped-call]


class _Walk(Generic[T]):
    """A wait for a source's items; it ends when the worker's shutdown has no time left, or the caller stops."""

    def __init__(self, source: AsyncIterator[T], loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._source = source
        self._context = context
        self._waiting: asyncio.Task[T] | None = None
        self._cancelled = False
        self._task = loop.create_task(self._look())

    async def next(self, quiet: float | None) -> T | None:
        """Return the next item; None if it has not come within ``quiet`` seconds, and the wait continues next time."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._next(), context=self._context)
        done, _ = await asyncio.wait({self._waiting}, timeout=quiet)
        if not done:
            return None
        waiting, self._waiting = self._waiting, None
        try:
            return waiting.result()
        except asyncio.CancelledError:
            if self._cancelled:
                raise shutdown.ShuttingDown("the worker is shutting down") from None
            raise

    async def _next(self) -> T:
        return await anext(self._source)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._waiting is not None and shutdown.is_over():
                self._cancelled = True
                self._waiting.cancel()

    async def stop(self) -> None:
        for task in (self._task, self._waiting):
            if task is not None and not task.done():
                task.cancel()
                # A source that is closed may raise any exception: no reader is left.
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task


async def _finish(context: ThreadSensitiveContext, walk: _Walk[Any]) -> None:
    await walk.stop()
    await asyncio.get_running_loop().shutdown_asyncgens()
    await sync_to_async(connections.close_all)()
    await context.__aexit__(None, None, None)  # type: ignore[no-untyped-call]
