"""The socket of a board, and the background work."""

from board.bindings import ActivityBinding, CardBinding, CommentBinding
from board.models import Activity, Board, Column
from channelsq.exceptions import DenyConnection
from channelsq.generic.websockets import JsonWebsocketConsumer, WebsocketDemultiplexer, WebsocketMultiplexer


class PresenceConsumer(JsonWebsocketConsumer):
    """The users' open cards.

    The browser says which card it has open. The channel session stores it, so that the card is released when the
    socket ends.
    """

    channel_session_user = True

    def connect(self, message, multiplexer, **kwargs):
        """Do nothing: the demultiplexer has accepted the socket."""

    def receive(self, content, multiplexer, slug, **kwargs):
        card = content.get("card")
        before = self.message.channel_session.get("card")
        self.message.channel_session["card"] = card
        if before is not None and before != card:
            self.tell(multiplexer, slug, before, False)
        if card is not None:
            self.tell(multiplexer, slug, card, True)

    def disconnect(self, message, multiplexer, slug, **kwargs):
        card = message.channel_session.get("card")
        if card is not None:
            self.tell(multiplexer, slug, card, False)

    def tell(self, multiplexer, slug, card, opened):
        presence = {"user": self.message.user.get_username(), "card": card, "open": opened}
        multiplexer.group_send(f"board-{slug}", "presence", presence)


class BoardDemultiplexer(WebsocketDemultiplexer):
    """One socket a page, with a stream for each binding and one for presence."""

    http_user = True

    consumers = {
        "cards": CardBinding.consumer,
        "comments": CommentBinding.consumer,
        "activity": ActivityBinding.consumer,
        "presence": PresenceConsumer,
    }

    def connection_groups(self, slug, **kwargs):
        return [f"board-{slug}"]

    def connect(self, message, **kwargs):
        if not message.user.is_authenticated or not Board.objects.filter(slug=kwargs["slug"]).exists():
            raise DenyConnection
        super().connect(message, **kwargs)


def record_activity(message):
    """Record an event; ``ActivityBinding`` sends it to the board."""
    column = Column.objects.select_related("board").get(pk=message["column"])
    Activity.objects.create(board=column.board, text=message["text"])


def announce(message):
    """Show a text to all users with an open board."""
    for board in Board.objects.all():
        WebsocketMultiplexer.group_send(board.group_name, "notices", {"text": message["text"]})
