"""The interface server for text messages: ``python -m channelsq.interface.sms``.

docs/how-to/extend/interface-servers.md shows how to use it.
"""

from channelsq.interface.sms.provider import ApiCall, ApiResponse, Incoming, Provider, StatusChange, Text
from channelsq.interface.sms.twilio import Twilio

__all__ = ["ApiCall", "ApiResponse", "Incoming", "Provider", "StatusChange", "Text", "Twilio"]
