"""A small project whose consumers show what happened to them; run by the integration tests as processes."""

from tests.project.celery import app as celery_app

__all__ = ["celery_app"]
