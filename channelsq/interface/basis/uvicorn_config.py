"""uvicorn's settings that all of channelsq's servers share."""

from __future__ import annotations

from typing import Any

import uvicorn


def uvicorn_config(app: Any, *, keep_alive_timeout: float, **options: Any) -> uvicorn.Config:
    """Return the configuration of a server.

    The server reads no forwarded addresses, sends no ``Server`` header, and installs no log handlers.

    Args:
        app: the ASGI 3 application.
        keep_alive_timeout: seconds.
        options: more options of :class:`uvicorn.Config`.
    """
    return uvicorn.Config(
        app,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=keep_alive_timeout,  # type: ignore[arg-type]  # it goes to call_later
        reset_contextvars=True,  # a request inherits no context from an earlier request of its connection
        **options,
    )
