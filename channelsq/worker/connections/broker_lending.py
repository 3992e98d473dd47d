"""One place for the broker's URL: a Celery app that names no broker gets that of the default channel layer.

The other way round needs no code here: a layer without a URL of its own uses the Celery app's broker.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from channelsq import conf
from channelsq.asgi import channel_layers
from channelsq.exceptions import ChannelsqError


def lend_broker(app: Celery) -> None:
    """Give ``app`` the default layer's broker, if it names none when its configuration is read.

    Harmless to repeat.  A layer that cannot be made lends nothing: the system checks say what is wrong with it.
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
