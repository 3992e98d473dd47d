"""Test cases, clients and routes for an application's tests."""

from channelsq.test.base import ChannelTestCase, Client, TransactionChannelTestCase, apply_routes
from channelsq.test.liveserver import ChannelLiveServerTestCase
from channelsq.test.websocket import HttpClient, WSClient

__all__ = [
    "ChannelLiveServerTestCase",
    "ChannelTestCase",
    "Client",
    "HttpClient",
    "TransactionChannelTestCase",
    "WSClient",
    "apply_routes",
]
