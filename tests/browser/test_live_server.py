"""The demo in a real browser, on the test's own database: what an application's own test may look like."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from playwright.sync_api import Browser

from app.models import Message
from channelsq.test import ChannelLiveServerTestCase
from tests.support.chat import ChatUser

pytestmark = [pytest.mark.browser]


class ChatTests(ChannelLiveServerTestCase):
    worker_threads = 4

    @pytest.fixture(autouse=True)
    def _browser(self, chromium: Browser) -> None:
        self.browser = chromium

    def setUp(self) -> None:
        call_command("demo", "--force", stdout=StringIO())

    def enter(self, name: str) -> ChatUser:
        user = self.enterContext(ChatUser(self.browser, self.live_server_url, name))
        user.log_in()
        user.enter("Lobby")
        return user

    def test_what_one_says_the_other_sees_and_the_database_has(self) -> None:
        alice, bob = self.enter("alice"), self.enter("bob")
        alice.say("Is this a test?")
        bob.sees("Is this a test?", by="alice")
        assert Message.objects.filter(text="Is this a test?", author__username="alice").count() == 1
        assert not alice.errors + bob.errors
