"""The command ``python -m channelsq.interface.sms``."""

from __future__ import annotations

import sys

from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.gateway.command import run_gateway


def main() -> int:
    """Run the SMS gateway; return the exit code."""
    try:
        from channelsq.interface.sms.sms_gateway import SmsGateway
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "httpx":
            raise
        problem = ConfigError("it needs the package httpx: pip install 'channelsq[sms]'")
        print(f"channelsq sms gateway: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    return run_gateway(SmsGateway)


if __name__ == "__main__":
    sys.exit(main())
