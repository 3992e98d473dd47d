from django.contrib.auth.decorators import login_required
from django.shortcuts import get_object_or_404, render

from board.models import Board


@login_required
def boards(request):
    found = Board.objects.prefetch_related("columns__cards")
    last = Board.objects.filter(slug=request.session.get("last_board", "")).first()
    return render(request, "board/boards.html", {"boards": found, "last": last})


@login_required
def board(request, slug):
    found = get_object_or_404(Board.objects.prefetch_related("columns__cards__comments__author", "members"), slug=slug)
    request.session["last_board"] = slug
    state = {
        "slug": slug,
        "user": request.user.get_username(),
        "mayChange": found.may_be_changed_by(request.user),
        "columns": [{"pk": column.pk, "title": column.title} for column in found.columns.all()],
        "elsewhere": [
            {"pk": column.pk, "title": f"{other.name}: {column.title}"}
            for other in Board.objects.exclude(pk=found.pk).filter(members=request.user).prefetch_related("columns")
            for column in other.columns.all()
        ],
        "cards": [
            {"pk": card.pk, "column": column.pk, "title": card.title, "text": card.text, "position": card.position}
            for column in found.columns.all()
            for card in column.cards.all()
        ],
        "comments": [
            {"pk": comment.pk, "card": card.pk, "author": comment.author.get_username(), "text": comment.text}
            for column in found.columns.all()
            for card in column.cards.all()
            for comment in card.comments.all()
        ],
        "activity": [activity.text for activity in found.activities.all()[:10]],
    }
    return render(request, "board/board.html", {"board": found, "state": state})
