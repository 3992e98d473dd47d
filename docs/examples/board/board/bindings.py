"""The model changes that are sent to browsers, and those that browsers may make."""

from board.models import Activity, Card, Column, Comment
from channelsq import Channel
from channelsq.binding.websockets import WebsocketBinding


class CardBinding(WebsocketBinding):
    """Cards, live: a card that moves to another board leaves one and enters the other."""

    model = Card
    stream = "cards"
    fields = ["column", "title", "text", "position"]

    @classmethod
    def group_names(cls, instance):
        return [instance.column.board.group_name]

    def has_permission(self, user, action, pk):
        """Allow members of the card's present board and of its new board."""
        columns = Column.objects.select_related("board")
        touched = []
        if action != "create":
            touched.append(columns.filter(cards=pk).first())
        if action == "create" or (action == "update" and "column" in self.data):
            touched.append(columns.filter(pk=self.data.get("column")).first())
        return all(column is not None and column.board.may_be_changed_by(user) for column in touched)

    def create(self, data):
        super().create(data)
        self.tell(data["column"], f"added “{data['title']}”")

    def update(self, pk, data):
        before = Card.objects.get(pk=pk)
        super().update(pk, data)
        after = Card.objects.select_related("column").get(pk=pk)
        if after.column_id != before.column_id:
            self.tell(before.column_id, f"moved “{before.title}” to {after.column.title}")

    def delete(self, pk):
        card = Card.objects.get(pk=pk)
        super().delete(pk)
        self.tell(card.column_id, f"deleted “{card.title}”")

    def tell(self, column, what):
        Channel("board-activity").send({"column": column, "text": f"{self.user} {what}"})


class CommentBinding(WebsocketBinding):
    """Comments are written by members and never changed."""

    model = Comment
    stream = "comments"
    fields = ["card", "author", "text"]

    @classmethod
    def group_names(cls, instance):
        return [instance.card.column.board.group_name]

    def has_permission(self, user, action, pk):
        if action != "create":
            return False
        card = Card.objects.select_related("column__board").filter(pk=self.data.get("card")).first()
        return card is not None and card.column.board.may_be_changed_by(user)

    def serialize_data(self, instance):
        return {**super().serialize_data(instance), "author": instance.author.get_username()}

    def create(self, data):
        Comment.objects.create(card_id=data["card"], author=self.user, text=data["text"])  # the author is never in data


class ActivityBinding(WebsocketBinding):
    """The activity of a board, which browsers cannot change."""

    model = Activity
    stream = "activity"
    fields = ["text"]

    @classmethod
    def group_names(cls, instance):
        return [instance.board.group_name]

    def has_permission(self, user, action, pk):
        return False
