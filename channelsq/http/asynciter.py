"""Asynchronous iterators, walked by synchronous code one item at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

T = TypeVar("T")


def iterate(source: AsyncIterator[T]) -> Generator[T, None, None]:
    """The items of ``source``, each handed on as soon as it is there.

    ``source`` runs in an event loop of its own that stands still between two items.  Closing the generator
    closes ``source``, so that its ``finally`` runs.

    Raises:
        RuntimeError: called in a thread whose event loop is running.
    """
    with asyncio.Runner() as runner:
        context = ThreadSensitiveContext()
        # Entered in the runner's own context, which every run() below shares: what the source calls
        # through sync_to_async stays in one thread, and its database connections end with it.
        runner.run(_begin(context))
        try:
            while True:
                try:
                    item = runner.run(_next(source))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            runner.run(_finish(context))


async def _begin(context: ThreadSensitiveContext) -> None:
    await context.__aenter__()  # type: ignore[no-untyped-call]


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


async def _finish(context: ThreadSensitiveContext) -> None:
    await asyncio.get_running_loop().shutdown_asyncgens()
    await sync_to_async(connections.close_all)()
    await context.__aexit__(None, None, None)  # type: ignore[no-untyped-call]
