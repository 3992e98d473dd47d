"""The demo: a chat with rooms.  It is also the template to copy for an application of your own."""

# Django imports this package when it starts; the Celery app must exist from then on.
from app.celery import app as celery_app

__all__ = ["celery_app"]
