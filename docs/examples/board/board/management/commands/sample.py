"""``manage.py sample``: two boards and three people to try them with."""

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from board.models import Board

PASSWORD = "board-example"  # noqa: S105 - of an example
BOARDS = {"launch": ("Launch", ["ann", "ben"]), "garden": ("Garden", ["ann"])}
CARDS = {
    "launch": {"To do": ["Write the invitations", "Book the hall"], "Doing": ["Draw the poster"], "Done": []},
    "garden": {"To do": ["Sow the carrots"], "Done": ["Mend the fence"]},
}


class Command(BaseCommand):
    help = "Make the people ann, ben and cho, and the boards Launch (ann, ben) and Garden (ann)."

    def handle(self, *args, **options):
        people = {}
        for name in ("ann", "ben", "cho"):
            people[name], made = get_user_model().objects.get_or_create(username=name)
            if made:
                people[name].set_password(PASSWORD)
                people[name].save()
        for slug, (name, members) in BOARDS.items():
            board, made = Board.objects.get_or_create(slug=slug, defaults={"name": name})
            board.members.set(people[member] for member in members)
            if made:
                for number, (title, cards) in enumerate(CARDS[slug].items()):
                    column = board.columns.create(title=title, position=number)
                    for position, card in enumerate(cards):
                        column.cards.create(title=card, position=position)
        self.stdout.write(f"Log in as ann, ben or cho, each with the password {PASSWORD}")
