"""Ordinary Celery tasks.  They, like views, signals and the shell, can push to any page."""

from celery import shared_task
from django.utils import timezone

from app.models import frame
from channelsq import Group


@shared_task
def announce(slug: str, text: str) -> None:
    """Show a notice in a room: ``announce.delay("lobby", "Tea is ready")``."""
    Group(f"chat-{slug}").send(frame(type="notice", text=text, at=timezone.now().isoformat()))
