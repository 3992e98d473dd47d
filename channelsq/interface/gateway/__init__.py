"""The base of interface servers for other protocols; docs/how-to/extend/interface-servers.md shows how to write one.

::

    command          run_gateway(): command line, settings, exit codes
    gateway          Gateway: its life from start to drain
    http_door        webhooks and the server's own pages, on uvicorn
    mailbox, seen    reply channels; clients' messages that were published before
    channel_reader   reading of the channels that the gateway sends out, as a worker reads
    outbound         rate, attempts and receipts of these messages
    outcomes         TryLater, Rejected, Unsure
"""

from channelsq.interface.basis.command_line import ConfigError
from channelsq.interface.basis.server_options import Option
from channelsq.interface.gateway.command import run_gateway
from channelsq.interface.gateway.gateway import Gateway
from channelsq.interface.gateway.gateway_config import OPTIONS, GatewayConfig
from channelsq.interface.gateway.http_door import HttpRequest, HttpResponse
from channelsq.interface.gateway.outcomes import Rejected, TryLater, Unsure

__all__ = [
    "OPTIONS",
    "ConfigError",
    "Gateway",
    "GatewayConfig",
    "HttpRequest",
    "HttpResponse",
    "Option",
    "Rejected",
    "TryLater",
    "Unsure",
    "run_gateway",
]
