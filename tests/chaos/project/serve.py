"""``python -m tests.chaos.project.serve``: an interface server whose heart beats fast."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys

import django

from channelsq.core.logs import show
from channelsq.interface.basis.config import read_config
from channelsq.interface.basis.limits import Limits
from channelsq.interface.process.server import run
from tests.chaos import EVERY, LIFETIME, ORDER_TIMEOUT


def main() -> None:
    """Serve until told to stop; takes the command line of ``python -m channelsq.interface``."""
    config = read_config([*sys.argv[1:], "--metrics", "--order-timeout", str(ORDER_TIMEOUT)], os.environ)
    config = dataclasses.replace(config, limits=Limits(heartbeat_every=EVERY, heartbeat_lifetime=LIFETIME))
    django.setup()
    show({"channelsq": logging.INFO})
    from channelsq.asgi import channel_layers

    run(config, channel_layers[config.layer])


if __name__ == "__main__":
    main()
