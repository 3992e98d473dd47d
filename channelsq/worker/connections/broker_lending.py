"""One setting for the broker's URL: a Celery app without a broker gets the URL of the default channel layer.

The reverse needs no code here: a layer without a URL uses the Celery app's broker.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.exceptions import ChannelsqError


def lend_broker(app: Celery) -> None:
    """Set the default layer's broker on ``app`` if its configuration names no broker.

    Repeated calls are harmless.  A layer with unusable settings lends no URL; the system checks report its errors.
    """
    if getattr(app, "configured", False):  # not in Celery's stubs
        _lend(app)
    else:
        app.on_after_configure.connect(_lend, weak=False)


def _lend(sender: Any, **kwargs: Any) -> None:
    if sender.conf.broker_url:
        return
    try:
        if conf.DEFAULT_CHANNEL_LAYER not in channel_layers:
            return
        layer = channel_layers[conf.DEFAULT_CHANNEL_LAYER]
        url = getattr(layer, "own_url", None)
        if url and not layer.in_process:
            sender.conf.broker_url = url
    except ChannelsqError:
        return
