"""The demo's room and users on a layer in memory, and the sockets of their pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from app.models import Room
from channelsq.asgi import ChannelLayerWrapper, channel_layers
from tests.support.chat_page import ChatPage


@pytest.fixture
def layer() -> Iterator[ChannelLayerWrapper]:
    fresh = channel_layers.make_test_backend("default")
    before = channel_layers.set("default", fresh)
    yield fresh
    channel_layers.set("default", before)


@pytest.fixture
def lobby() -> Room:
    return Room.objects.create(name="Lobby", slug="lobby")


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice")


@pytest.fixture
def bob() -> User:
    return User.objects.create_user("bob")


@pytest.fixture
def alices(layer: ChannelLayerWrapper, lobby: Room, alice: User) -> ChatPage:
    """Alice's page, in the lobby."""
    page = ChatPage(layer, alice)
    page.connect()
    page.received()
    return page


@pytest.fixture
def bobs(layer: ChannelLayerWrapper, alices: ChatPage, bob: User) -> ChatPage:
    """Bob's page, in the lobby after Alice's."""
    page = ChatPage(layer, bob)
    page.connect()
    page.received()
    alices.received()
    return page


@pytest.fixture
def media(settings: Any, tmp_path: Path) -> Path:
    """The folder for uploaded files."""
    settings.MEDIA_ROOT = folder = tmp_path / "media"
    return folder
