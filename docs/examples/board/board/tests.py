"""The board's own tests: ``manage.py test``."""

from io import StringIO

from django.contrib.auth import get_user_model
from django.core.management import call_command

from board.models import Activity, Board, Card
from channelsq.exceptions import DenyConnection
from channelsq.test import ChannelTestCase, WSClient


class BoardTests(ChannelTestCase):
    @classmethod
    def setUpTestData(cls):
        call_command("sample", stdout=StringIO())
        cls.launch = Board.objects.get(slug="launch")
        cls.card = Card.objects.get(title="Book the hall")

    def enter(self, name, slug="launch"):
        client = WSClient()
        client.force_login(get_user_model().objects.get(username=name))
        client.send_and_consume("websocket.connect", path=f"/boards/{slug}/")
        return client

    def say(self, client, stream, payload, slug="launch"):
        text = {"stream": stream, "payload": payload}
        client.send_and_consume("websocket.receive", text=text, path=f"/boards/{slug}/")

    def test_a_card_that_is_saved_anywhere_is_told(self):
        client = self.enter("ben")
        self.card.title = "Book a bigger hall"
        self.card.save()
        told = client.receive()
        self.assertEqual(told["stream"], "cards")
        self.assertEqual(told["payload"]["action"], "update")
        self.assertEqual(told["payload"]["pk"], self.card.pk)
        self.assertEqual(told["payload"]["data"]["title"], "Book a bigger hall")

    def test_a_member_changes_a_card(self):
        client = self.enter("ann")
        self.say(client, "cards", {"action": "update", "pk": self.card.pk, "data": {"text": "For ninety"}})
        self.card.refresh_from_db()
        self.assertEqual(self.card.text, "For ninety")
        self.assertEqual(client.receive()["payload"]["data"]["text"], "For ninety")

    def test_moving_a_card_is_written_down(self):
        client = self.enter("ann")
        done = self.launch.columns.get(title="Done")
        self.say(client, "cards", {"action": "update", "pk": self.card.pk, "data": {"column": done.pk}})
        client.consume("board-activity")
        self.assertEqual(Activity.objects.get().text, "ann moved “Book the hall” to Done")

    def test_others_change_nothing(self):
        client = self.enter("cho")
        self.say(client, "cards", {"action": "delete", "pk": self.card.pk})
        self.say(client, "comments", {"action": "create", "data": {"card": self.card.pk, "text": "Hm"}})
        self.assertIsNone(client.receive())
        self.assertTrue(Card.objects.filter(pk=self.card.pk, comments=None).exists())

    def test_nobody_is_let_in_without_a_name(self):
        client = WSClient()
        with self.assertRaises(DenyConnection):
            client.send_and_consume("websocket.connect", path="/boards/launch/")

    def test_a_card_that_somebody_had_open_is_let_go(self):
        ann, ben = self.enter("ann"), self.enter("ben")
        self.say(ben, "presence", {"card": self.card.pk})
        self.assertEqual(ann.receive()["payload"], {"user": "ben", "card": self.card.pk, "open": True})
        ben.send_and_consume("websocket.disconnect", {"path": "/boards/launch/"})
        self.assertEqual(ann.receive()["payload"], {"user": "ben", "card": self.card.pk, "open": False})
