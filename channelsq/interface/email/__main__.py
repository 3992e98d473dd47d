"""The command ``python -m channelsq.interface.email``."""

from __future__ import annotations

import sys

from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.gateway.command import run_gateway


def main() -> int:
    """Run the email gateway; return the exit code."""
    try:
        from channelsq.interface.email.email_gateway import EmailGateway
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "aiosmtpd":
            raise
        problem = ConfigError("it needs the package aiosmtpd: pip install 'channelsq[email]'")
        print(f"channelsq email gateway: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    return run_gateway(EmailGateway)


if __name__ == "__main__":
    sys.exit(main())
