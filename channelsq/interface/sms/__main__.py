"""The command ``python -m channelsq.interface.sms``."""

from __future__ import annotations

import sys

from channelsq.interface.gateway.command import run_named

if __name__ == "__main__":
    sys.exit(run_named("channelsq.interface.sms.sms_gateway.SmsGateway", "sms", needs="httpx"))
